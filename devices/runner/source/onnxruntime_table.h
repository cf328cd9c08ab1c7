/* ONNX Runtime's C API: one table of functions that only ever grows, so a place in it is for good.
 *
 * Each line: place, result, name, arguments. Places are those of version 1.12's header and later
 * (its own source asserts them: ReleaseSessionOptions 100, AddSessionConfigEntry 130,
 * SessionOptionsAppendExecutionProvider 216). What ONNX Runtime hands out is opaque, hence void. */
#pragma once

#include "android.h"

enum { TABLE_VERSION = 12 };

/* A status is NULL where all is well. */
typedef void *Status;
typedef void Logger(void *parameter, int severity, const char *category, const char *identity,
                    const char *place, const char *message);

#define TABLE(CALL)                                                                                \
    CALL(2, const char *, GetErrorMessage, (Status status))                                        \
    CALL(4, Status, CreateEnvWithCustomLogger,                                                     \
         (Logger *logger, void *parameter, int severity, const char *identity, void **made))       \
    CALL(6, Status, DisableTelemetryEvents, (void *environment))                                   \
    CALL(7, Status, CreateSession,                                                                 \
         (void *environment, const char *path, void *options, void **made))                        \
    CALL(10, Status, CreateSessionOptions, (void **made))                                          \
    CALL(11, Status, SetOptimizedModelFilePath, (void *options, const char *path))                 \
    CALL(13, Status, SetSessionExecutionMode, (void *options, int mode))                           \
    CALL(14, Status, EnableProfiling, (void *options, const char *prefix))                         \
    CALL(22, Status, SetSessionLogSeverityLevel, (void *options, int severity))                    \
    CALL(23, Status, SetSessionGraphOptimizationLevel, (void *options, int level))                 \
    CALL(24, Status, SetIntraOpNumThreads, (void *options, int threads))                           \
    CALL(25, Status, SetInterOpNumThreads, (void *options, int threads))                           \
    CALL(30, Status, SessionGetInputCount, (void *session, size_t *count))                         \
    CALL(31, Status, SessionGetOutputCount, (void *session, size_t *count))                        \
    CALL(33, Status, SessionGetInputTypeInfo, (void *session, size_t index, void **made))          \
    CALL(36, Status, SessionGetInputName,                                                          \
         (void *session, size_t index, void *allocator, char **name))                              \
    CALL(37, Status, SessionGetOutputName,                                                         \
         (void *session, size_t index, void *allocator, char **name))                              \
    CALL(39, Status, CreateRunOptions, (void **made))                                              \
    CALL(41, Status, RunOptionsSetRunLogSeverityLevel, (void *options, int severity))              \
    CALL(49, Status, CreateTensorWithDataAsOrtValue,                                               \
         (void *memory, void *data, size_t bytes, const int64_t *shape, size_t dimensions,         \
          int type, void **made))                                                                  \
    CALL(50, Status, IsTensor, (void *value, int *answer))                                         \
    CALL(51, Status, GetTensorMutableData, (void *value, void **data))                             \
    CALL(55, Status, CastTypeInfoToTensorInfo, (void *info, void **tensor_info))                   \
    CALL(60, Status, GetTensorElementType, (void *tensor_info, int *type))                         \
    CALL(61, Status, GetDimensionsCount, (void *tensor_info, size_t *count))                       \
    CALL(62, Status, GetDimensions, (void *tensor_info, int64_t *shape, size_t count))             \
    CALL(65, Status, GetTensorTypeAndShape, (void *value, void **made))                            \
    CALL(69, Status, CreateCpuMemoryInfo, (int allocator, int memory, void **made))                \
    CALL(78, Status, GetAllocatorWithDefaultOptions, (void **allocator))                           \
    CALL(93, void, ReleaseStatus, (Status status))                                                 \
    CALL(95, void, ReleaseSession, (void *session))                                                \
    CALL(98, void, ReleaseTypeInfo, (void *info))                                                  \
    CALL(99, void, ReleaseTensorTypeAndShapeInfo, (void *tensor_info))                             \
    CALL(110, Status, SessionEndProfiling, (void *session, void *allocator, char **path))          \
    CALL(125, Status, GetAvailableProviders, (char ***names, int *count))                          \
    CALL(130, Status, AddSessionConfigEntry, (void *options, const char *key, const char *value))  \
    CALL(133, Status, RunWithBinding, (void *session, void *options, void *binding))               \
    CALL(134, Status, CreateIoBinding, (void *session, void **made))                               \
    CALL(135, void, ReleaseIoBinding, (void *binding))                                             \
    CALL(136, Status, BindInput, (void *binding, const char *name, void *value))                   \
    CALL(137, Status, BindOutput, (void *binding, const char *name, void *value))                  \
    CALL(138, Status, BindOutputToDevice, (void *binding, const char *name, void *memory))         \
    CALL(140, Status, GetBoundOutputValues,                                                        \
         (void *binding, void *allocator, void ***values, size_t *count))                          \
    CALL(142, void, ClearBoundOutputs, (void *binding))                                            \
    CALL(216, Status, SessionOptionsAppendExecutionProvider,                                       \
         (void *options, const char *name, const char *const *keys, const char *const *values,     \
          size_t count))
