/* The delegate that takes a TFLite model's nodes, where an accelerator is asked for. */
#pragma once

#include "runtime.h"

/* Find the delegate's library: one of its own, or the runtime's. */
const char *delegate_open(const struct settings *settings, void *library);

/* Make a delegate for one model, as it has memory and state; none (NULL) for the plain CPU. */
const char *delegate_make(void **made);

/* Log what the delegate made last took, in words like those of TFLite's own log. Its partitions
 * are pieces that the delegate runs. */
void delegate_report(void);
