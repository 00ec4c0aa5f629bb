/*
 * The machine that stands on a base image: its own disk, what cloud-init reads, its definition.
 */
#include "cli/create.h"

#include "cli/image.h"
#include "cli/ssh_setup.h"
#include "ctl/definition.h"
#include "ctl/registry.h"
#include "ctl/replace.h"

#include "base/field.h"
#include "base/util.h"
#include "blk/qcow2/qcow2.h"
#include "image/kernel.h"
#include "image/seed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DISK              "disk.qcow2"
#define SEED              "seed.iso"
#define KEYS_MOST         (64 * 1024)
#define USER_DATA_MOST    (1 << 20)
#define BASE_FROM_MACHINE "../../" BASE_FOLDER "/" /* machines and images are neighbours */

struct machine {
    const struct create_options *options;
    const struct base_image *base;
    struct registry_use use;
    struct definition definition;
    char base_disk[PATH_MAX];
};

/* ---- The disk ---- */

/* How large the machine's disk is. */
static int disk_size(const struct machine *machine, uint64_t *size, struct error *err)
{
    struct blk_options options = {.file = (char *)(uintptr_t)machine->base_disk};
    struct blk *blk = image_open_bytes(&options, true, err);

    if (!blk)
        return -EIO;
    *size = blk_info(blk).size;
    blk_close(blk);
    if (machine->options->size && machine->options->size < *size)
        return error_set(err, EINVAL,
                         "--size: the image has %llu bytes already, and is not cut off",
                         (unsigned long long)*size);
    *size = ALIGN_UP(MAX(*size, machine->options->size), 512);
    return 0;
}

/* Makes the image, which holds what differs from the base image. */
static int make_disk(const struct machine *machine, const char *path, struct error *err)
{
    struct blk_options options = {.file = (char *)(uintptr_t)path};
    char backing[PATH_MAX];
    struct qcow2_create what = {.backing = backing, .backing_format = "raw", .name = path};
    struct blk *file;
    int fd, result = disk_size(machine, &what.size, err);

    if (result)
        return result;
    snprintf(backing, sizeof(backing), BASE_FROM_MACHINE "%s/" BASE_DISK, machine->base->name);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(err, errno, "cannot create %s: %s", path, strerror(errno));
    close(fd);
    file = image_open_bytes(&options, false, err);
    if (!file)
        return -EIO;
    result = qcow2_create(file, &what, err);
    blk_close(file);
    return result;
}

static struct blk *open_disk(const struct machine *machine, const char *path, struct error *err)
{
    struct blk_options options = {.file = (char *)(uintptr_t)path,
                                  .format = BLK_QCOW2,
                                  .backing = field_make(machine->base_disk)};
    struct blk *blk = options.backing ? blk_open(&options, &image_host, err) : NULL;

    if (!options.backing)
        error_set(err, ENOMEM, "out of memory");
    free(options.backing);
    return blk;
}

/* ---- Who is let in ---- */

/* The keys: doppel's own, and those that are given. *KEYS is the caller's. */
static int read_keys(const struct machine *machine, char **keys, struct error *err)
{
    char path[PATH_MAX], file[PATH_MAX + 8], *own, *given = NULL;
    int result = ssh_setup_key(path, err);

    if (result)
        return result;
    snprintf(file, sizeof(file), "%s.pub", path);
    own = read_small_file(file, KEYS_MOST, &(size_t){0}, err);
    if (!own)
        return -err->code;
    if (machine->options->ssh_key)
        given = read_small_file(machine->options->ssh_key, KEYS_MOST, &(size_t){0}, err);
    if (machine->options->ssh_key && !given)
        result = -err->code;
    else if (given && strstr(given, "PRIVATE KEY"))
        result = error_set(err, EINVAL, "--ssh-key: %s is a private key (there is to be: its .pub)",
                           machine->options->ssh_key);
    else if (asprintf(keys, "%s%s", own, given ? given : "") < 0)
        result = error_set(err, ENOMEM, "out of memory");
    free(own);
    free(given);
    return result;
}

/* Changes what is each machine's own on the disk of a Debian of ours. */
static int personalize(const struct machine *machine, struct blk *blk, struct error *err)
{
    const struct create_options *options = machine->options;
    char *keys = NULL;
    int result = read_keys(machine, &keys, err);

    if (!result)
        result = create_guest(blk, options->hostname ? options->hostname : options->name,
                              options->user, keys, err);
    free(keys);
    return result;
}

/* Makes the disk, and says where its root directory is. */
static int fill_disk(struct machine *machine, struct kernel_found *found, struct error *err)
{
    const char *what = machine->options->from ? machine->options->from : machine->options->name;
    char path[PATH_MAX];
    struct error none = {0};
    struct blk *blk;
    int result = registry_file(machine->use.folder, DISK, path, err);

    if (!result)
        result = make_disk(machine, path, err);
    if (result)
        return result;
    blk = open_disk(machine, path, err);
    if (!blk)
        return -EIO;
    if (machine->options->source == CREATE_DEBIAN)
        result = personalize(machine, blk, err);
    if (!result && kernel_find(blk, what, found, &none) && !machine->options->kernel) {
        *err = none;
        result = -ENOENT;
    }
    if (!result && (result = blk_flush(blk)))
        error_set(err, -result, "cannot write %s: %s", path, strerror(-result));
    blk_close(blk);
    return result;
}

