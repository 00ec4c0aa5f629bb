/*
 * Base images that no machine needs.
 */
#include "cli/base_image_sweep.h"

#include "cli/base_image.h"
#include "ctl/definition.h"
#include "ctl/lock_file.h"
#include "ctl/registry.h"
#include "ctl/tree.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEW_PREFIX ".new-"
#define OLD_PREFIX ".old-"

struct sweep {
    bool dry;
    void (*swept)(void *opaque, const char *path);
    void *opaque;
    struct error *err;
    char images[PATH_MAX];
};

/* Whether the definition of the machine NAME names the base image BASE: 1 or 0. */
static int needs(const char *name, const char *base, struct error *err)
{
    struct definition definition;
    char folder[PATH_MAX], file[PATH_MAX];
    struct error why = {0};
    int ret = registry_definition(name, folder, file, err);

    if (ret)
        return ret;
    if (definition_load(file, &definition, &why) < 0)
        return error_set(err, why.code, "base images stay, since any may be needed: %s", why.text);
    ret = definition.base && !strcmp(definition.base, base);
    definition_free(&definition);
    return ret;
}

/* Whether any machine needs the base image BASE: 1 or 0. */
static int is_needed(const char *base, struct error *err)
{
    struct registry_names names;
    int lock = registry_lock_names(err), ret;

    if (lock < 0)
        return lock;
    ret = registry_names(&names, err);
    for (unsigned i = 0; !ret && i < names.count; i++)
        ret = needs(names.name[i], base, err);
    registry_names_free(&names);
    close(lock);
    return ret;
}

/* Removes the base image at PATH, called NAME, by a rename first: so no half of it is ever there.
 */
static int remove_image(const struct sweep *s, const char *path, const char *name)
{
    char old[PATH_MAX];
    int ret;

    if (snprintf(old, sizeof(old), "%s/" OLD_PREFIX "%s", s->images, name) >= PATH_MAX)
        return error_set(s->err, ENAMETOOLONG, "the path %s is too long", s->images);
    ret = tree_remove(old, s->err);
    if (!ret && rename(path, old) < 0)
        ret = error_set(s->err, errno, "cannot remove %s: %s", path, strerror(errno));
    return ret ? ret : tree_remove(old, s->err);
}

static bool is_folder(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Removes the folder ENTRY if it is a base image that nobody has and needs, or what is left of one.
 */
static int sweep_entry(const struct sweep *s, const char *entry)
{
    bool left = !strncmp(entry, NEW_PREFIX, strlen(NEW_PREFIX)) ||
                !strncmp(entry, OLD_PREFIX, strlen(OLD_PREFIX));
    const char *name = left ? entry + strlen(NEW_PREFIX) : entry;
    char path[PATH_MAX], lock_path[PATH_MAX];
    int lock, ret;

    if (snprintf(path, sizeof(path), "%s/%s", s->images, entry) >= PATH_MAX ||
        snprintf(lock_path, sizeof(lock_path), "%s/%s" BASE_LOCK, s->images, name) >= PATH_MAX)
        return error_set(s->err, ENAMETOOLONG, "the path %s is too long", s->images);
    if (!home_valid_name(name) || !is_folder(path))
        return 0;
    lock = lock_file_take(lock_path, "removes a base image");
    if (lock == -EBUSY)
        return 0;
    if (lock < 0)
        return error_set(s->err, -lock, "cannot lock %s: %s", lock_path, strerror(-lock));
    ret = left ? 0 : is_needed(name, s->err);
    if (!ret) {
        if (!s->dry)
            ret = left ? tree_remove(path, s->err) : remove_image(s, path, name);
        if (!ret)
            s->swept(s->opaque, path);
    }
    if (!ret && !s->dry)
        unlink(lock_path);
    close(lock);
    return ret < 0 ? ret : 0;
}

/* Removes the lock ENTRY, in silence, if its base image is not there: the making of that failed. */
static int sweep_lock(const struct sweep *s, const char *entry)
{
    size_t length = strlen(entry), tail = strlen(BASE_LOCK);
    char name[HOME_NAME_MOST + 1], path[PATH_MAX], image[PATH_MAX];
    int lock;

    if (length <= tail || length - tail > HOME_NAME_MOST ||
        strcmp(entry + length - tail, BASE_LOCK) != 0)
        return 0;
    snprintf(name, sizeof(name), "%.*s", (int)(length - tail), entry);
    if (!home_valid_name(name) ||
        snprintf(path, sizeof(path), "%s/%s", s->images, entry) >= PATH_MAX ||
        snprintf(image, sizeof(image), "%s/%s", s->images, name) >= PATH_MAX)
        return 0;
    lock = lock_file_take(path, "removes a base image");
    if (lock < 0)
        return lock == -EBUSY
                   ? 0
                   : error_set(s->err, -lock, "cannot lock %s: %s", path, strerror(-lock));
    if (!is_folder(image))
        unlink(path);
    close(lock);
    return 0;
}

/* Calls SWEEP for each entry of the folder. */
static int for_each(const struct sweep *s, int (*sweep)(const struct sweep *s, const char *entry))
{
    DIR *dir = opendir(s->images);
    struct dirent *entry;
    int ret = 0;

    if (!dir)
        return errno == ENOENT
                   ? 0
                   : error_set(s->err, errno, "cannot read %s: %s", s->images, strerror(errno));
    while (!ret && (entry = readdir(dir)))
        ret = sweep(s, entry->d_name);
    closedir(dir);
    return ret;
}

int base_image_sweep(bool dry, void (*swept)(void *opaque, const char *path), void *opaque,
                     struct error *err)
{
    struct sweep s = {.dry = dry, .swept = swept, .opaque = opaque, .err = err};
    int ret = home_path(HOME_DATA, BASE_FOLDER, s.images, sizeof(s.images), err);

    if (!ret)
        ret = for_each(&s, sweep_entry);
    return ret || dry ? ret : for_each(&s, sweep_lock);
}
