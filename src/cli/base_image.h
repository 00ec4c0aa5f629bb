/*
 * Base images: what several machines' disks stand on, made once for all of them.
 *
 *      DATA/images/            (ctl/home.h)
 *          NAME/               read-only from the time it is there
 *              disk.img        the disk, raw and sparse
 *              vmlinuz, initrd.img     the kernel in it, if one was found
 *          NAME.lock           held by whoever makes, uses or removes it; gone with it
 *          .new-NAME/          one that is being made
 *
 * NAME says of what it was made: a word and a digest of all that went into it, so one that is there
 * is never made again, and no other contents have its name. The definitions of machines name the
 * one that they need (`base:`), and it is removed only when none does.
 */
#ifndef DOPPEL_CLI_BASE_IMAGE_H
#define DOPPEL_CLI_BASE_IMAGE_H

#include "base/error.h"
#include "ctl/home.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#define BASE_FOLDER "images"
#define BASE_DISK   "disk.img"
#define BASE_KERNEL "vmlinuz"
#define BASE_INITRD "initrd.img"
#define BASE_LOCK   ".lock"

/* One that this process has for itself. All zero: none. */
struct base_image {
    bool held, there; /* there: it is complete */
    int lock;
    char name[HOME_NAME_MOST + 1];
    char folder[PATH_MAX];         /* where it is; or where it is made */
    char lock_path[PATH_MAX + 64]; /* what is locked */
};

/* Sets NAME to WORD, of up to 15 bytes, and the beginning of the digest of TEXT, SIZE bytes. */
void base_image_name(char name[HOME_NAME_MOST + 1], const char *word, const void *text,
                     size_t size);

/* Takes the base image NAME, and waits for another process that has it. If it is not there, FOLDER
 * is a new one to make it in, and base_image_commit makes it what others see. */
int base_image_take(const char *name, struct base_image *base, struct error *err);
int base_image_commit(struct base_image *base, struct error *err);
/* Gives it back. One that was not committed is removed. */
void base_image_give_back(struct base_image *base);

/* Sets PATH to FILE in its folder. */
int base_image_file(const struct base_image *base, const char *file, char path[PATH_MAX],
                    struct error *err);

#endif
