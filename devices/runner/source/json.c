/* Text that grows, and the pieces of JSON that answers are made of. */
#include "json.h"

void *allocate(size_t size)
{
    void *memory = calloc(1, size ? size : 1);
    if (!memory) {
        static const char message[] = "there is not enough memory\n";
        write(STANDARD_ERROR, message, sizeof message - 1);
        _exit(3);
    }
    return memory;
}

void text_bytes(struct text *text, const char *bytes, size_t size)
{
    if (text->length + size + 1 > text->capacity) {
        size_t capacity = 2 * text->capacity + size + 256;
        char *data = allocate(capacity);
        if (text->length)
            memcpy(data, text->data, text->length);
        free(text->data);
        text->data = data;
        text->capacity = capacity;
    }
    memcpy(text->data + text->length, bytes, size);
    text->length += size;
    text->data[text->length] = 0;
}

void text_add(struct text *text, const char *more)
{
    text_bytes(text, more, strlen(more));
}

void text_integer(struct text *text, long long value)
{
    char digits[24];
    text_bytes(text, digits, (size_t)snprintf(digits, sizeof digits, "%lld", value));
}

void text_number(struct text *text, double value)
{
    char digits[40];
    if (value - value != 0) { /* infinite, or not a number */
        text_add(text, "null");
        return;
    }
    /* As few digits as give this very number back. */
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    text_add(text, digits);
}

/* How many bytes the UTF-8 character takes that starts here; 0 where none does. */
static size_t character_bytes(const unsigned char *bytes)
{
    unsigned first = bytes[0], low = 0x80, high = 0xBF;
    size_t size = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 :
                  first < 0xF5 ? 4 : 0;
    /* No longer form than needed, no surrogates, nothing above U+10FFFF. */
    if (first == 0xE0)
        low = 0xA0;
    if (first == 0xED)
        high = 0x9F;
    if (first == 0xF0)
        low = 0x90;
    if (first == 0xF4)
        high = 0x8F;
    for (size_t index = 1; index < size; index++) {
        if (bytes[index] < low || bytes[index] > high)
            return 0;
        low = 0x80;
        high = 0xBF;
    }
    return size;
}

/* All but printable ASCII is escaped: some take other characters for the end of a line. */
static void add_character(struct text *text, uint32_t character)
{
    char escaped[16];
    int size;
    if (character == '"' || character == '\\')
        size = snprintf(escaped, sizeof escaped, "\\%c", (int)character);
    else if (character >= 0x20 && character < 0x7F)
        size = snprintf(escaped, sizeof escaped, "%c", (int)character);
    else if (character < 0x10000)
        size = snprintf(escaped, sizeof escaped, "\\u%04x", character);
    else
        size = snprintf(escaped, sizeof escaped, "\\u%04x\\u%04x",
                        0xD7C0 + (character >> 10), 0xDC00 + (character & 0x3FF));
    text_bytes(text, escaped, (size_t)size);
}

void text_string(struct text *text, const char *value)
{
    if (!value) {
        text_add(text, "null");
        return;
    }
    text_add(text, "\"");
    const unsigned char *bytes = (const unsigned char *)value;
    while (*bytes) {
        size_t size = character_bytes(bytes);
        uint32_t character = !size ? 0xFFFD : size == 1 ? *bytes : *bytes & (0x7Fu >> size);
        for (size_t index = 1; index < size; index++)
            character = character << 6 | (bytes[index] & 0x3F);
        add_character(text, character);
        bytes += size ? size : 1;
    }
    text_add(text, "\"");
}

bool text_flush(struct text *text, int file)
{
    size_t done = 0;
    while (done < text->length) {
        long written = write(file, text->data + done, text->length - done);
        if (written <= 0)
            return false;
        done += (size_t)written;
    }
    text->length = 0;
    return true;
}
