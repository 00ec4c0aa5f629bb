/*
 * Base images.
 */
#include "cli/base_image.h"

#include "cli/progress.h"
#include "ctl/lock_file.h"
#include "ctl/registry.h"
#include "ctl/replace.h"
#include "ctl/tree.h"
#include "image/digest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_US 100000

void base_image_name(char name[HOME_NAME_MOST + 1], const char *word, const void *text, size_t size)
{
    char digest[DIGEST_TEXT];

    digest_of(text, size, digest);
    snprintf(name, HOME_NAME_MOST + 1, "%.15s-%.24s", word, digest);
}

/* Waits until nobody else has it. A signal ends the wait as it ends the process. */
static int take_lock(const char *path, const char *name, struct error *err)
{
    struct progress progress;
    char what[128];
    int lock = lock_file_take(path, "uses a base image");

    if (lock == -EBUSY) {
        snprintf(what, sizeof(what), "waiting for another process that has the base image %s",
                 name);
        progress_begin_lines(&progress, what);
        while ((lock = lock_file_take(path, "uses a base image")) == -EBUSY) {
            progress_tick(&progress, NULL, -1);
            usleep(WAIT_US);
        }
        progress_end(&progress);
    }
    return lock < 0 ? error_set(err, -lock, "cannot lock %s: %s", path, strerror(-lock)) : lock;
}

/* Begins a new one. What a killed process has left of one goes. */
static int begin(struct base_image *base, const char *images, struct error *err)
{
    int result = snprintf(base->folder, PATH_MAX, "%s/.new-%s", images, base->name) < PATH_MAX
                     ? tree_remove(base->folder, err)
                     : error_set(err, ENAMETOOLONG, "%s: the path is too long", images);

    if (!result && mkdir(base->folder, 0700) < 0)
        result = error_set(err, errno, "cannot create %s: %s", base->folder, strerror(errno));
    return result;
}

int base_image_take(const char *name, struct base_image *base, struct error *err)
{
    char images[PATH_MAX];
    struct stat st;
    int result = home_folder(HOME_DATA, BASE_FOLDER, images, sizeof(images), err);

    *base = (struct base_image){0};
    if (result)
        return result;
    snprintf(base->name, sizeof(base->name), "%s", name);
    snprintf(base->lock_path, sizeof(base->lock_path), "%s/%s" BASE_LOCK, images, name);
    base->lock = take_lock(base->lock_path, name, err);
    if (base->lock < 0)
        return base->lock;
    base->held = true;
    if (snprintf(base->folder, PATH_MAX, "%s/%s", images, name) >= PATH_MAX)
        result = error_set(err, ENAMETOOLONG, "%s: the path is too long", images);
    else if (stat(base->folder, &st) == 0)
        base->there = true;
    else
        result = begin(base, images, err);
    if (result)
        base_image_give_back(base);
    return result;
}

int base_image_commit(struct base_image *base, struct error *err)
{
    char images[PATH_MAX], path[PATH_MAX + HOME_NAME_MOST + 2];
    int result = home_folder(HOME_DATA, BASE_FOLDER, images, sizeof(images), err);

    if (result)
        return result;
    snprintf(path, sizeof(path), "%s/%s", images, base->name);
    sync_folder(base->folder);
    if (rename(base->folder, path) < 0)
        return error_set(err, errno, "cannot create %s: %s", path, strerror(errno));
    sync_folder(images);
    snprintf(base->folder, sizeof(base->folder), "%.*s", PATH_MAX - 1, path);
    base->there = true;
    return 0;
}

void base_image_give_back(struct base_image *base)
{
    if (!base->held)
        return;
    if (!base->there && base->folder[0])
        tree_remove(base->folder, NULL);
    if (!base->there)
        unlink(base->lock_path); /* who waits for it takes note of that (ctl/lock_file.h) */
    close(base->lock);
    base->held = false;
}

int base_image_file(const struct base_image *base, const char *file, char path[PATH_MAX],
                    struct error *err)
{
    return registry_file(base->folder, file, path, err);
}
