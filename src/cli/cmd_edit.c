/*
 * `doppel edit`: changes the definition of a machine, in the user's editor.
 */
#include "base/write_all.h"
#include "cli/arguments.h"
#include "cli/cli.h"
#include "cli/program.h"

#include "ctl/definition.h"
#include "ctl/registry.h"
#include "ctl/replace.h"
#include "ctl/run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static const struct arguments arguments = {
    .name = "edit",
    .usage =
        "Usage: doppel edit NAME\n"
        "Opens the definition of a machine in $VISUAL, $EDITOR or nano, and takes what is saved "
        "there if it\n"
        "is a definition. It counts from the next start on.\n",
    .specs = specs};

/* A definition that is being edited. */
struct edit {
    const char *name;
    char file[PATH_MAX], draft[PATH_MAX];
    char *before; /* what FILE held */
    size_t before_size;
};

static int begin(struct edit *e, struct error *err)
{
    char folder[PATH_MAX];
    int ret = registry_definition(e->name, folder, e->file, err), fd;

    if (!ret)
        ret = registry_file(folder, REPLACE_PREFIX "edit-XXXXXX.yaml", e->draft, err);
    if (ret)
        return ret;
    e->before = read_small_file(e->file, DEFINITION_MOST, &e->before_size, err);
    if (!e->before)
        return -err->code;
    fd = mkostemps(e->draft, strlen(".yaml"), O_CLOEXEC);
    if (fd < 0) {
        *e->draft = '\0';
        return error_set(err, errno, "cannot make a file in %s: %s", folder, strerror(errno));
    }
    ret = write_all(fd, e->before, e->before_size);
    close(fd);
    return ret < 0 ? error_set(err, -ret, "cannot write %s: %s", e->draft, strerror(-ret)) : 0;
}

static int run_editor(const struct edit *e, struct error *err)
{
    const char *visual = getenv("VISUAL"), *editor = getenv("EDITOR");
    const char *chosen = visual && *visual ? visual : editor && *editor ? editor : "nano";
    char command[PATH_MAX];
    const char *argv[] = {"sh", "-c", command, "sh", e->draft, NULL};

    if (snprintf(command, sizeof(command), "exec %s \"$1\"", chosen) >= PATH_MAX)
        return error_set(err, ENAMETOOLONG, "$VISUAL or $EDITOR is too long");
    if (program_run_here(argv, "dash", err) < 0)
        return error_set(err, EIO, "the editor (%s) failed: nothing is changed", chosen);
    return 0;
}

/* Takes what was saved. -EINVAL: it is no definition. *CHANGED: it is another one. */
static int take(const struct edit *e, bool *changed, struct error *err)
{
    struct definition definition;
    size_t size, now_size;
    char *text = read_small_file(e->draft, DEFINITION_MOST, &size, err), *now;
    int ret = text ? definition_parse(text, size, e->file, &definition, err) : -err->code;

    *changed = false;
    if (!ret) {
        definition_free(&definition);
        *changed = size != e->before_size || memcmp(text, e->before, size) != 0;
    }
    if (!ret && *changed) {
        now = read_small_file(e->file, DEFINITION_MOST, &now_size, err);
        if (!now)
            ret = -err->code;
        else if (now_size != e->before_size || memcmp(now, e->before, now_size) != 0)
            ret = error_set(err, EBUSY, "%s was changed by somebody else meanwhile", e->file);
        else
            ret = replace_file(e->file, text, size, 0600, err);
        free(now);
    }
    free(text);
    return ret;
}

static bool again(const struct error *err)
{
    char answer[16];

    if (!isatty(STDIN_FILENO))
        return false;
    complain("%s", err->text);
    fprintf(stderr, "Edit it again? [Y/n] ");
    fflush(stderr);
    return fgets(answer, sizeof(answer), stdin) && answer[0] != 'n' && answer[0] != 'N';
}

static int edit(struct edit *e, struct error *err)
{
    struct lock_holder holder = {0};
    char path[PATH_MAX];
    bool changed = false;
    int ret = begin(e, err);

    while (!ret) {
        ret = run_editor(e, err);
        if (!ret)
            ret = take(e, &changed, err);
        if (ret != -EINVAL || !again(err))
            break;
        ret = 0;
    }
    if (!ret && changed && run_folder_find(e->name, "", path, &holder, NULL) == 0 && holder.held)
        printf("'%s' runs: this counts from its next start on (doppel restart %s)\n", e->name,
               e->name);
    return ret;
}

int cmd_edit(char **argv)
{
    struct argument_words words = {.names = "NAME", .least = 1, .most = 1};
    const struct argument_setting settings[] = {[OPT_HELP] = {0}};
    int status = arguments_read(&arguments, settings, argv, &words), ret;
    struct edit e = {.name = words.word[0]};
    struct error err = {0};

    if (status != ARGUMENTS_GO_ON)
        return status;
    e.name = words.word[0];
    ret = edit(&e, &err);
    if (ret)
        complain("%s", err.text);
    if (*e.draft)
        unlink(e.draft);
    free(e.before);
    return finish_output(ret ? STATUS_ERROR : 0);
}
