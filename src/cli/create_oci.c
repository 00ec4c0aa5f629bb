/*
 * Base images of OCI images: their layers, one on the other.
 */
#include "cli/create.h"

#include "base/util.h"
#include "image/oci.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The digests of the layers say what is in them. */
static int take(const struct oci *oci, uint64_t size, struct base_image *base, struct error *err)
{
    char name[HOME_NAME_MOST + 1], *text = NULL;
    size_t length;
    FILE *key = open_memstream(&text, &length);
    int result = 0;

    if (!key)
        return error_set(err, ENOMEM, "out of memory");
    fprintf(key, "%llu\n", (unsigned long long)size);
    for (unsigned i = 0; i < oci->count; i++)
        fprintf(key, "%s\n", oci->layer[i].digest);
    if (fclose(key) != 0)
        result = error_set(err, ENOMEM, "out of memory");
    else
        base_image_name(name, "oci", text, length);
    free(text);
    return result ? result : base_image_take(name, base, err);
}

static bool tick(void *opaque)
{
    return create_disk_tick(opaque);
}

static int unpack_layers(struct create_disk *disk, int folder, const char *from,
                         const struct oci *oci, struct error *err)
{
    char name[DIGEST_TEXT + 300];
    int result = 0;

    for (unsigned i = 0; i < oci->count && !result; i++) {
        int fd = oci_open(folder, from, &oci->layer[i], tick, disk, err);

        if (fd < 0)
            return fd;
        snprintf(name, sizeof(name), "%.280s: %s", from, oci->layer[i].digest);
        result = create_disk_unpack(disk, fd, name, true, err);
        close(fd);
    }
    return result;
}

static int make(int folder, const struct create_options *options, const struct oci *oci,
                uint64_t size, struct base_image *base, struct error *err)
{
    struct create_disk disk;
    int result =
        create_disk_begin(&disk, base, size, true, options->from, "unpacking the layers", err);

    disk.kernel_given = options->kernel;
    if (!result)
        result = unpack_layers(&disk, folder, options->from, oci, err);
    if (!result)
        result = create_disk_commit(&disk, err);
    create_disk_end(&disk);
    return result;
}

int create_from_oci(const struct create_options *options, struct base_image *base,
                    struct error *err)
{
    uint64_t size = options->size ? options->size : CREATE_SIZE;
    int folder = open(options->from, O_RDONLY | O_DIRECTORY | O_CLOEXEC), result;
    struct oci *oci = calloc(1, sizeof(*oci));

    if (folder < 0 || !oci)
        result = error_set(err, folder < 0 ? errno : ENOMEM, "cannot open %s: %s", options->from,
                           strerror(errno));
    else
        result = oci_read(folder, options->from, oci, err);
    if (!result)
        result = take(oci, size, base, err);
    if (!result && !base->there) {
        result = make(folder, options, oci, size, base, err);
        if (result)
            base_image_give_back(base);
    }
    if (folder >= 0)
        close(folder);
    free(oci);
    return result;
}
