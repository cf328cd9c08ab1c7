/* The phone's cores: which the program runs on, how fast they are clocked, how busy they are. */
#include "device.h"

static bool has(const struct cores *cores, int core)
{
    return cores->words[core / 64] >> (core % 64) & 1;
}

bool cores_read(struct cores *cores, const char *mask)
{
    memset(cores, 0, sizeof *cores);
    if (!strncmp(mask, "0x", 2) || !strncmp(mask, "0X", 2))
        mask += 2;
    size_t length = strlen(mask);
    bool any = false;
    if (!length || length > MOST_CORES / 4)
        return false;
    for (size_t place = 0; place < length; place++) {
        char digit = mask[length - 1 - place];
        unsigned long value;
        if (digit >= '0' && digit <= '9')
            value = (unsigned long)(digit - '0');
        else if ((digit | 32) >= 'a' && (digit | 32) <= 'f')
            value = (unsigned long)((digit | 32) - 'a' + 10);
        else
            return false;
        cores->words[place / 16] |= value << (place % 16 * 4);
        any |= value != 0;
    }
    return any;
}

bool cores_pin(const struct cores *cores)
{
    return sched_setaffinity(0, sizeof *cores, cores) == 0;
}

void cores_add_pinned(struct text *text)
{
    struct cores now;
    bool any = false;
    memset(&now, 0, sizeof now); /* the kernel writes only as many bytes as it has cores */
    if (sched_getaffinity(0, sizeof now, &now) < 0) {
        text_add(text, "null");
        return;
    }
    text_add(text, "[");
    for (int core = 0; core < MOST_CORES; core++) {
        if (!has(&now, core))
            continue;
        text_add(text, any ? "," : "");
        text_integer(text, core);
        any = true;
    }
    text_add(text, "]");
}

/* The start of a small file, as text; false where it can't be read. */
static bool read_file(const char *path, char *text, size_t size)
{
    int file = open(path, READ_ONLY | CLOSE_ON_EXEC);
    if (file < 0)
        return false;
    long length = read(file, text, size - 1);
    close(file);
    text[length > 0 ? length : 0] = 0;
    return length > 0;
}

/* The highest number in a list such as 0-3,5-7. */
static int last_core(void)
{
    char list[256];
    if (!read_file("/sys/devices/system/cpu/possible", list, sizeof list))
        return MOST_CORES - 1;
    long last = 0;
    for (char *rest = list; *rest >= '0' && *rest <= '9';) {
        last = strtol(rest, &rest, 10);
        rest += *rest == '-' || *rest == ',';
    }
    return last < MOST_CORES ? (int)last : MOST_CORES - 1;
}

static void add_frequencies(struct text *text, const struct cores *cores)
{
    bool any = false;
    int last = last_core();
    for (int core = 0; core <= last; core++) {
        char path[96], value[32];
        if (cores && !has(cores, core))
            continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq", core);
        if (!read_file(path, value, sizeof value) || *value < '0' || *value > '9')
            continue;
        text_add(text, any ? "," : "[");
        text_integer(text, strtol(value, NULL, 10));
        any = true;
    }
    text_add(text, any ? "]" : "null");
}

void device_add_state(struct text *text, const struct cores *cores)
{
    char averages[128];
    text_add(text, "{\"frequency_khz\":");
    add_frequencies(text, cores);
    text_add(text, ",\"load_average\":");
    if (read_file("/proc/loadavg", averages, sizeof averages)) {
        char *rest = averages;
        for (int index = 0; index < 3; index++) {
            text_add(text, index ? "," : "[");
            text_number(text, strtod(rest, &rest));
        }
        text_add(text, "]");
    } else {
        text_add(text, "null");
    }
    text_add(text, "}");
}
