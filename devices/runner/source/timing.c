/* The timed part: warm-ups, eviction, and runs one by one. */
#include "timing.h"

enum { CACHE_LINE_BYTES = 64, FEWEST_WARMUPS = 2 };

static uint64_t *words;
static size_t reserved_bytes;

int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.seconds * INT64_C(1000000000) + time.nanoseconds;
}

/* How often the runtime's threads lost their processor: this one if it is alone, else all. */
static long preemptions(int threads)
{
    struct rusage usage = {0};
    getrusage(threads == 1 ? RUSAGE_THREAD : RUSAGE_SELF, &usage);
    return usage.involuntary_switches;
}

/* Writing one word of each cache line moves the whole line into the cache. */
static void walk(size_t bytes)
{
    size_t step = CACHE_LINE_BYTES / sizeof *words;
    size_t end = bytes / sizeof *words;
    for (size_t index = 0; index < end; index += step)
        words[index]++;
    __asm__ volatile("" ::: "memory"); /* so that the compiler thinks someone reads it */
}

void eviction_reserve(size_t bytes)
{
    reserved_bytes = (bytes + CACHE_LINE_BYTES - 1) / CACHE_LINE_BYTES * CACHE_LINE_BYTES;
    if (!reserved_bytes)
        return;
    words = allocate(reserved_bytes);
    memset(words, 1, reserved_bytes); /* pages are there only once written */
}

int64_t eviction_timed_walk_ns(void)
{
    if (!reserved_bytes)
        return -1;
    int64_t start = now_ns();
    walk(reserved_bytes);
    return now_ns() - start;
}

const char *timed_runs(const struct runtime *runtime, struct model *model, size_t eviction_bytes,
                       struct warmups warmups, long runs, int threads, struct samples samples)
{
    const char *failed;
    int64_t warm_at = now_ns() + (int64_t)(1e6 * warmups.ms);
    for (long count = 0; count < warmups.most; count++) {
        if (count >= FEWEST_WARMUPS && now_ns() > warm_at)
            break;
        if ((failed = runtime->run(model)))
            return failed;
    }
    for (long count = 0; count < runs; count++) {
        if (eviction_bytes) {
            walk(eviction_bytes);
            for (size_t index = 0; index < model->input_count; index++)
                tensor_touch(&model->inputs[index]);
        }
        long before = preemptions(threads);
        int64_t start = now_ns();
        failed = runtime->run(model);
        int64_t stop = now_ns();
        if (failed)
            return failed;
        samples.preempted[count] = preemptions(threads) != before;
        samples.ns[count] = stop - start;
    }
    return NULL;
}
