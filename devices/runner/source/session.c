/* What is done with the models: load them, visit them in a round, tell their outputs. */
#include "session.h"

enum { MOST_LOG_IN_CAUSE = 1000 };

/* Leave in a file what comes next: a write to it wakes no one, and it outlives a crash. */
static void progress(struct plan *plan, long number, const char *action)
{
    char line[65];
    int length = snprintf(line, sizeof line, "%ld %ld %s", ++plan->step, number, action);
    memset(line + length, ' ', sizeof line - 1 - (size_t)length);
    pwrite(plan->progress_file, line, sizeof line - 1, 0);
}

static void add_failure(struct text *answers, long number, const char *why)
{
    text_add(answers, "{\"failed\":");
    text_integer(answers, number);
    text_add(answers, ",\"cause\":");
    text_string(answers, why);
    text_add(answers, "}\n");
}

static void add_pinned(struct plan *plan, struct text *answers)
{
    text_add(answers, ",\"pinned_to\":");
    if (plan->pinned)
        cores_add_pinned(answers);
    else
        text_add(answers, "null");
}

/* The end of the log goes with it: the last thing said is mostly the reason. */
static void add_failed_load(struct text *answers, long number, const char *why, const char *log)
{
    size_t length = strlen(log);
    const char *end = length > MOST_LOG_IN_CAUSE ? log + length - MOST_LOG_IN_CAUSE : log;
    add_failure(answers, number, *end ? cause("%s; the runtime said: %s", why, end) : why);
}

/* Load one model and run it once. */
static void load_one(struct plan *plan, struct entry *entry, struct text *answers)
{
    int64_t first_run_ns = 0;
    progress(plan, entry->number, "load");
    log_start();
    const char *why = plan->runtime->load(entry->path, &entry->model);
    if (!why) {
        int64_t start = now_ns();
        why = plan->runtime->run(&entry->model);
        first_run_ns = now_ns() - start;
    }
    if (!why)
        why = plan->runtime->settle_outputs(&entry->model);
    const char *log = log_end();
    if (why) {
        entry->failed = true;
        add_failed_load(answers, entry->number, why, log);
        return;
    }
    text_add(answers, "{\"loaded\":");
    text_integer(answers, entry->number);
    text_add(answers, ",\"first_run_ns\":");
    text_integer(answers, first_run_ns);
    text_add(answers, ",\"log\":");
    text_string(answers, log);
    text_add(answers, "}\n");
}

const char *plan_load(struct plan *plan, struct text *answers)
{
    /* First of all, so that all threads of the runtime inherit it. */
    if (plan->pinned && !cores_pin(&plan->cores))
        return "can't run on these cores; they are offline, or not for programs of the shell";
    progress(plan, CANARY, "load");
    log_start();
    const char *why = plan->runtime->open(&plan->settings);
    log_end();
    if (why)
        return why;
    size_t largest = 0;
    for (size_t index = 0; index < plan->count; index++)
        if (plan->entries[index].eviction_bytes > largest)
            largest = plan->entries[index].eviction_bytes;
    eviction_reserve(largest);
    for (size_t index = 0; index < plan->count; index++)
        load_one(plan, &plan->entries[index], answers);
    plan->loaded = true;
    text_add(answers, "{\"end\":\"load\",\"runtime_version\":");
    text_string(answers, plan->runtime->version());
    add_pinned(plan, answers);
    text_add(answers, ",\"providers\":");
    plan->runtime->providers(answers);
    text_add(answers, "}\n");
    return NULL;
}

static void add_visit(struct text *answers, const struct visit *visit, struct samples samples)
{
    text_add(answers, "{\"visit\":");
    text_integer(answers, visit->entry->number);
    text_add(answers, ",\"samples_ns\":[");
    for (long index = 0; index < visit->runs; index++) {
        text_add(answers, index ? "," : "");
        text_integer(answers, samples.ns[index]);
    }
    text_add(answers, "],\"preempted\":[");
    for (long index = 0; index < visit->runs; index++) {
        text_add(answers, index ? "," : "");
        text_integer(answers, samples.preempted[index]);
    }
    text_add(answers, "]}\n");
}

/* Visit a model and tell of it. False where it failed. */
static bool visit_one(struct plan *plan, const struct visit *visit, struct samples samples,
                      struct text *answers)
{
    struct entry *entry = visit->entry;
    progress(plan, entry->number, "run");
    const char *why = timed_runs(plan->runtime, &entry->model, entry->eviction_bytes,
                                 plan->warmups, visit->runs, plan->settings.threads, samples);
    if (why) {
        entry->failed = true;
        add_failure(answers, entry->number, why);
        return false;
    }
    add_visit(answers, visit, samples);
    return true;
}

static struct samples room_for(long runs)
{
    struct samples samples = {allocate((size_t)runs * sizeof *samples.ns), allocate((size_t)runs)};
    return samples;
}

/* Nothing is written before the end of the round, as a write would wake other processes: the
 * samples are put down as numbers, in memory that is there before, and told between visits. */
