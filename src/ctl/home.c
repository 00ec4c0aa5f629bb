/*
 * The user's folders, and names.
 */
#include "ctl/home.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_BYTES "abcdefghijklmnopqrstuvwxyz0123456789"

static const struct {
    const char *variable;
    const char *below_home; /* NULL: the folder for temporary files instead */
    bool private;           /* nobody else may even read it, and it is no link */
} places[] = {
    [HOME_DATA] = {"XDG_DATA_HOME", ".local/share", false},
    [HOME_CONFIG] = {"XDG_CONFIG_HOME", ".config", false},
    [HOME_CACHE] = {"XDG_CACHE_HOME", ".cache", false},
    [HOME_RUNTIME] = {"XDG_RUNTIME_DIR", NULL, true},
};

static int too_long(const char *path, struct error *err)
{
    return error_set(err, ENAMETOOLONG, "the path %s is too long", path);
}

/* Sets PATH to where FOLDER is. */
static int locate(enum home folder, char *path, size_t size, struct error *err)
{
    const char *variable = places[folder].variable, *below = places[folder].below_home;
    const char *value = getenv(variable), *home = getenv("HOME");
    int length;

    if (value && *value == '/')
        length = snprintf(path, size, "%s/doppel", value);
    else if (!below)
        length = snprintf(path, size, "%s/doppel-%u", P_tmpdir, (unsigned)geteuid());
    else if (home && *home == '/')
        length = snprintf(path, size, "%s/%s/doppel", home, below);
    else
        return error_set(err, ENOENT, "HOME is not set to an absolute path (nor is %s)", variable);
    return length < 0 || (size_t)length >= size ? too_long(path, err) : 0;
}

/* Makes the folder PATH, and before it those that lead to it, from its byte FROM on. */
static int make(char *path, size_t from, struct error *err)
{
    for (char *at = path + from;; at++) {
        char saved = *at;

        if (saved && (saved != '/' || at == path))
            continue;
        *at = '\0';
        if (mkdir(path, 0700) < 0 && errno != EEXIST) {
            int code = errno;
            struct stat st;

            /* A folder that is there may be one that this user, or nobody, can write to. */
            if (stat(path, &st) < 0)
                return error_set(err, code, "cannot make the folder %s: %s", path, strerror(code));
        }
        *at = saved;
        if (!saved)
            return 0;
    }
}

/* Whether PATH is a folder that only the user can have changed. */
static int check_folder(const char *path, bool private, struct error *err)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC | (private ? O_NOFOLLOW : 0));
    struct stat st;
    int code = errno;
    mode_t forbidden = private ? 077 : 022;

    if (fd >= 0) {
        code = fstat(fd, &st) < 0 ? errno : 0;
        close(fd);
    }
    if (code == ENOTDIR || code == ELOOP)
        return error_set(err, ENOTDIR, "%s is not a folder (remove it)", path);
    if (code)
        return error_set(err, code, "cannot open the folder %s: %s", path, strerror(code));
    if (st.st_uid != geteuid())
        return error_set(err, EPERM, "%s belongs to user %u, and this is user %u", path,
                         (unsigned)st.st_uid, (unsigned)geteuid());
    if (st.st_mode & forbidden)
        return error_set(err, EPERM, "%s is open to other users (chmod %s it)", path,
                         private ? "700" : "go-w");
    return 0;
}

int home_path(enum home folder, const char *rest, char *path, size_t size, struct error *err)
{
    char base[PATH_MAX];
    int ret = locate(folder, base, sizeof(base), err);

    if (!ret)
        ret = make(base, 0, err);
    if (!ret)
        ret = check_folder(base, places[folder].private, err);
    if (ret)
        return ret;
    ret = snprintf(path, size, "%s%s%s", base, rest && *rest ? "/" : "", rest ? rest : "");
    return ret < 0 || (size_t)ret >= size ? too_long(path, err) : 0;
}

int home_folder(enum home folder, const char *rest, char *path, size_t size, struct error *err)
{
    char base[PATH_MAX];
    int ret = home_path(folder, NULL, base, sizeof(base), err);

    if (!ret)
        ret = home_path(folder, rest, path, size, err);
    if (!ret)
        ret = make(path, strlen(base) + 1, err);
    return ret ? ret : check_folder(path, places[folder].private, err);
}

bool home_valid_name(const char *name)
{
    size_t length = strspn(name, NAME_BYTES "-");

    return length > 0 && length <= HOME_NAME_MOST && !name[length] && name[0] != '-';
}

int home_check_name(const char *name, struct error *err)
{
    if (home_valid_name(name))
        return 0;
    return error_set(err, EINVAL,
                     "'%.100s' is not a name (lower-case letters, digits and '-', at most %d)",
                     name, HOME_NAME_MOST);
}
