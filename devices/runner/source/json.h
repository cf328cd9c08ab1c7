/* Text that grows, and the pieces of JSON that answers are made of. */
#pragma once

#include "android.h"

struct text {
    char *data;
    size_t length, capacity;
};

/* Ends the program when there is no memory left: nothing sensible can be answered then. */
void *allocate(size_t size);

void text_bytes(struct text *text, const char *bytes, size_t size);
void text_add(struct text *text, const char *more);
void text_integer(struct text *text, long long value);

/* A number, or null where JSON has none for it (infinite, not a number). */
void text_number(struct text *text, double value);

/* A JSON string in its quotes, in ASCII; null for NULL. Bytes that aren't UTF-8 become U+FFFD. */
void text_string(struct text *text, const char *value);

/* Write all of it to a file descriptor, and empty it. False when the other end is gone. */
bool text_flush(struct text *text, int file);