/* ---- cloud-init ---- */

static int write_seed(const struct machine *machine, struct error *err)
{
    const struct create_options *options = machine->options;
    struct seed seed = {.hostname = options->hostname ? options->hostname : options->name,
                        .instance = options->name};
    char path[PATH_MAX], *data, *keys = NULL;
    int fd, result = registry_file(machine->use.folder, SEED, path, err);

    if (!result)
        result = read_keys(machine, &keys, err);
    if (result)
        return result;
    data = read_small_file(options->cloud_init, USER_DATA_MOST, &seed.user_data_size, err);
    if (!data) {
        free(keys);
        return -err->code;
    }
    seed.user_data = data;
    seed.keys = keys;
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        result = error_set(err, errno, "cannot create %s: %s", path, strerror(errno));
    } else {
        result = seed_write(fd, path, &seed, err);
        close(fd);
    }
    free(data);
    free(keys);
    return result;
}

/* ---- The definition ---- */

/* A file of the user's, by its full path. */
static int set_file(char **member, const char *path, struct error *err)
{
    char *real = *path ? realpath(path, NULL) : strdup("");
    int result = real ? definition_set(member, real, err)
                      : error_set(err, errno, "cannot open %s: %s", path, strerror(errno));

    free(real);
    return result;
}

/* One that lies beside the base image's disk, if it is there. */
static int set_base_file(const struct machine *machine, char **member, const char *file,
                         struct error *err)
{
    char path[PATH_MAX], text[PATH_MAX];
    int result = base_image_file(machine->base, file, path, err);

    if (result || access(path, F_OK) < 0)
        return result;
    snprintf(text, sizeof(text), BASE_FROM_MACHINE "%s/%s", machine->base->name, file);
    return definition_set(member, text, err);
}

static int set_kernel(struct machine *machine, const struct kernel_found *found, struct error *err)
{
    const struct create_options *options = machine->options;
    struct definition *definition = &machine->definition;
    char root[32] = "", *append;
    int result;

    result = options->kernel ? set_file(&definition->kernel, options->kernel, err)
                             : set_base_file(machine, &definition->kernel, BASE_KERNEL, err);
    if (!result && options->initrd)
        result = set_file(&definition->initrd, options->initrd, err);
    else if (!result && !options->kernel)
        result = set_base_file(machine, &definition->initrd, BASE_INITRD, err);
    if (!result && !definition->initrd)
        result = definition_set(&definition->initrd, "", err);
    if (result)
        return result;
    if (found->root)
        snprintf(root, sizeof(root), "%u", found->root);
    if (asprintf(&append, "root=/dev/vda%s rw quiet%s%s", root, options->append ? " " : "",
                 options->append ? options->append : "") < 0)
        return error_set(err, ENOMEM, "out of memory");
    result = definition_set(&definition->append, append, err);
    free(append);
    return result;
}

static int set_devices(struct machine *machine, struct error *err)
{
    struct definition *definition = &machine->definition;
    char disk[PATH_MAX];
    int result;

    snprintf(disk, sizeof(disk), DISK ",backing=" BASE_FROM_MACHINE "%s/" BASE_DISK,
             machine->base->name);
    result = definition_add(&definition->disks, disk, err);
    if (!result && machine->options->cloud_init)
        result = definition_add(&definition->disks, SEED ",readonly", err);
    if (!result)
        result = definition_add(&definition->nets, "user", err);
    if (!result)
        result = definition_set(&definition->vsock, "cid=3", err);
    return result;
}

static int define(struct machine *machine, const struct kernel_found *found, struct error *err)
{
    struct definition *definition = &machine->definition;
    char path[PATH_MAX];
    int result = set_kernel(machine, found, err);

    definition->memory = machine->options->memory;
    definition->cpus = machine->options->cpus;
    if (!result)
        result = set_devices(machine, err);
    if (!result)
        result = definition_set(&definition->base, machine->base->name, err);
    if (!result && machine->options->user)
        result = definition_set(&definition->ssh_user, machine->options->user, err);
    if (!result)
        result = registry_file(machine->use.folder, DEFINITION_FILE, path, err);
    return result ? result : definition_save(definition, path, err);
}

int create_machine(const struct create_options *options, const struct base_image *base,
                   struct error *err)
{
    struct machine machine = {.options = options, .base = base};
    struct kernel_found found;
    int result = base_image_file(base, BASE_DISK, machine.base_disk, err);

    if (!result)
        result = registry_begin(options->name, &machine.use, err);
    if (result)
        return result;
    result = fill_disk(&machine, &found, err);
    if (!result && options->cloud_init)
        result = write_seed(&machine, err);
    if (!result)
        result = define(&machine, &found, err);
    if (!result)
        result = registry_commit(&machine.use, err);
    definition_free(&machine.definition);
    registry_give_back(&machine.use);
    return result;
}
