/* What the runner asks of an inference runtime: onnxruntime.c and tflite.c each give one. */
#pragma once

#include "tensors.h"

struct settings {
    const char *library;             /* the runtime's .so */
    const char *accelerator;         /* cpu, xnnpack, nnapi, gpu or plugin */
    const char *accelerator_library; /* where the delegate is, if not in the runtime's; or NULL */
    int threads;
};

struct model {
    struct tensor *inputs, *outputs;
    size_t input_count, output_count;
    void *state; /* the runtime's own */
};

/* Functions that can fail give NULL, or the cause. */
struct runtime {
    const char *(*open)(const struct settings *settings);
    /* Inputs stand in place afterwards, and outputs are known once the model has run. */
    const char *(*load)(const char *path, struct model *model);
    const char *(*run)(struct model *model); /* one inference: what is timed */
    /* Set each output's `data`, once after the first run: where it stays. */
    const char *(*settle_outputs)(struct model *model);
    const char *(*version)(void);                 /* NULL where the library doesn't tell */
    void (*providers)(struct text *text);         /* a JSON list, or null */
    /* As `load`, with the runtime's profiler on: the graph that it runs goes to `optimized`, the
     * profile to a file whose name starts with `prefix`. NULL where the runtime has none. */
    const char *(*load_profiled)(const char *path, const char *optimized, const char *prefix,
                                 struct model *model);
    /* Write the profile to `file`, and let the model go. */
    const char *(*end_profile)(struct model *model, const char **file);
};

extern const struct runtime onnxruntime, tflite;

/* A cause, made like printf makes text. It stands until the next one is made. */
__attribute__((format(printf, 1, 2))) const char *cause(const char *format, ...);

/* From start to end, what is written to standard output and error is kept. `log_end` gives the
 * start of it (4 KiB at most), which stands until the next `log_end`. A file at `path` holds it,
 * to be read after a crash; it goes when the runner ends by itself. */
bool log_open(const char *path);
void log_start(void);
const char *log_end(void);
void log_close(void);
