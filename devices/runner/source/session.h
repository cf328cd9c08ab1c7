/* What was asked for so far, the loaded models, and what is done with them. */
#pragma once

#include "device.h"
#include "timing.h"

struct entry {
    long number; /* what the host calls it; -1 is the canary */
    size_t eviction_bytes;
    char *path;
    struct model model;
    bool failed;
};

struct visit {
    struct entry *entry;
    long runs;
};

/* Plain runs, profiled runs and the canary's take turns, so many times. */
struct turns {
    long count;
    long warmups, runs; /* in each turn, of the profiled ones */
};

struct plan {
    const struct runtime *runtime; /* NULL until it is named */
    struct settings settings;
    bool pinned;
    struct cores cores;
    struct warmups warmups;
    struct entry *entries;
    size_t count;
    bool loaded;
    int progress_file;
    long step;
};

enum { CANARY = -1 };

/* Each adds its answers to the text. NULL, or why it can't be done. */
const char *plan_load(struct plan *plan, struct text *answers);
const char *plan_round(struct plan *plan, const struct visit *visits, size_t count,
                       struct text *answers);
const char *plan_profile(struct plan *plan, struct entry *entry, struct turns turns,
                         const char *prefix, struct text *answers);
const char *plan_outputs(struct plan *plan, struct entry *entry, struct text *answers);
const char *plan_save(struct plan *plan, struct entry *entry, const char *path,
                      struct text *answers);