const char *plan_round(struct plan *plan, const struct visit *visits, size_t count,
                       struct text *answers)
{
    const struct cores *cores = plan->pinned ? &plan->cores : NULL;
    long most_runs = 0;
    for (size_t index = 0; index < count; index++)
        most_runs = visits[index].runs > most_runs ? visits[index].runs : most_runs;
    struct samples samples = room_for(most_runs);
    struct text before = {0};
    device_add_state(&before, cores);
    int64_t start = now_ns();
    for (size_t index = 0; index < count; index++) {
        struct entry *entry = visits[index].entry;
        if (entry->failed)
            continue;
        if (entry->number == CANARY) {
            int64_t walk_ns = eviction_timed_walk_ns();
            if (walk_ns >= 0) {
                text_add(answers, "{\"memory_walk_ns\":");
                text_integer(answers, walk_ns);
                text_add(answers, "}\n");
            }
        }
        visit_one(plan, &visits[index], samples, answers);
    }
    int64_t duration_ns = now_ns() - start;
    text_add(answers, "{\"end\":\"round\",\"duration_ns\":");
    text_integer(answers, duration_ns);
    add_pinned(plan, answers);
    text_add(answers, ",\"before\":");
    text_bytes(answers, before.data, before.length);
    text_add(answers, ",\"after\":");
    device_add_state(answers, cores);
    text_add(answers, "}\n");
    free(before.data);
    free(samples.ns);
    free(samples.preempted);
    return NULL;
}

/* Load a model once more, with the profiler on, and run it once. False where it failed. */
static bool load_to_profile(struct plan *plan, const struct entry *entry, const char *prefix,
                            struct model *profiled, struct text *optimized, struct text *answers)
{
    const char *why = "the runtime's C API has no profiler, so it can't tell single operations";
    if (!plan->runtime->load_profiled) {
        add_failure(answers, entry->number, why);
        return false;
    }
    text_add(optimized, prefix);
    text_add(optimized, ".onnx");
    progress(plan, entry->number, "profile");
    log_start();
    why = plan->runtime->load_profiled(entry->path, optimized->data, prefix, profiled);
    bool loaded = !why;
    if (!why)
        why = plan->runtime->run(profiled);
    if (!why)
        why = plan->runtime->settle_outputs(profiled);
    const char *log = log_end();
    if (why) {
        const char *file;
        add_failed_load(answers, entry->number, why, log);
        if (loaded)
            plan->runtime->end_profile(profiled, &file);
    }
    return !why;
}

/* Everything in turns: what disturbs the phone meanwhile disturbs it all. False at a failure. */
static bool take_turns(struct plan *plan, struct entry *entry, struct model *profiled,
                       struct turns turns, struct text *answers)
{
    struct samples samples = room_for(turns.runs);
    struct visit plain = {entry, turns.runs}, canary = {NULL, turns.runs};
    for (size_t index = 0; index < plan->count; index++)
        if (plan->entries[index].number == CANARY && !plan->entries[index].failed)
            canary.entry = &plan->entries[index];
    bool well = !turns.count || !canary.entry || visit_one(plan, &canary, samples, answers);
    for (long turn = 0; turn < turns.count && well; turn++) {
        const char *why = NULL;
        well = visit_one(plan, &plain, samples, answers);
        progress(plan, entry->number, "profile");
        for (long count = 0; count < turns.warmups + turns.runs && well && !why; count++)
            why = plan->runtime->run(profiled);
        if (why)
            add_failure(answers, entry->number, why);
        well = well && !why && (!canary.entry || visit_one(plan, &canary, samples, answers));
    }
    free(samples.ns);
    free(samples.preempted);
    return well;
}

const char *plan_profile(struct plan *plan, struct entry *entry, struct turns turns,
                         const char *prefix, struct text *answers)
{
    struct text optimized = {0};
    struct model profiled = {0};
    const char *file = NULL;
    if (entry->failed)
        return cause("model %ld failed before", entry->number);
    if (load_to_profile(plan, entry, prefix, &profiled, &optimized, answers)) {
        bool well = take_turns(plan, entry, &profiled, turns, answers);
        progress(plan, entry->number, "profile");
        const char *why = plan->runtime->end_profile(&profiled, &file);
        if (why && well)
            add_failure(answers, entry->number, why);
        if (why || !well)
            file = NULL;
    }
    text_add(answers, "{\"end\":\"profile\",\"optimized\":");
    text_string(answers, file ? optimized.data : NULL);
    text_add(answers, ",\"profile\":");
    text_string(answers, file);
    text_add(answers, "}\n");
    free(optimized.data);
    return NULL;
}

static const char *run_once(struct plan *plan, struct entry *entry)
{
    if (entry->failed)
        return cause("model %ld failed before", entry->number);
    progress(plan, entry->number, "run");
    return plan->runtime->run(&entry->model);
}

const char *plan_outputs(struct plan *plan, struct entry *entry, struct text *answers)
{
    const char *why = run_once(plan, entry);
    if (why)
        return why;
    text_add(answers, "{\"outputs\":[");
    for (size_t index = 0; index < entry->model.output_count; index++) {
        text_add(answers, index ? "," : "");
        tensor_summary(answers, &entry->model.outputs[index]);
    }
    text_add(answers, "]}\n{\"end\":\"outputs\"}\n");
    return NULL;
}

const char *plan_save(struct plan *plan, struct entry *entry, const char *path,
                      struct text *answers)
{
    const char *why = run_once(plan, entry);
    if (why)
        return why;
    struct text bytes = {0};
    for (size_t index = 0; index < entry->model.output_count; index++) {
        const struct tensor *output = &entry->model.outputs[index];
        text_bytes(&bytes, (const char *)output->data, output->bytes);
    }
    long long size = (long long)bytes.length;
    int file = open(path, WRITE_ONLY | CREATE | TRUNCATE | CLOSE_ON_EXEC, 0600);
    bool written = file >= 0 && text_flush(&bytes, file);
    if (file >= 0)
        written &= close(file) == 0;
    free(bytes.data);
    if (!written)
        return cause("can't write %s", path);
    text_add(answers, "{\"end\":\"save\",\"bytes\":");
    text_integer(answers, size);
    text_add(answers, "}\n");
    return NULL;
}
