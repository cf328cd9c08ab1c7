/* The few functions of Android's C library that the runner uses, declared here: no NDK is needed.
 *
 * Kept to calls whose arguments and constants are the same on arm64 and x86-64, in every version
 * of Android since 7.0, and in glibc (which the tests run the program on). No FILE, no errno, no
 * pthread types: those differ. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

_Static_assert(sizeof(long) == 8 && sizeof(void *) == 8, "64-bit devices only");

enum { READ_ONLY = 0, WRITE_ONLY = 1, READ_WRITE = 2, CREATE = 0100, TRUNCATE = 01000,
       APPEND = 02000, CLOSE_ON_EXEC = 02000000 };
enum { STANDARD_INPUT = 0, STANDARD_OUTPUT = 1, STANDARD_ERROR = 2 };
enum { CLOCK_MONOTONIC = 1 };
enum { RUSAGE_SELF = 0, RUSAGE_THREAD = 1 };
enum { RTLD_NOW = 2 };

struct timespec {
    long seconds;
    long nanoseconds;
};

/* As the kernel lays it out on 64-bit devices: two struct timeval, then counters. */
struct rusage {
    long times[4];
    long counters[13];
    long involuntary_switches;
    long spare[16];
};

int open(const char *path, int flags, ...);
long read(int file, void *bytes, size_t size);
long write(int file, const void *bytes, size_t size);
long pread(int file, void *bytes, size_t size, long offset);
long pwrite(int file, const void *bytes, size_t size, long offset);
int ftruncate(int file, long size);
int close(int file);
int dup(int file);
int dup2(int file, int number);
int unlink(const char *path);
int clock_gettime(int clock, struct timespec *time);
int getrusage(int who, struct rusage *usage);
int sched_setaffinity(int process, size_t size, const void *mask);
int sched_getaffinity(int process, size_t size, void *mask);
__attribute__((noreturn)) void _exit(int code);

void *calloc(size_t count, size_t size);
void *realloc(void *memory, size_t size);
void free(void *memory);
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *memory, int value, size_t size);
size_t strlen(const char *text);
int strcmp(const char *left, const char *right);
int strncmp(const char *left, const char *right, size_t size);
char *strchr(const char *text, int character);
char *strstr(const char *text, const char *part);
long strtol(const char *text, char **end, int base);
double strtod(const char *text, char **end);
__attribute__((format(printf, 3, 4))) int snprintf(char *text, size_t size,
                                                   const char *format, ...);
int vsnprintf(char *text, size_t size, const char *format, va_list values);

void *dlopen(const char *path, int flags);
void *dlsym(void *library, const char *name);
char *dlerror(void);
