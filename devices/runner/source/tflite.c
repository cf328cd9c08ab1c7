/* TensorFlow Lite (LiteRT) through its C API, with a delegate where one is asked for. */
#include "tflite_delegate.h"

/* Functions that the library must have: result, name, arguments. What it hands out is opaque. */
#define NEEDED(CALL)                                                                               \
    CALL(void *, ModelCreateFromFile, (const char *path))                                          \
    CALL(void, ModelDelete, (void *model))                                                         \
    CALL(void *, InterpreterOptionsCreate, (void))                                                 \
    CALL(void, InterpreterOptionsDelete, (void *options))                                          \
    CALL(void, InterpreterOptionsSetNumThreads, (void *options, int32_t threads))                  \
    CALL(void, InterpreterOptionsAddDelegate, (void *options, void *delegate))                     \
    CALL(void *, InterpreterCreate, (void *model, void *options))                                  \
    CALL(void, InterpreterDelete, (void *interpreter))                                             \
    CALL(int, InterpreterAllocateTensors, (void *interpreter))                                     \
    CALL(int, InterpreterInvoke, (void *interpreter))                                              \
    CALL(int32_t, InterpreterGetInputTensorCount, (void *interpreter))                             \
    CALL(int32_t, InterpreterGetOutputTensorCount, (void *interpreter))                            \
    CALL(void *, InterpreterGetInputTensor, (void *interpreter, int32_t index))                    \
    CALL(void *, InterpreterGetOutputTensor, (void *interpreter, int32_t index))                   \
    CALL(int, TensorType, (void *tensor))                                                          \
    CALL(int32_t, TensorNumDims, (void *tensor))                                                   \
    CALL(int32_t, TensorDim, (void *tensor, int32_t index))                                        \
    CALL(size_t, TensorByteSize, (void *tensor))                                                   \
    CALL(void *, TensorData, (void *tensor))                                                       \
    CALL(const char *, TensorName, (void *tensor))

#define DECLARE(result, name, arguments) result(*name) arguments;
static struct { NEEDED(DECLARE) } lite;

static const struct settings *settings;
static void *library;

static const char *open_library(const struct settings *given)
{
    settings = given;
    library = dlopen(settings->library, RTLD_NOW);
    if (!library)
        return cause("can't load %s: %s", settings->library, dlerror());
#define TAKE(result, name, arguments)                                                              \
    lite.name = (result(*) arguments)dlsym(library, "TfLite" #name);                               \
    if (!lite.name)                                                                                \
        return cause("%s has no TfLite C API: there is no TfLite" #name, settings->library);
    NEEDED(TAKE)
    return delegate_open(given, library);
}

static enum type type_of(int type)
{
    static const enum type types[] = {
        [1] = FLOAT32,  [2] = INT32,    [3] = UINT8,   [4] = INT64,   [6] = BOOL,    [7] = INT16,
        [9] = INT8,     [10] = FLOAT16, [11] = FLOAT64, [13] = UINT64, [16] = UINT32, [17] = UINT16,
    };
    return type >= 0 && (size_t)type < sizeof types / sizeof *types ? types[type] : UNKNOWN;
}

static const char *describe(struct tensor *tensor, void *given, bool batch_may_be_open)
{
    int64_t shape[MOST_DIMENSIONS];
    int32_t dimensions = lite.TensorNumDims(given);
    tensor->name = (char *)lite.TensorName(given);
    tensor->type = type_of(lite.TensorType(given));
    if (tensor->type == UNKNOWN)
        return cause("%s is of type %d, which can't be used", tensor->name, lite.TensorType(given));
    for (int32_t axis = 0; axis < dimensions && axis < MOST_DIMENSIONS; axis++)
        shape[axis] = lite.TensorDim(given, axis);
    const char *failed = tensor_set_shape(tensor, shape, (size_t)(dimensions > 0 ? dimensions : 0),
                                          batch_may_be_open);
    if (failed)
        return cause("%s %s", tensor->name, failed);
    tensor->data = lite.TensorData(given);
    if (!tensor->data || lite.TensorByteSize(given) != tensor->bytes)
        return cause("%s has no memory of its %zu bytes", tensor->name, tensor->bytes);
    return NULL;
}

static const char *prepare(const char *path, struct model *model, void **file)
{
    *file = lite.ModelCreateFromFile(path);
    if (!*file)
        return cause("this is no TFLite model that can be read");
    void *options = lite.InterpreterOptionsCreate();
    lite.InterpreterOptionsSetNumThreads(options, settings->threads);
    void *delegate = NULL;
    const char *failed = delegate_make(&delegate);
    if (delegate)
        lite.InterpreterOptionsAddDelegate(options, delegate);
    if (!failed) {
        model->state = lite.InterpreterCreate(*file, options);
        if (!model->state)
            failed = cause("TfLiteInterpreterCreate failed");
        else
            delegate_report();
    }
    lite.InterpreterOptionsDelete(options);
    if (failed)
        return failed;
    if (lite.InterpreterAllocateTensors(model->state) != 0)
        return cause("TfLiteInterpreterAllocateTensors failed");
    model->input_count = (size_t)lite.InterpreterGetInputTensorCount(model->state);
    model->output_count = (size_t)lite.InterpreterGetOutputTensorCount(model->state);
    model->inputs = allocate(model->input_count * sizeof *model->inputs);
    model->outputs = allocate(model->output_count * sizeof *model->outputs);
    for (size_t index = 0; index < model->input_count; index++) {
        struct tensor *input = &model->inputs[index];
        void *given = lite.InterpreterGetInputTensor(model->state, (int32_t)index);
        failed = describe(input, given, true);
        if (failed)
            return cause("input %s", failed);
        tensor_fill(input, index);
    }
    return NULL;
}

static const char *load(const char *path, struct model *model)
{
    void *file = NULL;
    const char *failed = prepare(path, model, &file);
    if (!failed)
        return NULL;
    if (model->state)
        lite.InterpreterDelete(model->state);
    if (file)
        lite.ModelDelete(file);
    return failed;
}

static const char *run(struct model *model)
{
    return lite.InterpreterInvoke(model->state) ? cause("TfLiteInterpreterInvoke failed") : NULL;
}

static const char *settle_outputs(struct model *model)
{
    for (size_t index = 0; index < model->output_count; index++) {
        void *output = lite.InterpreterGetOutputTensor(model->state, (int32_t)index);
        const char *failed = describe(&model->outputs[index], output, false);
        if (failed)
            return cause("output %s", failed);
    }
    return NULL;
}

static const char *version(void)
{
    const char *(*get)(void) = dlsym(library, "TfLiteVersion");
    return get ? get() : NULL;
}

static void providers(struct text *text)
{
    text_add(text, "null"); /* delegates are libraries of their own: there is no list */
}

/* The C API has no profiler. */
const struct runtime tflite = {open_library, load,      run,  settle_outputs,
                               version,      providers, NULL, NULL};
