/* A model's inputs and outputs, whichever runtime holds them. */
#pragma once

#include "json.h"

enum { MOST_DIMENSIONS = 32 };

enum type { UNKNOWN, FLOAT16, FLOAT32, FLOAT64, INT8, INT16, INT32, INT64,
            UINT8, UINT16, UINT32, UINT64, BOOL };

struct tensor {
    char *name;
    enum type type;
    size_t dimensions, shape[MOST_DIMENSIONS];
    size_t count, bytes;
    unsigned char *data; /* where the runtime reads or writes it */
};

size_t type_bytes(enum type type); /* 0 for UNKNOWN */

/* Set `shape`, `count` and `bytes`. An open first dimension (below 1), the batch, becomes 1.
 * NULL, or why it can't be done. */
const char *tensor_set_shape(struct tensor *tensor, const int64_t *shape, size_t dimensions,
                             bool batch_may_be_open);

/* Fill input number `input` of a model with numbers that depend on nothing but their place. */
void tensor_fill(struct tensor *tensor, uint64_t input);

/* Write the values again that are there: as the layer before would have. */
void tensor_touch(struct tensor *tensor);

/* {"name":..,"type":..,"shape":..,"sum":..,"absolute_sum":..} */
void tensor_summary(struct text *text, const struct tensor *tensor);
