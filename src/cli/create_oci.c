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
    struct {
        uint64_t size;
        struct oci layers;
    } *key = calloc(1, sizeof(*key));
    char name[HOME_NAME_MOST + 1];

    if (!key)
        return error_set(err, ENOMEM, "out of memory");
    key->size = size;
    key->layers = *oci;
    base_image_name(name, "oci", key, sizeof(*key));
    free(key);
    return base_image_take(name, base, err);
}

static int unpack_layers(struct create_disk *disk, int folder, const char *from,
                         const struct oci *oci, struct error *err)
{
    char path[OCI_NAME_MOST + 8], name[OCI_NAME_MOST + 300];
    int result = 0;

    for (unsigned i = 0; i < oci->count && !result; i++) {
        int fd;

        snprintf(path, sizeof(path), "blobs/%s", oci->layer[i]);
        snprintf(name, sizeof(name), "%.280s/%s", from, path);
        fd = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0)
            return error_set(err, errno, "cannot open %s: %s", name, strerror(errno));
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
        create_disk_begin(&disk, base, size, true, options->from, "reading the layers", err);

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
