/* Causes of failures, and what a runtime says while it loads a model. */
#include "runtime.h"

enum { LOG_BYTES = 4096 };

static const char *log_path;
static int log_file, kept_error;

const char *cause(const char *format, ...)
{
    static char texts[2][3072];
    static int turn;
    /* Two in turn: a cause may tell what another one says. */
    char *text = texts[turn = !turn];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof texts[0], format, values);
    va_end(values);
    return text;
}

bool log_open(const char *path)
{
    log_path = path;
    log_file = open(path, READ_WRITE | CREATE | TRUNCATE | APPEND | CLOSE_ON_EXEC, 0600);
    kept_error = dup(STANDARD_ERROR);
    return log_file >= 0 && kept_error >= 0;
}

void log_start(void)
{
    ftruncate(log_file, 0);
    dup2(log_file, STANDARD_OUTPUT);
    dup2(log_file, STANDARD_ERROR);
}

const char *log_end(void)
{
    static char text[LOG_BYTES + 1];
    dup2(kept_error, STANDARD_OUTPUT);
    dup2(kept_error, STANDARD_ERROR);
    long size = pread(log_file, text, LOG_BYTES, 0);
    for (long index = 0; index < size; index++)
        if (!text[index])
            text[index] = ' '; /* else what follows would be lost */
    text[size > 0 ? size : 0] = 0;
    return text;
}

void log_close(void)
{
    if (log_path)
        unlink(log_path);
}
