/*
 * Finds the kernel and its initramfs on a disk.
 */
#include "image/kernel.h"

#include "base/util.h"
#include "image/ext4_edit.h"
#include "image/partitions.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FILE_MOST (1 * GiB)
#define NAME_MOST 255

/* ---- Names ---- */

struct search {
    char name[NAME_MOST + 1]; /* the newest one so far */
};

static void look_at(void *opaque, const char *name)
{
    struct search *search = opaque;

    if (strncmp(name, "vmlinuz", 7) != 0 || strstr(name, "rescue") || strstr(name, ".old"))
        return;
    if (!search->name[0] || strverscmp(name, search->name) > 0)
        snprintf(search->name, sizeof(search->name), "%s", name);
}

/* The initramfs of the kernel vmlinuzVERSION in FOLDER. */
static void find_initrd(struct ext4_edit *edit, const char *folder, const char *version,
                        struct kernel_found *found)
{
    static const char *const forms[] = {"initrd.img%s", "initramfs%s.img", "initramfs%s",
                                        "initrd%s", "initrd%s.img"};

    for (unsigned i = 0; i < ARRAY_SIZE(forms); i++) {
        const char *rest = strchr(forms[i], '%') + 2;
        int before = (int)(rest - 2 - forms[i]);

        snprintf(found->initrd, sizeof(found->initrd), "%s/%.*s%s%s", folder, before, forms[i],
                 version, rest);
        if (ext4_edit_exists(edit, found->initrd))
            return;
    }
    found->initrd[0] = '\0';
}

/* Whether FOLDER has a kernel. */
static bool find_in(struct ext4_edit *edit, const char *folder, struct kernel_found *found)
{
    struct search search = {0};

    if (ext4_edit_list(edit, *folder ? folder : "/", look_at, &search, NULL) || !search.name[0])
        return false;
    snprintf(found->kernel, sizeof(found->kernel), "%s/%s", folder, search.name);
    find_initrd(edit, folder, search.name + strlen("vmlinuz"), found);
    return ext4_edit_exists(edit, found->kernel);
}

/* ---- Disks ---- */

/* Looks at one file system. *ROOT: whether it is what a system starts from. */
static void look_into(struct blk *blk, const char *name, const struct partition *partition,
                      bool *root, struct kernel_found *found)
{
    struct ext4_edit *edit =
        ext4_edit_open(blk, partition->offset, partition->size, name, EXT4_LOOK, NULL);
    struct kernel_found here = {.offset = partition->offset, .size = partition->size};

    if (!edit)
        return;
    *root = ext4_edit_exists(edit, "/etc/fstab") || ext4_edit_exists(edit, "/etc/os-release") ||
            ext4_edit_exists(edit, "/sbin/init");
    here.root = found->root;
    if (!found->size && (find_in(edit, "/boot", &here) || find_in(edit, "", &here)))
        *found = here;
    ext4_edit_free(edit);
}

int kernel_find(struct blk *blk, const char *name, struct kernel_found *found, struct error *err)
{
    struct partitions partitions;
    bool any = false, known = false;
    int result = partitions_read(blk, name, &partitions, err);

    *found = (struct kernel_found){0};
    if (result)
        return result;
    for (unsigned i = 0; i < partitions.count; i++) {
        const struct partition *partition = &partitions.partition[i];
        bool root = false;

        if (!partition->ext4)
            continue;
        any = true;
        look_into(blk, name, partition, &root, found);
        if (root && !known)
            found->root = partition->number;
        known |= root;
    }
    if (found->size && known)
        return 0;
    return error_set(err, ENOENT,
                     any ? "%s: no kernel is in it that could be started (give --kernel and "
                           "--initrd, and --append root=...)"
                         : "%s: it has no file system of which the kernel could be read, only ext2 "
                           "to ext4 can be (give --kernel and --initrd, and --append root=...)",
                     name);
}

int kernel_copy(struct blk *blk, const char *name, const struct kernel_found *found, int kernel,
                int initrd, struct error *err)
{
    struct ext4_edit *edit = ext4_edit_open(blk, found->offset, found->size, name, EXT4_COPY, err);
    int result = edit ? ext4_edit_copy(edit, found->kernel, kernel, FILE_MOST, err) : -EIO;

    if (!result && found->initrd[0])
        result = ext4_edit_copy(edit, found->initrd, initrd, FILE_MOST, err);
    ext4_edit_free(edit);
    return result;
}
