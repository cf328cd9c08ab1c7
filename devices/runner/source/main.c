/* Times models on a phone: `latkit-runner PROGRESS_FILE`, commands on standard input, answers on
 * standard output, a line of JSON each. What a runtime itself prints goes to standard error.
 *
 * Commands, one a line, fields separated by one space; a path is the last field and goes to the
 * end of the line:
 *
 *   library onnxruntime|tflite PATH   the runtime's .so
 *   accelerator NAME [PATH]           cpu (default), xnnpack, nnapi, gpu or plugin. PATH: the .so
 *                                     with the delegate, where it is not in the runtime's; a
 *                                     plugin's has tflite_plugin_create_delegate
 *   threads N                         1 by default
 *   cores HEXMASK                     where to run; pinned before the library is loaded
 *   warmups COUNT MILLISECONDS        before each visit: up to COUNT runs, two at least, no more
 *                                     once this time is over
 *   model ID EVICTION_BYTES PATH      ID is an integer; -1 is the canary
 *   load                              load all models, run each once
 *   round ID:RUNS ID:RUNS ...         visit models, in exactly this order
 *   profile ID TURNS WARMUPS RUNS PREFIX
 *                                     load a model once more with the runtime's profiler on, run
 *                                     it once; then, so many times: visit ID and run what is
 *                                     profiled WARMUPS + RUNS times. The canary, if there is one,
 *                                     is visited before and after each. The files that come of
 *                                     it have names that start with PREFIX
 *   outputs ID                        run once, tell sums of the outputs
 *   save ID PATH                      run once, write all outputs' bytes to PATH
 *   quit                              as does the end of input
 *
 * Answers:
 *
 *   load     for each model {"loaded":ID,"first_run_ns":N,"log":".."} or
 *            {"failed":ID,"cause":".."}; then {"end":"load","runtime_version":"..",
 *            "pinned_to":[N..]|null,"providers":[".."]|null}
 *   round    for each visit {"visit":ID,"samples_ns":[..],"preempted":[0|1..]} or
 *            {"failed":ID,"cause":".."}; a model that failed before is skipped; before each visit
 *            of the canary {"memory_walk_ns":N} if a model has its caches evicted; then
 *            {"end":"round","duration_ns":N,"pinned_to":[N..]|null,"before":STATE,"after":STATE}
 *            with STATE {"frequency_khz":[N..]|null,"load_average":[N,N,N]|null}
 *   profile  for each visit as in a round, of RUNS; or {"failed":ID,"cause":".."}, and no more
 *            turns. Then {"end":"profile","optimized":"..","profile":".."}: paths of the graph
 *            that the runtime runs, and of all runs of the one that was profiled, the first of
 *            all among them; both null where it failed. Files of a failure may stay
 *   outputs  {"outputs":[{"name":"..","type":"float32","shape":[N..],"sum":N,
 *            "absolute_sum":N}..]}, {"end":"outputs"}
 *   save     {"end":"save","bytes":N}
 *   quit     {"end":"quit"}, and exit code 0
 *   what can't be read or done: {"error":".."}, and exit code 2
 *
 * PROGRESS_FILE holds "STEP ID ACTION", padded to 64 bytes, of what is being loaded or run, so
 * that the culprit of a crash is known. PROGRESS_FILE.log holds what the runtime said meanwhile,
 * while it loads; it goes when the runner ends well. */
#include "session.h"

enum { MOST_LINE_BYTES = 1 << 24, MOST_RUNS = 1000000 };

static struct plan plan = {.settings = {.accelerator = "cpu", .threads = 1},
                           .warmups = {.most = 2}};
static int answers_file;

static void finish(struct text *answers, int code)
{
    bool written = text_flush(answers, answers_file);
    log_close();
    _exit(written ? code : 3); /* no destructors: a runtime's threads may be at work still */
}

/* Read one line, without its end. False at the end of input, or with a cause if it is none. */
static bool read_line(struct text *line, const char **why)
{
    static char bytes[65536];
    static size_t start, end;
    line->length = 0;
    for (;;) {
        size_t stop = start;
        while (stop < end && bytes[stop] && bytes[stop] != '\n')
            stop++;
        text_bytes(line, bytes + start, stop - start);
        if (stop < end) {
            start = stop + 1;
            if (!bytes[stop])
                *why = "there is a zero byte in a line";
            return bytes[stop];
        }
        if (line->length > MOST_LINE_BYTES) {
            *why = "a line is longer than 16 MiB";
            return false;
        }
        long size = read(STANDARD_INPUT, bytes, sizeof bytes);
        if (size <= 0)
            return false; /* half a line is none */
        start = 0;
        end = (size_t)size;
    }
}

