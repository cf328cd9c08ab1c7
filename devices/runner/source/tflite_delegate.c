/* The delegate that takes a TFLite model's nodes, where an accelerator is asked for. */
#include "tflite_delegate.h"

/* Options of a delegate come by value, and grow from version to version. All versions give a
 * struct of this kind through memory that the caller provides, so a roomy one takes any. */
struct roomy_options {
    int32_t threads;
    char rest[1020];
};

typedef void *PluginCreate(const char *const *keys, const char *const *values, size_t count,
                           void (*report)(const char *message));

static const struct settings *settings;
static void *accelerator_library;

static void report(const char *message)
{
    struct text line = {0};
    text_add(&line, message);
    text_add(&line, "\n");
    text_flush(&line, STANDARD_ERROR);
    free(line.data);
}

/* A function of the delegate's library, or NULL and a cause. */
static void *find(const char *name, const char **failed)
{
    void *found = dlsym(accelerator_library, name);
    const char *path = settings->accelerator_library;
    if (!found)
        *failed = cause("the accelerator %s is not there: %s has no %s", settings->accelerator,
                        path ? path : settings->library, name);
    return found;
}

/* The start of what a delegate is, and of what it is shown of a graph: public structs of the
 * C API, whose first fields have kept their places since there are delegates. */
struct context;

struct delegate {
    void *data;
    int (*prepare)(struct context *context, struct delegate *delegate);
};

struct numbers {
    int count, values[];
};

struct registration {
    void *functions[5];
    int32_t operation;
};

struct context {
    size_t tensors_size;
    int (*plan)(struct context *context, struct numbers **plan);
    void *between[5];
    int (*node)(struct context *context, int index, void **node, struct registration **what);
};

enum { DELEGATE_OPERATION = 51 };

static int (*real_prepare)(struct context *context, struct delegate *delegate);
static int nodes, nodes_left, partitions;

/* What a delegate took is counted here, between the graph and the delegate: few builds of the
 * library log it, and their partitions are all pieces, also those that the delegate left. Called
 * for each subgraph. */
static int counted_prepare(struct context *context, struct delegate *delegate)
{
    struct numbers *plan;
    if (context->plan(context, &plan) == 0)
        nodes += plan->count;
    int status = real_prepare(context, delegate);
    if (context->plan(context, &plan) != 0)
        return status;
    for (int index = 0; index < plan->count; index++) {
        void *node;
        struct registration *what;
        if (context->node(context, plan->values[index], &node, &what) == 0 &&
            what->operation == DELEGATE_OPERATION)
            partitions++;
        else
            nodes_left++;
    }
    return status;
}

/* A delegate whose options have defaults, and threads as their first field where it takes them. */
static const char *make_with_options(const char *defaults_name, const char *create_name,
                                     bool takes_threads, void **made)
{
    const char *failed = NULL;
    struct roomy_options (*defaults)(void) = find(defaults_name, &failed);
    void *(*create)(const struct roomy_options *) = find(create_name, &failed);
    if (failed)
        return failed;
    struct roomy_options options = defaults();
    if (takes_threads)
        options.threads = settings->threads;
    *made = create(&options);
    return NULL;
}

/* The delegate that was asked for, by the functions that its library has for that. */
static const char *make(void **made)
{
    const char *failed = NULL;
    if (!strcmp(settings->accelerator, "xnnpack")) {
        failed = make_with_options("TfLiteXNNPackDelegateOptionsDefault",
                                   "TfLiteXNNPackDelegateCreate", true, made);
    } else if (!strcmp(settings->accelerator, "nnapi")) {
        failed = make_with_options("TfLiteNnapiDelegateOptionsDefault",
                                   "TfLiteNnapiDelegateCreate", false, made);
    } else if (!strcmp(settings->accelerator, "gpu")) {
        void *(*create)(const void *) = find("TfLiteGpuDelegateV2Create", &failed);
        if (create)
            *made = create(NULL); /* its own defaults */
    } else {
        PluginCreate *create = (PluginCreate *)find("tflite_plugin_create_delegate", &failed);
        if (create)
            *made = create(NULL, NULL, 0, report);
    }
    if (failed)
        return failed;
    return *made ? NULL : cause("the accelerator %s gave no delegate", settings->accelerator);
}

const char *delegate_open(const struct settings *given, void *library)
{
    settings = given;
    accelerator_library = library;
    if (!settings->accelerator_library)
        return NULL;
    accelerator_library = dlopen(settings->accelerator_library, RTLD_NOW);
    return accelerator_library
               ? NULL
               : cause("can't load %s: %s", settings->accelerator_library, dlerror());
}

const char *delegate_make(void **made)
{
    real_prepare = NULL;
    nodes = nodes_left = partitions = 0;
    /* "cpu" leaves what the library does by itself. */
    if (!strcmp(settings->accelerator, "cpu"))
        return NULL;
    const char *failed = make(made);
    if (failed)
        return failed;
    struct delegate *delegate = *made;
    if (delegate->prepare) { /* some newer kinds have none */
        real_prepare = delegate->prepare;
        delegate->prepare = counted_prepare;
    }
    return NULL;
}

void delegate_report(void)
{
    char line[160];
    if (!real_prepare)
        return;
    snprintf(line, sizeof line,
             "latkit-runner: Replacing %d out of %d node(s) with delegate (%s) node, "
             "yielding %d partitions.",
             nodes - nodes_left, nodes, settings->accelerator, partitions);
    report(line);
}
