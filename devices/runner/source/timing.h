/* The timed part: warm-ups, eviction, and runs one by one. */
#pragma once

#include "runtime.h"

struct warmups {
    long most;  /* how many, at most */
    double ms;  /* after so long no more begin, but for the two that there are always */
};

/* Samples of one visit; the caller provides the memory for `runs` of them. */
struct samples {
    int64_t *ns;
    unsigned char *preempted;
};

int64_t now_ns(void);

/* Memory that is walked through, so that the caches hold it instead of a model. Called once. */
void eviction_reserve(size_t bytes);

/* How long a walk through all of it takes; -1 where there is none. */
int64_t eviction_timed_walk_ns(void);

/* Run a model untimed to warm up, then `runs` times timed. NULL, or why a run failed. */
const char *timed_runs(const struct runtime *runtime, struct model *model, size_t eviction_bytes,
                       struct warmups warmups, long runs, int threads, struct samples samples);