/* The next field, its end marked by a 0; `rest` goes on behind it. NULL if there is none. */
static char *take_field(char **rest)
{
    char *field = *rest;
    if (!field || !*field || *field == ' ')
        return NULL;
    char *space = strchr(field, ' ');
    *rest = space ? space + 1 : NULL;
    if (space)
        *space = 0;
    return field;
}

static bool read_integer(const char *field, long least, long most, long *value)
{
    char *end;
    if (!field || !((*field >= '0' && *field <= '9') || *field == '-'))
        return false;
    *value = strtol(field, &end, 10);
    return !*end && end != field && *value >= least && *value <= most;
}

static char *copy(const char *value)
{
    size_t size = strlen(value) + 1;
    return memcpy(allocate(size), value, size);
}

static struct entry *find_entry(const char *field)
{
    long number;
    if (read_integer(field, CANARY, INT32_MAX, &number))
        for (size_t index = 0; index < plan.count; index++)
            if (plan.entries[index].number == number)
                return &plan.entries[index];
    return NULL;
}

static const char *set_library(char *rest)
{
    const char *name = take_field(&rest);
    if (!name || !rest || !*rest)
        return "library wants a runtime and a path";
    if (!strcmp(name, "onnxruntime"))
        plan.runtime = &onnxruntime;
    else if (!strcmp(name, "tflite"))
        plan.runtime = &tflite;
    else
        return cause("there is no runtime %s; there are onnxruntime and tflite", name);
    plan.settings.library = copy(rest);
    return NULL;
}

static const char *set_accelerator(char *rest)
{
    static const char *const names[] = {"cpu", "xnnpack", "nnapi", "gpu", "plugin"};
    const char *name = take_field(&rest);
    for (size_t index = 0; name && index < sizeof names / sizeof *names; index++) {
        if (strcmp(name, names[index]))
            continue;
        plan.settings.accelerator = names[index];
        plan.settings.accelerator_library = rest && *rest ? copy(rest) : NULL;
        if (!strcmp(name, "plugin") && !plan.settings.accelerator_library)
            return "accelerator plugin wants the path of the delegate's library";
        return NULL;
    }
    return "accelerator wants cpu, xnnpack, nnapi, gpu or plugin";
}

static const char *set_threads(char *rest)
{
    long threads;
    if (!read_integer(rest, 1, MOST_CORES, &threads))
        return "threads wants a number from 1";
    plan.settings.threads = (int)threads;
    return NULL;
}

static const char *set_cores(char *rest)
{
    plan.pinned = rest && cores_read(&plan.cores, rest);
    return plan.pinned ? NULL : "cores wants a hexadecimal mask with at least one core";
}

static const char *set_warmups(char *rest)
{
    char *end = "", *count = take_field(&rest), *time = take_field(&rest);
    if (!read_integer(count, 0, MOST_RUNS, &plan.warmups.most) || !time || rest)
        return "warmups wants a count and milliseconds";
    plan.warmups.ms = strtod(time, &end);
    if (*end || end == time || !(plan.warmups.ms >= 0 && plan.warmups.ms <= 1e9))
        return "warmups wants milliseconds from 0";
    return NULL;
}

static const char *add_model(char *rest)
{
    const char *name = take_field(&rest), *size = take_field(&rest);
    struct entry entry = {0};
    long eviction_bytes;
    if (!read_integer(name, CANARY, INT32_MAX, &entry.number) ||
        !read_integer(size, 0, (long)1 << 40, &eviction_bytes) || !rest || !*rest)
        return "model wants an integer, bytes to evict, and a path";
    if (find_entry(name))
        return cause("there is a model %ld already", entry.number);
    entry.eviction_bytes = (size_t)eviction_bytes;
    entry.path = copy(rest);
    plan.entries = realloc(plan.entries, (plan.count + 1) * sizeof entry);
    if (!plan.entries)
        return "there is not enough memory";
    plan.entries[plan.count++] = entry;
    return NULL;
}

static const char *load(char *rest, struct text *answers)
{
    if (rest)
        return "load wants nothing more";
    if (!plan.runtime)
        return "load needs a library first";
    return plan_load(&plan, answers);
}

