/*
 * `doppel cp`: files between this host and a machine that runs, as tar archives. The guest's tar
 * makes and unpacks them there; here libarchive does. What comes from a guest is not trusted.
 */
#include "cli/cli.h"
#include "cli/guest_program.h"
#include "cli/progress.h"

#include "image/tar_create.h"
#include "image/tar_extract.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TELL_EVERY (1 << 20) /* bytes */

enum { OPT_USER, OPT_WAIT, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_USER] = {"user", "USER",
                  "-u: who reads or writes in the guest, a name or UID[:GID] (root)"},
    [OPT_WAIT] = {"wait", "SECONDS", "how long the guest may take until it answers (120)"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static const char usage[] =
    "Usage: doppel cp [OPTION...] NAME:SOURCE... TARGET\n"
    "       doppel cp [OPTION...] SOURCE... NAME:TARGET\n"
    "Copies files, and folders with all that is in them, from the machine NAME, which runs, or to\n"
    "it. If TARGET is a folder, they go into it.\n";

struct copy {
    struct guest_place place;
    bool out;       /* from the guest */
    char **sources; /* up to TARGET */
    unsigned count; /* of them */
    const char *target;
    struct progress progress;
    uint64_t told; /* bytes that the progress line has told of */
};

/* ---- Paths ---- */

/* The path in the guest that WORD means, as NAME:PATH; NULL: it is one of this host. */
static char *guest_path(char *word)
{
    char *colon = strchr(word, ':'), *slash = strchr(word, '/');

    return colon && colon > word && (!slash || colon < slash) ? colon + 1 : NULL;
}

/* Where a path leads: NAME in FOLDER. NAME "": the folder itself, of which all contents are meant.
 */
struct place {
    char folder[PATH_MAX], name[PATH_MAX];
};

static int split(const char *path, struct place *place, struct error *err)
{
    size_t length = strlen(path), start;

    if (length >= sizeof(place->folder) - 2)
        return error_set(err, ENAMETOOLONG, "'%.100s...' is too long", path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    for (start = length; start > 0 && path[start - 1] != '/';)
        start--;
    snprintf(place->name, sizeof(place->name), "%.*s", (int)(length - start), path + start);
    if (!strcmp(place->name, ".") || !strcmp(place->name, "..") || !*place->name) {
        snprintf(place->folder, sizeof(place->folder), "%.*s", (int)length, length ? path : ".");
        if (!length)
            strcpy(place->folder, ".");
        place->name[0] = '\0';
    } else if (start == 0) {
        strcpy(place->folder, ".");
    } else {
        snprintf(place->folder, sizeof(place->folder), "%.*s", (int)start, path);
    }
    return 0;
}

static bool is_folder(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static bool ends_in_slash(const char *path)
{
    return *path && path[strlen(path) - 1] == '/';
}

/* Chooses where SOURCE goes: into the folder TARGET, if it is one (IS_FOLDER), or in its place. */
static int choose_target(const struct copy *copy, const struct place *source, bool target_is_folder,
                         struct place *target, struct error *err)
{
    int result = 0;

    if (target_is_folder) {
        snprintf(target->folder, sizeof(target->folder), "%s", *copy->target ? copy->target : ".");
        memcpy(target->name, source->name, sizeof(target->name));
        return 0;
    }
    if (copy->count > 1 || (*source->name && ends_in_slash(copy->target)))
        return error_set(err, ENOTDIR, "'%.200s' is no folder", copy->target);
    result = split(copy->target, target, err);
    if (!result && !*target->name)
        result = error_set(err, ENOENT, "there is no folder '%.200s'", copy->target);
    return result;
}

/* ---- The work ---- */

static bool tick(void *opaque, uint64_t bytes)
{
    struct copy *copy = opaque;
    char text[120];

    if (bytes - copy->told < TELL_EVERY && bytes >= copy->told && bytes > 0)
        return false;
    copy->told = bytes;
    snprintf(text, sizeof(text), "copying %s %.40s: %" PRIu64 " MiB", copy->out ? "from" : "to",
             copy->place.name, bytes >> 20);
    progress_tick(&copy->progress, text, -1);
    return false;
}

static void tell_special(uint64_t special)
{
    if (special)
        complain("%" PRIu64 " devices, pipes or sockets were left out", special);
}

/* Ends PROGRAM, the guest's tar. RESULT is what came of this side, and ERR says it. */
static int end_tar(struct guest_program *program, int result, struct error *err)
{
    int status = guest_program_end(program);

    if (!status || (result && result != -EPIPE))
        return result;
    return error_set(err, EIO, "'%s': tar failed there (status %d)", program->name, status);
}

static int copy_out(struct copy *copy, const char *path, struct error *err)
{
    struct tar_extracted extracted = {0};
    struct guest_program program;
    struct place source, target;
    char name[PATH_MAX + 2];
    const char *const command[] = {"tar", "-C", source.folder, "-cf", "-", name, NULL};
    const struct tar_extract_options options = {
        .from = source.name, .to = target.name, .tick = tick, .opaque = copy};
    int folder, result = split(path, &source, err);

    if (!result)
        result = choose_target(copy, &source, is_folder(copy->target), &target, err);
    if (result)
        return result;
    snprintf(name, sizeof(name), "./%s", source.name);
    folder = open(target.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return error_set(err, errno, "cannot open the folder '%.200s': %s", target.folder,
                         strerror(errno));
    result = guest_program_start(&program, &copy->place, command, false, true, err);
    if (result) {
        close(folder);
        return result;
    }
    result = tar_extract(program.child.out, folder, &options, &extracted, err);
    progress_end(&copy->progress);
    result = end_tar(&program, result, err);
    if (!result && !extracted.entries && *source.name)
        result = error_set(err, ENOENT, "'%s' has sent nothing", copy->place.name);
    tell_special(extracted.special);
    return result;
}

/* Whether the target is a folder of the guest's: 1 or 0, or a negative errno. */
static int target_is_folder(struct copy *copy, struct error *err)
{
    const char *const command[] = {"test", "-d", *copy->target ? copy->target : ".", NULL};
    struct guest_program program;
    int result = guest_program_start(&program, &copy->place, command, false, false, err);
    int status = result ? 0 : guest_program_end(&program);

    if (result)
        return result;
    if (status > 1)
        return error_set(err, EIO, "cannot look at '%.200s' in '%s'", copy->target,
                         copy->place.name);
    return status == 0;
}

static int copy_in(struct copy *copy, const char *path, bool into, struct error *err)
{
    struct tar_created created = {0};
    struct guest_program program;
    struct place source, target;
    struct stat status;
    const char *const command[] = {"tar", "-C", target.folder, "-xpof", "-", NULL};
    const struct tar_create_options options = {
        .path = path, .name = target.name, .tick = tick, .opaque = copy};
    int result = split(path, &source, err);

    if (!result && lstat(path, &status) < 0)
        result = error_set(err, errno, "cannot find '%.200s': %s", path, strerror(errno));
    if (!result)
        result = choose_target(copy, &source, into, &target, err);
    if (!result)
        result = guest_program_start(&program, &copy->place, command, true, false, err);
    if (result)
        return result;
    result = tar_create(program.child.in, &options, &created, err);
    progress_end(&copy->progress);
    result = end_tar(&program, result, err);
    tell_special(created.special);
    return result;
}

static int run(struct copy *copy, struct error *err)
{
    int into = copy->out ? 0 : target_is_folder(copy, err);
    int result = into < 0 ? into : 0;

    for (unsigned i = 0; i < copy->count && !result; i++) {
        char what[100];

        snprintf(what, sizeof(what), "copying %s %.40s", copy->out ? "from" : "to",
                 copy->place.name);
        progress_begin(&copy->progress, what);
        copy->told = 0;
        result = copy->out ? copy_out(copy, copy->sources[i], err)
                           : copy_in(copy, copy->sources[i], into, err);
        progress_end(&copy->progress);
    }
    return result;
}

/* ---- The command line ---- */

/* Cuts WORD, NAME:PATH, in two. Returns PATH. NAME is to be that of the other words. */
static char *take_name(struct copy *copy, char *word)
{
    char *path = guest_path(word);

    path[-1] = '\0';
    if (copy->place.name && strcmp(copy->place.name, word) != 0) {
        complain("all that is copied at once is one machine's: '%s' is not '%s'", word,
                 copy->place.name);
        return NULL;
    }
    copy->place.name = word;
    return path;
}

/* Finds out which way to copy, of COUNT words. The last one is the target. False after a message.
 */
static bool understand(struct copy *copy, char **words, unsigned count)
{
    char *target = count ? words[count - 1] : NULL;

    if (count < 2) {
        complain("too few arguments (there is to be: NAME:SOURCE... TARGET, or SOURCE... "
                 "NAME:TARGET)");
        return false;
    }
    copy->sources = words;
    copy->count = count - 1;
    copy->out = !guest_path(target);
    for (unsigned i = 0; i < copy->count; i++)
        if (!guest_path(words[i]) == copy->out) {
            complain("'%s': files are copied from a machine to this host or back (NAME:PATH is of "
                     "a machine, ./NAME:PATH of this host)",
                     words[i]);
            return false;
        }
    for (unsigned i = 0; copy->out && i < copy->count; i++)
        if (!(words[i] = take_name(copy, words[i])))
            return false;
    copy->target = copy->out ? target : take_name(copy, target);
    return true;
}

static int help(void)
{
    puts(usage);
    options_help(specs);
    return finish_output(0);
}

/* Reads the arguments; the words are moved to the front of ARGV. Returns -1, or the exit status. */
static int read_arguments(char **argv, struct copy *copy)
{
    struct options options = {
        .command = "cp", .specs = specs, .argv = argv + 1, .letters = "u  ", .words = true};
    unsigned count = 0, seconds;
    const char *value = NULL;
    int option;

    while ((option = options_next(&options, &value)) != OPTIONS_END) {
        if (option == OPT_HELP)
            return help();
        if (option == OPTIONS_FAIL || (option == OPT_WAIT && !parse_wait(value, &seconds)))
            return STATUS_ERROR;
        if (option == OPT_USER)
            copy->place.user = value;
        else if (option == OPT_WAIT)
            copy->place.wait = value;
        else
            argv[count++] = (char *)(uintptr_t)value;
    }
    return understand(copy, argv, count) ? -1 : STATUS_ERROR;
}

int cmd_cp(char **argv)
{
    struct copy copy = {0};
    struct error err = {0};
    int status = read_arguments(argv, &copy);

    if (status >= 0)
        return status;
    if (!run(&copy, &err))
        return 0;
    complain("%s", err.text);
    return STATUS_ERROR;
}
