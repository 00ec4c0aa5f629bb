/*
 * A program's configuration: its defaults, and what is refused.
 */
#include "ctl/config.h"

#include "ctl/sized.h"
#include "mem/mem.h"

#include <errno.h>
#include <sys/sysinfo.h>

void doppel_config_init_sized(struct doppel_config *config, size_t size)
{
    const struct doppel_config defaults = {
        .engine = DOPPEL_ENGINE_AUTO, .cpus = 1, .memory = 512 * MiB, .log_level = DOPPEL_LOG_INFO};

    sized_copy_out(config, size, &defaults, sizeof(defaults));
}

static int check_memory(uint64_t bytes, struct error *err)
{
    unsigned long long memory = bytes, host;
    struct sysinfo info;

    if (memory < MiB)
        return error_set(err, EINVAL, "%llu bytes of memory are too few: at least 1 MiB", memory);
    if (memory > DOPPEL_MAX_MEMORY)
        return error_set(err, EINVAL, "%llu MiB of memory are too many: at most %llu MiB",
                         memory / MiB, DOPPEL_MAX_MEMORY / MiB);
    if (memory % MEM_PAGE_SIZE)
        return error_set(err, EINVAL, "%llu bytes of memory: must be a multiple of 4096", memory);
    if (sysinfo(&info) < 0)
        return 0;
    host = ((unsigned long long)info.totalram + info.totalswap) * info.mem_unit;
    if (memory > host)
        return error_set(err, ENOMEM,
                         "%llu MiB of memory are more than this host's %llu MiB, swap included",
                         memory / MiB, host / MiB);
    return 0;
}

static int check(const struct doppel_config *config, struct error *err)
{
    if (config->engine < DOPPEL_ENGINE_AUTO || config->engine > DOPPEL_ENGINE_KVM)
        return error_set(err, EINVAL, "there is no engine number %d", (int)config->engine);
    if (config->cpus < 1 || config->cpus > DOPPEL_MAX_CPUS)
        return error_set(err, EINVAL, "%u vCPUs: must be 1 to %d", config->cpus, DOPPEL_MAX_CPUS);
    if (!config->kernel || !*config->kernel)
        return error_set(err, EINVAL, "no kernel given");
    if (config->initrd_extra_size && !config->initrd_extra)
        return error_set(err, EINVAL, "initrd_extra_size without initrd_extra");
    if (config->log_level < DOPPEL_LOG_ERROR || config->log_level > DOPPEL_LOG_DEBUG)
        return error_set(err, EINVAL, "there is no log level %d", (int)config->log_level);
    return check_memory(config->memory, err);
}

int config_take(struct doppel_config *config, const struct doppel_config *from, size_t size,
                struct error *err)
{
    if (!sized_copy_in(config, sizeof(*config), from, size))
        return error_set(err, E2BIG,
                         "the configuration has something that version " DOPPEL_VERSION
                         " of the library does not know: the program needs a newer one");
    return check(config, err);
}
