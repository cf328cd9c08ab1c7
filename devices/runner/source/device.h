/* The phone's cores: which the program runs on, how fast they are clocked, how busy they are. */
#pragma once

#include "json.h"

enum { MOST_CORES = 1024 };

/* A set of cores, as Linux keeps it: bit N of the whole stands for core N. */
struct cores {
    unsigned long words[MOST_CORES / 64];
};

/* Read a hexadecimal mask. False if it is none, or empty. */
bool cores_read(struct cores *cores, const char *mask);

bool cores_pin(const struct cores *cores);

/* The cores this thread may run on now, as a JSON list; null where that can't be read. */
void cores_add_pinned(struct text *text);

/* {"frequency_khz":..,"load_average":..} of these cores, or of all where NULL. */
void device_add_state(struct text *text, const struct cores *cores);
