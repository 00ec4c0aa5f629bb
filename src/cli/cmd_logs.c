/*
 * `doppel logs`: what doppel has to say of a machine.
 */
#include "cli/arguments.h"
#include "cli/cli.h"

#include "base/log.h"
#include "base/write_all.h"
#include "ctl/doppel.h"
#include "ctl/registry.h"
#include "ctl/run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASK_MS    1000
#define FOLLOW_MS 200

enum { OPT_FOLLOW, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_FOLLOW] = {"follow", NULL, "(-f) go on until the machine ends"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static const struct arguments arguments = {
    .name = "logs",
    .usage =
        "Usage: doppel logs [--follow] NAME\n"
        "Shows the log of a machine, of this run and earlier ones: what doppel did, and how it "
        "ended.\n"
        "(doppel console shows what the guest prints.)\n",
    .specs = specs,
    .letters = "f "};

/* Asks the machine where its log is. */
static bool ask_path(const char *name, char path[PATH_MAX])
{
    struct doppel_control *control = doppel_control_open(name, NULL);
    char *answer = NULL;
    const char *log = NULL;
    json_t *state = NULL;

    if (control && doppel_control_call(control, "state", NULL, ASK_MS, &answer, NULL) == 0)
        state = json_loads(answer, 0, NULL);
    log = json_string_value(json_object_get(state, "log"));
    if (log)
        snprintf(path, PATH_MAX, "%s", log);
    json_decref(state);
    free(answer);
    doppel_control_close(control);
    return log != NULL;
}

static int find_path(const char *name, char path[PATH_MAX], struct error *err)
{
    char folder[PATH_MAX];
    struct lock_holder holder;
    int ret = run_folder_find(name, RUN_LOG, path, &holder, err);

    if (ret || (holder.held && ask_path(name, path)) || access(path, F_OK) == 0)
        return ret;
    ret = registry_folder(name, folder, err);
    return ret ? ret : registry_file(folder, RUN_LOG, path, err);
}

/* Opens FILE, or FILE.1 if OLDER. Returns its descriptor, or -1: it is not there. */
static int open_log(const char *path, bool older)
{
    char name[PATH_MAX + 2];

    snprintf(name, sizeof(name), "%s%s", path, older ? ".1" : "");
    return open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

/* Shows what FD has from *AT on, without what could control a terminal. */
static bool show(int fd, off_t *at)
{
    char bytes[8192];
    ssize_t n;

    while ((n = pread(fd, bytes, sizeof(bytes), *at)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            if (bytes[i] != '\n' && ((unsigned char)bytes[i] < ' ' || bytes[i] == 0x7f))
                bytes[i] = '?';
        if (write_all(STDOUT_FILENO, bytes, (size_t)n) < 0) {
            complain("cannot write standard output: %s", strerror(errno));
            return false;
        }
        *at += n;
    }
    return true;
}

/* Shows what has been added to the log FD. One that is shorter than what was shown has been
 * emptied, and what was added before that is in the older file. */
static bool show_more(const char *path, int fd, off_t *at)
{
    struct stat st;
    bool good = true;

    if (fstat(fd, &st) == 0 && st.st_size < *at) {
        int older = open_log(path, true);

        if (older >= 0) {
            good = show(older, at);
            close(older);
        }
        *at = 0;
    }
    return good && show(fd, at);
}

/* Shows what is added until the machine ends. */
static bool follow(const char *name, const char *path, int fd, off_t *at)
{
    struct pollfd pfd = {run_folder_pidfd(name, NULL), POLLIN, 0};
    bool good = true, ended = pfd.fd < 0;

    while (good && !ended) {
        ended = poll(&pfd, 1, FOLLOW_MS) > 0;
        good = show_more(path, fd, at);
    }
    if (pfd.fd >= 0)
        close(pfd.fd);
    return good;
}

static bool show_all(const char *name, const char *path, bool following)
{
    int older = open_log(path, true), fd = open_log(path, false);
    off_t at = 0;
    bool good = true;

    if (fd < 0)
        complain("cannot open the log %s: %s", path, strerror(errno));
    if (older >= 0 && fd >= 0)
        good = show(older, &at);
    at = 0;
    good = good && fd >= 0 && show(fd, &at);
    if (good && following)
        good = follow(name, path, fd, &at);
    if (older >= 0)
        close(older);
    if (fd >= 0)
        close(fd);
    return good;
}

int cmd_logs(char **argv)
{
    struct argument_words words = {.names = "NAME", .least = 1, .most = 1};
    bool following = false;
    const struct argument_setting settings[] = {
        [OPT_FOLLOW] = {.flag = &following}, [OPT_HELP] = {0}};
    int status = arguments_read(&arguments, settings, argv, &words);
    char path[PATH_MAX];
    struct error err = {0};

    if (status != ARGUMENTS_GO_ON)
        return status;
    if (find_path(words.word[0], path, &err) < 0) {
        complain("%s", err.text);
        return STATUS_ERROR;
    }
    return show_all(words.word[0], path, following) ? 0 : STATUS_ERROR;
}
