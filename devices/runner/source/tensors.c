/* A model's inputs and outputs, whichever runtime holds them. */
#include "tensors.h"

static const struct {
    const char *name;
    size_t bytes;
} TYPES[] = {
    [UNKNOWN] = {NULL, 0},       [FLOAT16] = {"float16", 2}, [FLOAT32] = {"float32", 4},
    [FLOAT64] = {"float64", 8},  [INT8] = {"int8", 1},       [INT16] = {"int16", 2},
    [INT32] = {"int32", 4},      [INT64] = {"int64", 8},     [UINT8] = {"uint8", 1},
    [UINT16] = {"uint16", 2},    [UINT32] = {"uint32", 4},   [UINT64] = {"uint64", 8},
    [BOOL] = {"bool", 1},
};

size_t type_bytes(enum type type)
{
    return TYPES[type].bytes;
}

const char *tensor_set_shape(struct tensor *tensor, const int64_t *shape, size_t dimensions,
                             bool batch_may_be_open)
{
    if (dimensions > MOST_DIMENSIONS)
        return "has more than 32 dimensions";
    size_t count = 1;
    for (size_t index = 0; index < dimensions; index++) {
        int64_t length = shape[index];
        if (length < 1 && index == 0 && batch_may_be_open)
            length = 1;
        if (length < 1 && batch_may_be_open)
            return "has an open shape; export the model with fixed shapes";
        if (length < 0 || (length && count > ((size_t)1 << 40) / (size_t)length))
            return "is too large";
        tensor->shape[index] = (size_t)length;
        count *= (size_t)length;
    }
    tensor->dimensions = dimensions;
    tensor->count = count;
    tensor->bytes = count * type_bytes(tensor->type);
    return NULL;
}

/* The finaliser of splitmix64 (Steele et al. 2014): equal places give equal numbers everywhere. */
static uint64_t mix(uint64_t place)
{
    place += 0x9E3779B97F4A7C15u;
    place = (place ^ (place >> 30)) * 0xBF58476D1CE4E5B9u;
    place = (place ^ (place >> 27)) * 0x94D049BB133111EBu;
    return place ^ (place >> 31);
}

/* Rounded to the nearest float16, ties to even. For numbers of magnitude below 2. */
static uint16_t half_of(double value)
{
    uint16_t sign = value < 0 ? 0x8000 : 0;
    double magnitude = value < 0 ? -value : value;
    int exponent = 0; /* of the spacing between halves here: 2^(exponent - 10) */
    while (exponent > -14 && magnitude < 1) {
        magnitude *= 2;
        exponent--;
    }
    double scaled = magnitude * 1024; /* of the hidden bit, 1024, and ten more */
    uint16_t whole = (uint16_t)scaled;
    double rest = scaled - whole;
    if (rest > 0.5 || (rest == 0.5 && (whole & 1)))
        whole++;
    /* Adding, not joining: rounding up to 2048 carries into the exponent, as it has to, and
     * below 1024 there is no hidden bit (a subnormal number). */
    return sign | (uint16_t)(whole < 1024 ? whole : ((exponent + 14) << 10) + whole);
}

static double value_of_half(uint16_t half)
{
    int exponent = (half >> 10) & 31;
    double value = (half & 1023) + (exponent ? 1024 : 0);
    if (exponent == 31)
        value = half & 1023 ? __builtin_nan("") : __builtin_inf();
    for (int power = exponent ? exponent : 1; power < 25; power++)
        value /= 2;
    for (int power = 25; power < exponent; power++)
        value *= 2;
    return half & 0x8000 ? -value : value;
}

void tensor_fill(struct tensor *tensor, uint64_t input)
{
    for (size_t index = 0; index < tensor->count; index++) {
        uint64_t number = mix(((input + 1) << 40) + index);
        /* 24 bits: exact in float32, from -1 to just below 1. */
        double real = (double)(number >> 40) / 8388608.0 - 1;
        void *place = tensor->data + index * type_bytes(tensor->type);
        switch (tensor->type) {
        case FLOAT16: *(uint16_t *)place = half_of(real); break;
        case FLOAT32: *(float *)place = (float)real; break;
        case FLOAT64: *(double *)place = real; break;
        case INT8: case UINT8: *(uint8_t *)place = number & 0xff; break;
        /* Wider integers are often indices, where a large value would reach outside of a table. */
        case BOOL: *(uint8_t *)place = number & 1; break;
        case INT16: case UINT16: *(uint16_t *)place = number & 1; break;
        case INT32: case UINT32: *(uint32_t *)place = number & 1; break;
        case INT64: case UINT64: *(uint64_t *)place = number & 1; break;
        case UNKNOWN: break;
        }
    }
}

void tensor_touch(struct tensor *tensor)
{
    /* Volatile: the compiler must not see that nothing changes. */
    volatile uint64_t *words = (volatile uint64_t *)tensor->data;
    size_t count = tensor->bytes / 8;
    for (size_t index = 0; index < count; index++)
        words[index] = words[index];
    for (size_t index = 8 * count; index < tensor->bytes; index++)
        ((volatile unsigned char *)tensor->data)[index] = tensor->data[index];
}

static double element(const struct tensor *tensor, size_t index)
{
    const void *place = tensor->data + index * type_bytes(tensor->type);
    switch (tensor->type) {
    case FLOAT16: return value_of_half(*(const uint16_t *)place);
    case FLOAT32: return *(const float *)place;
    case FLOAT64: return *(const double *)place;
    case INT8: return *(const int8_t *)place;
    case INT16: return *(const int16_t *)place;
    case INT32: return *(const int32_t *)place;
    case INT64: return (double)*(const int64_t *)place;
    case UINT8: case BOOL: return *(const uint8_t *)place;
    case UINT16: return *(const uint16_t *)place;
    case UINT32: return *(const uint32_t *)place;
    case UINT64: return (double)*(const uint64_t *)place;
    case UNKNOWN: break;
    }
    return 0;
}

void tensor_summary(struct text *text, const struct tensor *tensor)
{
    double sum = 0, absolute_sum = 0;
    for (size_t index = 0; index < tensor->count; index++) {
        double value = element(tensor, index);
        sum += value;
        absolute_sum += value < 0 ? -value : value;
    }
    text_add(text, "{\"name\":");
    text_string(text, tensor->name);
    text_add(text, ",\"type\":");
    text_string(text, TYPES[tensor->type].name);
    text_add(text, ",\"shape\":[");
    for (size_t index = 0; index < tensor->dimensions; index++) {
        text_add(text, index ? "," : "");
        text_integer(text, (long long)tensor->shape[index]);
    }
    text_add(text, "],\"sum\":");
    text_number(text, sum);
    text_add(text, ",\"absolute_sum\":");
    text_number(text, absolute_sum);
    text_add(text, "}");
}
