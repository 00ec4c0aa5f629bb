/*
 * A base image of Debian: guests/debian-image installs the packages, and its archive goes into the
 * image.
 */
#include "cli/create.h"

#include "cli/guest.h"
#include "cli/producer.h"
#include "ctl/replace.h"

#include "base/util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCRIPT_MOST (1 << 20)
#define WAIT_MS     200

struct making {
    struct producer producer;
    struct create_disk disk;
};

/* The arguments of the script. */
static void arguments(const struct create_options *options, const char *script,
                      const char *argv[10])
{
    unsigned n = 0;

    argv[n++] = script;
    argv[n++] = "--suite";
    argv[n++] = options->suite;
    if (options->mirror) {
        argv[n++] = "--mirror";
        argv[n++] = options->mirror;
    }
    if (options->packages) {
        argv[n++] = "--packages";
        argv[n++] = options->packages;
    }
    argv[n] = NULL;
}

/* Names the base image by all that it is made of: what is asked for, and how the script and the
 * file system make it. */
static int name_it(const struct create_options *options, const char *script, uint64_t size,
                   char name[HOME_NAME_MOST + 1], struct error *err)
{
    char word[24], *text, *how;
    size_t how_size;
    int length;

    how = read_small_file(script, SCRIPT_MOST, &how_size, err);
    if (!how)
        return -err->code;
    length = asprintf(&text, "%s\n%s\n%s\n%llu\n%s", options->suite,
                      options->mirror ? options->mirror : "",
                      options->packages ? options->packages : "", (unsigned long long)size, how);
    free(how);
    if (length < 0)
        return error_set(err, ENOMEM, "out of memory");
    snprintf(word, sizeof(word), "debian-%s", options->suite);
    base_image_name(name, word, text, (size_t)length);
    free(text);
    return 0;
}

static bool tick(void *opaque)
{
    struct making *making = opaque;

    producer_show(&making->producer, &making->disk.progress);
    return target_interrupted(&making->disk.target);
}

/* Waits for the archive to begin, which may take minutes. */
static int await_archive(struct making *making, struct error *err)
{
    while (!producer_wait(&making->producer, WAIT_MS)) {
        if (tick(making))
            return error_set(err, EINTR, "interrupted");
    }
    tick(making);
    return 0;
}

/* What the script says of a failure counts more than that its archive is incomplete. */
static int fill(struct making *making, const char *const *argv, struct error *err)
{
    struct error why = {0};
    int ended, result = producer_start(&making->producer, argv, "doppel",
                                       &making->disk.target.signals, err);

    if (result)
        return result;
    making->disk.tick = tick;
    making->disk.opaque = making;
    result = await_archive(making, err);
    if (!result)
        result = create_disk_unpack(&making->disk, making->producer.out, "Debian", false, err);
    /* The archive has a little more than its end. */
    if (!result && !producer_drain(&making->producer, tick, making))
        result = error_set(err, EINTR, "interrupted");
    making->disk.tick = NULL;
    ended = producer_end(&making->producer, result && result != -EINVAL, &why);
    if (!ended)
        return result;
    *err = why;
    return ended;
}

/* What the script is told beside its arguments. */
static int tell(struct error *err)
{
    char cache[PATH_MAX], self[PATH_MAX] = "";
    int result = home_folder(HOME_CACHE, "debian", cache, sizeof(cache), err);

    if (result)
        return result;
    if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
        return error_set(err, errno, "cannot tell where this program is: %s", strerror(errno));
    /* A cache that is set belongs to whoever runs many of these: tests. */
    if (setenv("DEBIAN_CACHE", cache, 0) < 0 || setenv("DOPPEL", self, 1) < 0)
        return error_set(err, errno, "cannot change the environment: %s", strerror(errno));
    return 0;
}

static int make(const struct create_options *options, struct base_image *base, const char *script,
                uint64_t size, struct error *err)
{
    struct making *making = calloc(1, sizeof(*making));
    const char *argv[10];
    int result;

    if (!making)
        return error_set(err, ENOMEM, "out of memory");
    arguments(options, script, argv);
    result = tell(err);
    if (!result)
        result = create_disk_begin(&making->disk, base, size, true, "Debian", "making Debian", err);
    making->disk.initrd_needed = true;
    if (!result)
        result = fill(making, argv, err);
    if (!result)
        result = create_disk_commit(&making->disk, err);
    create_disk_end(&making->disk);
    free(making);
    return result;
}

int create_debian(const struct create_options *options, struct base_image *base, struct error *err)
{
    uint64_t size = options->size ? MIN(options->size, CREATE_SIZE) : CREATE_SIZE;
    char name[HOME_NAME_MOST + 1], script[PATH_MAX + 32];
    int result;

    guest_script("debian-image", script);
    result = name_it(options, script, size, name, err);
    if (!result)
        result = base_image_take(name, base, err);
    if (result || base->there)
        return result;
    result = make(options, base, script, size, err);
    if (result)
        base_image_give_back(base);
    return result;
}
