/*
 * `doppel create`: a new machine with a disk that holds a system.
 *
 *      tar archive  --ext4-->  base image  <--backing--  the machine's disk.qcow2
 *      disk image   --copy-->     |                          |
 *                             kernel, initrd             host name, user, keys
 *
 * The base image is made once (base_image.h); the rest takes a moment.
 */
#ifndef DOPPEL_CLI_CREATE_H
#define DOPPEL_CLI_CREATE_H

#include "base/error.h"
#include "cli/base_image.h"
#include "cli/image_target.h"
#include "cli/progress.h"

#include <stdbool.h>
#include <stdint.h>

#define CREATE_SIZE   (8ULL << 30) /* bytes of a disk for which no size is given */
#define CREATE_MEMORY (1ULL << 30)

enum create_source { CREATE_DEBIAN, CREATE_IMAGE, CREATE_TAR, CREATE_OCI };

struct create_options {
    const char *name;
    enum create_source source;
    const char *from, *format;             /* a foreign one, and what it is said to be */
    const char *suite, *mirror, *packages; /* Debian's */
    const char *kernel, *initrd, *append;
    const char *hostname, *user, *ssh_key; /* a file with public keys */
    const char *cloud_init;                /* a file with user-data */
    uint64_t size, memory;                 /* bytes; SIZE 0: not given */
    unsigned cpus;                         /* 0: not given */
};

/* ---- What a base image is made of: each returns with it taken ---- */

/* Debian's, of the packages that are asked for (create_debian.c). */
int create_debian(const struct create_options *options, struct base_image *base, struct error *err);
/* That of another disk image or archive (create_from.c, create_oci.c). */
int create_from_image(const struct create_options *options, struct base_image *base,
                      struct error *err);
int create_from_tar(const struct create_options *options, struct base_image *base,
                    struct error *err);
int create_from_oci(const struct create_options *options, struct base_image *base,
                    struct error *err);

/* ---- The disk of a base image while it is made (create_disk.c) ---- */

struct ext4;

struct create_disk {
    struct base_image *base;
    struct target target; /* signals wait from create_disk_begin to create_disk_end */
    struct blk *blk;
    struct ext4 *ext4; /* NULL: it holds the copy of another disk */
    struct progress progress;
    char name[300]; /* what messages call the disk */
    /* Set after create_disk_begin: */
    bool kernel_given;          /* it need not have a kernel itself */
    bool initrd_needed;         /* its kernel is of no use without an initramfs */
    bool (*tick)(void *opaque); /* called now and then, too, if it is set; true: stop */
    void *opaque;
};

/* Begins the disk, SIZE bytes. FILES: with a file system on it, to be filled. NAME is for messages,
 * WHAT for the line of progress. */
int create_disk_begin(struct create_disk *disk, struct base_image *base, uint64_t size, bool files,
                      const char *name, const char *what, struct error *err);
/* Fills it from the tar archive FD; LAYER: of an OCI image. */
int create_disk_unpack(struct create_disk *disk, int fd, const char *name, bool layer,
                       struct error *err);
/* Shows that the work goes on; true: it is to stop. */
bool create_disk_tick(struct create_disk *disk);
/* Completes it, and the base image with the kernel that is found on it. */
int create_disk_commit(struct create_disk *disk, struct error *err);
/* After a failure the base image is gone. */
void create_disk_end(struct create_disk *disk);

/* ---- The machine (create_machine.c) ---- */

/* Makes the machine that stands on BASE. */
int create_machine(const struct create_options *options, const struct base_image *base,
                   struct error *err);

/* ---- What is changed on the machine's own disk (create_guest.c) ---- */

struct blk;

/* Sets the host name, makes the user, lets in KEYS, lines of public keys, as that user or root, and
 * installs doppel's agent.
 * HOSTNAME NULL: it stays. */
int create_guest(struct blk *blk, const char *hostname, const char *user, const char *keys,
                 struct error *err);

#endif
