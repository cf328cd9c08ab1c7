/* ONNX Runtime through its C API: all graph optimisations, sequential, inputs and outputs bound. */
#include "onnxruntime_table.h"
#include "runtime.h"

enum { VERBOSE = 0, WARNING = 2, ERROR = 3 };
enum { SEQUENTIAL = 0, ENABLE_ALL = 99 };
enum { ARENA_ALLOCATOR = 1, DEFAULT_MEMORY = 0 };

struct base {
    void *const *(*table)(uint32_t version);
    const char *(*version)(void);
};

#define DECLARE(place, result, name, arguments) result(*name) arguments;
static struct { TABLE(DECLARE) } ort;

static const struct base *base;
static const struct settings *settings;
static Status (*append_nnapi)(void *options, uint32_t flags);
static void *environment, *allocator, *cpu_memory, *run_options;

struct session {
    void *session, *binding;
};

/* The cause that a status tells, the status released; NULL where all is well. */
static const char *check(const char *what, Status status)
{
    if (!status)
        return NULL;
    const char *text = cause("%s: %s", what, ort.GetErrorMessage(status));
    ort.ReleaseStatus(status);
    return text;
}

/* Leave the function, with the cause, if this call to ONNX Runtime fails. */
#define TRY(call, ...)                                                                             \
    do {                                                                                           \
        const char *failed = check(#call, ort.call(__VA_ARGS__));                                  \
        if (failed)                                                                                \
            return failed;                                                                         \
    } while (0)

/* Warnings, and what tells where nodes were placed. The rest of a verbose log is long. */
static void write_log(void *parameter, int severity, const char *category, const char *identity,
                      const char *place, const char *message)
{
    (void)parameter, (void)category, (void)identity, (void)place;
    if (severity < WARNING && !strstr(message, "placed on") && !strstr(message, "GetCapability"))
        return;
    struct text line = {0};
    text_add(&line, message);
    text_add(&line, "\n");
    text_flush(&line, STANDARD_ERROR); /* one write: lines of several threads don't mix */
    free(line.data);
}

static const char *open_library(const struct settings *given)
{
    settings = given;
    void *library = dlopen(settings->library, RTLD_NOW);
    if (!library)
        return cause("can't load %s: %s", settings->library, dlerror());
    const struct base *(*get_base)(void) = dlsym(library, "OrtGetApiBase");
    if (!get_base)
        return cause("%s is no ONNX Runtime: it has no OrtGetApiBase", settings->library);
    base = get_base();
    void *const *table = base->table(TABLE_VERSION);
    if (!table)
        return cause("ONNX Runtime %s is older than 1.12", base->version());
#define TAKE(place, result, name, arguments) ort.name = (result(*) arguments)table[place];
    TABLE(TAKE)
    *(void **)&append_nnapi = dlsym(library, "OrtSessionOptionsAppendExecutionProvider_Nnapi");
    /* A custom logger: the default one of Android writes to the system's log. */
    int severity = strcmp(settings->accelerator, "cpu") ? VERBOSE : WARNING;
    TRY(CreateEnvWithCustomLogger, write_log, NULL, severity, "latkit", &environment);
    TRY(DisableTelemetryEvents, environment);
    TRY(GetAllocatorWithDefaultOptions, &allocator);
    TRY(CreateCpuMemoryInfo, ARENA_ALLOCATOR, DEFAULT_MEMORY, &cpu_memory);
    TRY(CreateRunOptions, &run_options);
    /* Logging costs time, so timed runs log errors only. */
    TRY(RunOptionsSetRunLogSeverityLevel, run_options, ERROR);
    return NULL;
}

static const char *append_accelerator(void *options)
{
    if (!strcmp(settings->accelerator, "cpu"))
        return NULL;
    if (!strcmp(settings->accelerator, "xnnpack")) {
        char threads[16];
        snprintf(threads, sizeof threads, "%d", settings->threads);
        const char *keys[] = {"intra_op_num_threads"}, *values[] = {threads};
        TRY(SessionOptionsAppendExecutionProvider, options, "XNNPACK", keys, values, 1);
        return NULL;
    }
    if (!strcmp(settings->accelerator, "nnapi")) {
        if (!append_nnapi)
            return cause("ONNX Runtime at %s was built without NNAPI", settings->library);
        return check("NNAPI", append_nnapi(options, 0));
    }
    return cause("ONNX Runtime has no accelerator %s here; it can take xnnpack or nnapi",
                 settings->accelerator);
}

/* With `optimized` and `prefix`, the session writes the graph that it runs, and a profile. */
static const char *make_session(const char *path, const char *optimized, const char *prefix,
                                struct session *made)
{
    void *options;
    TRY(CreateSessionOptions, &options);
    TRY(SetSessionGraphOptimizationLevel, options, ENABLE_ALL);
    TRY(SetSessionExecutionMode, options, SEQUENTIAL);
    /* XNNPACK has threads of its own; ONNX Runtime's beside them would only be in the way. */
    int threads = strcmp(settings->accelerator, "xnnpack") ? settings->threads : 1;
    TRY(SetIntraOpNumThreads, options, threads);
    TRY(SetInterOpNumThreads, options, 1);
    TRY(SetSessionLogSeverityLevel, options,
        strcmp(settings->accelerator, "cpu") ? VERBOSE : WARNING);
    if (threads == 1)
        TRY(AddSessionConfigEntry, options, "session.intra_op.allow_spinning", "0");
    if (optimized)
        TRY(SetOptimizedModelFilePath, options, optimized);
    if (prefix)
        TRY(EnableProfiling, options, prefix);
    const char *failed = append_accelerator(options);
    if (failed)
        return failed;
    TRY(CreateSession, environment, path, options, &made->session);
    TRY(CreateIoBinding, made->session, &made->binding);
    return NULL;
}

static enum type type_of(int type)
{
    static const enum type types[] = {
        [1] = FLOAT32, [2] = UINT8, [3] = INT8,     [4] = UINT16,   [5] = INT16,   [6] = INT32,
        [7] = INT64,   [9] = BOOL,  [10] = FLOAT16, [11] = FLOAT64, [12] = UINT32, [13] = UINT64,
    };
    return type >= 0 && (size_t)type < sizeof types / sizeof *types ? types[type] : UNKNOWN;
}

/* Type and shape, as ONNX Runtime describes them. */
static const char *describe(struct tensor *tensor, void *info, bool batch_may_be_open, int *type)
{
    int64_t shape[MOST_DIMENSIONS];
    size_t dimensions;
    TRY(GetTensorElementType, info, type);
    TRY(GetDimensionsCount, info, &dimensions);
    tensor->type = type_of(*type);
    if (tensor->type == UNKNOWN)
        return cause("%s is of type %d, which can't be used", tensor->name, *type);
    if (dimensions <= MOST_DIMENSIONS)
        TRY(GetDimensions, info, shape, dimensions);
    const char *failed = tensor_set_shape(tensor, shape, dimensions, batch_may_be_open);
    return failed ? cause("%s %s", tensor->name, failed) : NULL;
}

static const char *bind_input(struct session *made, size_t index, struct tensor *input)
{
    void *info, *tensor_info = NULL, *value;
    int type;
    TRY(SessionGetInputName, made->session, index, allocator, &input->name);
    TRY(SessionGetInputTypeInfo, made->session, index, &info);
    TRY(CastTypeInfoToTensorInfo, info, &tensor_info);
    if (!tensor_info)
        return cause("input %s is no tensor", input->name);
    const char *failed = describe(input, tensor_info, true, &type);
    ort.ReleaseTypeInfo(info);
    if (failed)
        return cause("input %s", failed);
    /* At the start of a cache line, as ONNX Runtime's own tensors are. */
    unsigned char *memory = allocate(input->bytes + 64);
    input->data = memory + (64 - (uintptr_t)memory % 64) % 64;
    tensor_fill(input, index);
    int64_t shape[MOST_DIMENSIONS];
    for (size_t axis = 0; axis < input->dimensions; axis++)
        shape[axis] = (int64_t)input->shape[axis];
    TRY(CreateTensorWithDataAsOrtValue, cpu_memory, input->data, input->bytes, shape,
        input->dimensions, type, &value);
    TRY(BindInput, made->binding, input->name, value);
    return NULL;
}

static const char *bind_all(struct model *model, struct session *made)
{
    TRY(SessionGetInputCount, made->session, &model->input_count);
    TRY(SessionGetOutputCount, made->session, &model->output_count);
    model->inputs = allocate(model->input_count * sizeof *model->inputs);
    model->outputs = allocate(model->output_count * sizeof *model->outputs);
    for (size_t index = 0; index < model->input_count; index++) {
        const char *failed = bind_input(made, index, &model->inputs[index]);
        if (failed)
            return failed;
    }
    for (size_t index = 0; index < model->output_count; index++) {
        struct tensor *output = &model->outputs[index];
        TRY(SessionGetOutputName, made->session, index, allocator, &output->name);
        TRY(BindOutputToDevice, made->binding, output->name, cpu_memory);
    }
    return NULL;
}

static void release(struct session *made)
{
    if (made->binding)
        ort.ReleaseIoBinding(made->binding);
    if (made->session)
        ort.ReleaseSession(made->session);
}

static const char *load_profiled(const char *path, const char *optimized, const char *prefix,
                                 struct model *model)
{
    struct session *made = model->state = allocate(sizeof *made);
    const char *failed = make_session(path, optimized, prefix, made);
    if (!failed)
        failed = bind_all(model, made);
    if (failed)
        release(made);
    return failed;
}

static const char *load(const char *path, struct model *model)
{
    return load_profiled(path, NULL, NULL, model);
}

static const char *end_profile(struct model *model, const char **file)
{
    struct session *made = model->state;
    const char *failed =
        check("SessionEndProfiling", ort.SessionEndProfiling(made->session, allocator, (char **)file));
    release(made);
    return failed;
}

static const char *run(struct model *model)
{
    const struct session *made = model->state;
    Status status = ort.RunWithBinding(made->session, run_options, made->binding);
    return status ? check("RunWithBinding", status) : NULL;
}

/* The first run allocated the outputs. Bind these very ones, so that no later run allocates. */
static const char *settle_outputs(struct model *model)
{
    const struct session *made = model->state;
    void **values;
    size_t count;
    TRY(GetBoundOutputValues, made->binding, allocator, &values, &count);
    if (count != model->output_count)
        return cause("%zu outputs came, not %zu", count, model->output_count);
    ort.ClearBoundOutputs(made->binding);
    for (size_t index = 0; index < count; index++) {
        struct tensor *output = &model->outputs[index];
        void *info;
        int is_tensor, type;
        TRY(IsTensor, values[index], &is_tensor);
        if (!is_tensor)
            return cause("output %s is no tensor", output->name);
        TRY(GetTensorTypeAndShape, values[index], &info);
        const char *failed = describe(output, info, false, &type);
        ort.ReleaseTensorTypeAndShapeInfo(info);
        if (failed)
            return cause("output %s", failed);
        TRY(GetTensorMutableData, values[index], (void **)&output->data);
        TRY(BindOutput, made->binding, output->name, values[index]);
    }
    return NULL;
}

static const char *version(void)
{
    return base->version();
}

static void providers(struct text *text)
{
    char **names;
    int count = 0;
    if (check("GetAvailableProviders", ort.GetAvailableProviders(&names, &count))) {
        text_add(text, "null");
        return;
    }
    text_add(text, "[");
    for (int index = 0; index < count; index++) {
        text_add(text, index ? "," : "");
        text_string(text, names[index]);
    }
    text_add(text, "]");
}

const struct runtime onnxruntime = {open_library, load,      run,           settle_outputs,
                                    version,      providers, load_profiled, end_profile};