static const char *round_of(char *rest, struct text *answers)
{
    size_t most = rest ? strlen(rest) / 2 + 1 : 0, count = 0;
    struct visit *visits = allocate(most * sizeof *visits);
    const char *why = NULL;
    if (rest && !*rest)
        rest = NULL; /* a round of nothing is one */
    while (rest && !why) {
        char *field = take_field(&rest);
        char *runs = field ? strchr(field, ':') : NULL;
        if (runs)
            *runs++ = 0;
        struct visit *visit = &visits[count];
        visit->entry = find_entry(field);
        if (!runs || !read_integer(runs, 1, MOST_RUNS, &visit->runs))
            why = "round wants fields ID:RUNS";
        else if (!visit->entry)
            why = cause("there is no model %s", field);
        count++;
    }
    if (!why)
        why = plan_round(&plan, visits, count, answers);
    free(visits);
    return why;
}

static const char *profile_of(struct entry *entry, char *rest, struct text *answers)
{
    struct turns turns;
    if (!read_integer(take_field(&rest), 0, MOST_RUNS, &turns.count) ||
        !read_integer(take_field(&rest), 0, MOST_RUNS, &turns.warmups) ||
        !read_integer(take_field(&rest), 1, MOST_RUNS, &turns.runs) || !rest || !*rest)
        return "profile wants turns, warm-ups, runs, and the start of a path";
    return plan_profile(&plan, entry, turns, rest, answers);
}

/* Do what a line says. NULL, or why it can't be done. */
static const char *obey(char *line, struct text *answers)
{
    static const struct {
        const char *name;
        const char *(*set)(char *rest);
    } settings[] = {{"library", set_library}, {"accelerator", set_accelerator},
                    {"threads", set_threads}, {"cores", set_cores},
                    {"warmups", set_warmups}, {"model", add_model}};
    char *rest = line;
    const char *name = take_field(&rest);
    if (!name)
        return "there is no command in this line";
    for (size_t index = 0; index < sizeof settings / sizeof *settings; index++) {
        if (strcmp(name, settings[index].name))
            continue;
        return plan.loaded ? cause("%s comes too late: models are loaded", name)
                           : settings[index].set(rest);
    }
    if (!strcmp(name, "load"))
        return plan.loaded ? "models are loaded already" : load(rest, answers);
    bool outputs = !strcmp(name, "outputs"), save = !strcmp(name, "save");
    bool profile = !strcmp(name, "profile"), round = !strcmp(name, "round");
    if (!outputs && !save && !profile && !round)
        return cause("there is no command %s", name);
    if (!plan.loaded)
        return cause("%s comes too early: no models are loaded", name);
    if (round)
        return round_of(rest, answers);
    const char *number = take_field(&rest);
    struct entry *entry = find_entry(number);
    if (!entry)
        return cause("%s wants the number of a model", name);
    if (profile)
        return profile_of(entry, rest, answers);
    if (outputs)
        return rest ? "outputs wants nothing more" : plan_outputs(&plan, entry, answers);
    return rest && *rest ? plan_save(&plan, entry, rest, answers) : "save wants a path";
}

int main(int count, char **arguments, char **environment)
{
    struct text answers = {0}, log_path = {0}, line = {0};
    (void)environment;
    /* Runtimes print, and must not print between answers. */
    answers_file = dup(STANDARD_OUTPUT);
    dup2(STANDARD_ERROR, STANDARD_OUTPUT);
    const char *why = count == 2 ? NULL : "usage: latkit-runner PROGRESS_FILE";
    if (!why) {
        plan.progress_file = open(arguments[1], WRITE_ONLY | CREATE | CLOSE_ON_EXEC, 0600);
        text_add(&log_path, arguments[1]);
        text_add(&log_path, ".log");
        if (plan.progress_file < 0 || !log_open(log_path.data))
            why = cause("can't write %s", arguments[1]);
    }
    while (!why && read_line(&line, &why) && strcmp(line.data, "quit")) {
        why = obey(line.data, &answers);
        if (!why && !text_flush(&answers, answers_file))
            _exit(3); /* the host is gone */
    }
    if (why) {
        text_add(&answers, "{\"error\":");
        text_string(&answers, why);
        text_add(&answers, "}\n");
        finish(&answers, 2);
    }
    text_add(&answers, "{\"end\":\"quit\"}\n");
    finish(&answers, 0);
    return 0;
}
