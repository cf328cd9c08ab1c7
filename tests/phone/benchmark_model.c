/* Stands for TFLite's benchmark_model in tests: really runs a model, through the TFLite library at
 * LIBRARY, and prints the lines that the newer builds of that program print. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void *library;

static void *find(const char *name)
{
    void *found = dlsym(library, name);
    if (!found) {
        fprintf(stderr, "ERROR: there is no %s\n", name);
        exit(1);
    }
    return found;
}

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e6 + now.tv_nsec * 1e-3;
}

static int compare(const void *one, const void *other)
{
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

static double timed_runs(void *interpreter, int count)
{
    int (*invoke)(void *) = find("TfLiteInterpreterInvoke");
    double *times = calloc(count, sizeof *times), sum = 0;
    for (int run = 0; run < count; run++) {
        double start = now_us();
        if (invoke(interpreter) != 0)
            exit(1);
        times[run] = now_us() - start;
        sum += times[run];
    }
    double first = times[0], last = times[count - 1];
    qsort(times, count, sizeof *times, compare);
    printf("INFO: count=%d first=%.0f curr=%.0f min=%.0f max=%.0f avg=%g std=0 p5=%.0f "
           "median=%.0f p95=%.0f\n\n", count, first, last, times[0], times[count - 1], sum / count,
           times[count / 20], times[count / 2], times[count - 1 - count / 20]);
    free(times);
    return sum / count;
}

static const char *flag(int count, char **arguments, const char *name, const char *otherwise)
{
    size_t length = strlen(name);
    for (int index = 1; index < count; index++)
        if (!strncmp(arguments[index], name, length) && arguments[index][length] == '=')
            return arguments[index] + length + 1;
    return otherwise;
}

int main(int count, char **arguments)
{
    if (count > 1 && !strcmp(arguments[1], "--help")) {
        puts("Flags:\n\t--num_runs=50\tint32\n\t--min_secs=1\tfloat\n\t--max_secs=150\tfloat\n"
             "\t--num_threads=-1\tint32\n\t--warmup_runs=1\tint32\n\t--warmup_min_secs=0.5\tfloat\n"
             "\t--graph=\tstring\n\t--use_xnnpack=true\tbool");
        return 0;
    }
    int runs = atoi(flag(count, arguments, "--num_runs", "50"));
    int warmups = atoi(flag(count, arguments, "--warmup_runs", "1"));
    library = dlopen(LIBRARY, RTLD_NOW);
    if (!library) {
        fprintf(stderr, "ERROR: %s\n", dlerror());
        return 1;
    }
    double start = now_us();
    void *(*open_model)(const char *) = find("TfLiteModelCreateFromFile");
    void *(*make_options)(void) = find("TfLiteInterpreterOptionsCreate");
    void (*set_threads)(void *, int32_t) = find("TfLiteInterpreterOptionsSetNumThreads");
    void *(*make)(void *, void *) = find("TfLiteInterpreterCreate");
    int (*allocate)(void *) = find("TfLiteInterpreterAllocateTensors");
    void *model = open_model(flag(count, arguments, "--graph", ""));
    if (!model) {
        fputs("ERROR: Failed to mmap model\nERROR: Benchmarking failed.\n", stderr);
        return 1;
    }
    void *options = make_options();
    set_threads(options, atoi(flag(count, arguments, "--num_threads", "1")));
    void *interpreter = make(model, options);
    if (!interpreter || allocate(interpreter) != 0)
        return 1;
    double init_us = now_us() - start;
    printf("INFO: Initialized session in %gms.\n", init_us / 1e3);
    double warmup_us = timed_runs(interpreter, warmups > 0 ? warmups : 1);
    double mean_us = timed_runs(interpreter, runs);
    printf("INFO: Inference timings in us: Init: %.0f, First inference: %.0f, Warmup (avg): %g, "
           "Inference (avg): %g\n", init_us, warmup_us, warmup_us, mean_us);
    return 0;
}
