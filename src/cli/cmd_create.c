/*
 * `doppel create`: makes a machine with a system on its disk.
 */
#include "cli/cli.h"
#include "cli/create.h"

#include "base/util.h"
#include "ctl/doppel.h"
#include "ctl/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEAST (1ULL << 30) /* bytes of a disk for Debian */

enum {
    OPT_FROM,
    OPT_FORMAT,
    OPT_SUITE,
    OPT_MIRROR,
    OPT_PACKAGES,
    OPT_SIZE,
    OPT_MEMORY,
    OPT_CPUS,
    OPT_USER,
    OPT_SSH_KEY,
    OPT_HOSTNAME,
    OPT_CLOUD_INIT,
    OPT_KERNEL,
    OPT_INITRD,
    OPT_APPEND,
    OPT_HELP
};

static const struct option_spec specs[] = {
    [OPT_FROM] = {"from", "FILE", "instead of Debian: a disk image, a tar archive, an OCI layout"},
    [OPT_FORMAT] = {"format", "FORMAT",
                    "of FILE: raw, qcow2, tar or oci; the default is what the name says"},
    [OPT_SUITE] = {"suite", "SUITE", "Debian's bookworm (12, the default) or trixie (13)"},
    [OPT_MIRROR] = {"mirror", "URL", "where packages come from; the default is this host's mirror"},
    [OPT_PACKAGES] = {"packages", "NAME,...", "install these, too"},
    [OPT_SIZE] = {"size", "SIZE", "of the disk (8G, or what FILE has)"},
    [OPT_MEMORY] = {"memory", "SIZE", "of the machine (1G)"},
    [OPT_CPUS] = {"cpus", "N", "number of virtual CPUs (1)"},
    [OPT_USER] = {"user", "NAME", "make this user, who may do all by sudo"},
    [OPT_SSH_KEY] = {"ssh-key", "FILE", "let in these public keys, beside doppel's own"},
    [OPT_HOSTNAME] = {"hostname", "NAME", "the default is the machine's name"},
    [OPT_CLOUD_INIT] = {"cloud-init", "FILE", "user-data for cloud-init in a foreign image"},
    [OPT_KERNEL] = {"kernel", "FILE", "start this one, and not that of the image"},
    [OPT_INITRD] = {"initrd", "FILE", "with this initramfs; '': none"},
    [OPT_APPEND] = {"append", "STRING", "add to the kernel's command line"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static int help(void)
{
    puts("Usage: doppel create debian [OPTION...] NAME\n"
         "       doppel create --from FILE [OPTION...] NAME\n"
         "Makes a machine that `doppel run NAME` starts, with a system on its disk.\n");
    options_help(specs);
    return finish_output(0);
}

/* ---- Options ---- */

static bool set_bytes(uint64_t *bytes, const char *option, const char *value, uint64_t least,
                      uint64_t most)
{
    if (parse_size(value, bytes) && *bytes >= least && *bytes <= most && *bytes % 4096 == 0)
        return true;
    complain("--%s: %s is no size from %lluM to %lluG (a number and a unit, as in 4G)", option,
             value, (unsigned long long)(least >> 20), (unsigned long long)(most >> 30));
    return false;
}

#define LETTERS "abcdefghijklmnopqrstuvwxyz"
#define DIGITS  "0123456789"

/* Whether a host may have this name (RFC 1123, 2.1). */
static bool check_hostname(const char *value)
{
    size_t length = strspn(value, LETTERS DIGITS "-");

    if (length && length <= 63 && !value[length] && value[0] != '-' && value[length - 1] != '-')
        return true;
    complain("--hostname: '%s' is no name (a-z, 0-9, and - between them, at most 63)", value);
    return false;
}

/* Whether a user of Debian's may have this name (adduser.conf(5), NAME_REGEX). */
static bool check_user(const char *value)
{
    size_t length = strspn(value, LETTERS DIGITS "_-");

    if (length && length <= 32 && !value[length] && strchr(LETTERS "_", value[0]))
        return true;
    complain("--user: '%s' is no name (a-z, 0-9, _ and -, at most 32, beginning with a letter)",
             value);
    return false;
}

static bool set_text(struct create_options *create, int option, const char *value)
{
    switch (option) {
    case OPT_FROM: create->from = value; return true;
    case OPT_FORMAT: create->format = value; return true;
    case OPT_SUITE: create->suite = value; return true;
    case OPT_MIRROR: create->mirror = value; return true;
    case OPT_PACKAGES: create->packages = value; return true;
    case OPT_SSH_KEY: create->ssh_key = value; return true;
    case OPT_CLOUD_INIT: create->cloud_init = value; return true;
    case OPT_KERNEL: create->kernel = value; return true;
    case OPT_INITRD: create->initrd = value; return true;
    case OPT_APPEND: create->append = value; return true;
    case OPT_USER: create->user = value; return check_user(value);
    case OPT_HOSTNAME: create->hostname = value; return check_hostname(value);
    default: return false;
    }
}

static bool set_option(struct create_options *create, int option, const char *value)
{
    switch (option) {
    case OPT_SIZE: return set_bytes(&create->size, "size", value, 64 * MiB, 16384 * GiB);
    case OPT_MEMORY:
        return set_bytes(&create->memory, "memory", value, 64 * MiB, DOPPEL_MAX_MEMORY);
    case OPT_CPUS:
        if (parse_unsigned(value, 1, DOPPEL_MAX_CPUS, &create->cpus))
            return true;
        complain("--cpus: '%s' is not a number from 1 to %d", value, DOPPEL_MAX_CPUS);
        return false;
    default: return set_text(create, option, value);
    }
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);

    return length >= tail && !strcmp(text + length - tail, end);
}

/* What FILE is, as its name says. */
static enum create_source source_of(const char *from)
{
    static const char *const archives[] = {".tar",     ".tar.gz", ".tgz",     ".tar.xz", ".txz",
                                           ".tar.zst", ".tzst",   ".tar.bz2", ".tar.lz4"};
    struct stat st;

    if (stat(from, &st) == 0 && S_ISDIR(st.st_mode))
        return CREATE_OCI;
    for (unsigned i = 0; i < ARRAY_SIZE(archives); i++)
        if (ends_with(from, archives[i]))
            return CREATE_TAR;
    return CREATE_IMAGE;
}

static bool set_source(struct create_options *create)
{
    const char *format = create->format;

    if (!create->from)
        create->source = CREATE_DEBIAN;
    else if (!format)
        create->source = source_of(create->from);
    else if (!strcmp(format, "tar"))
        create->source = CREATE_TAR;
    else if (!strcmp(format, "oci"))
        create->source = CREATE_OCI;
    else if (!strcmp(format, "raw") || !strcmp(format, "qcow2"))
        create->source = CREATE_IMAGE;
    else {
        complain("--format: '%s' is none of raw, qcow2, tar and oci", format);
        return false;
    }
    return true;
}

/* What fits together and what does not. */
static bool consistent(struct create_options *create)
{
    bool debian = create->source == CREATE_DEBIAN;
    const char *wrong = debian             ? create->format       ? "--format"
                                             : create->cloud_init ? "--cloud-init"
                                                                  : NULL
                        : create->suite    ? "--suite"
                        : create->mirror   ? "--mirror"
                        : create->packages ? "--packages"
                        : create->user     ? "--user"
                                           : NULL;

    if (wrong) {
        complain(debian ? "%s is for --from" : "%s is for Debian, and not with --from", wrong);
        return false;
    }
    if ((create->hostname || create->ssh_key) && !debian && !create->cloud_init) {
        complain("--%s is for Debian, or for --cloud-init",
                 create->hostname ? "hostname" : "ssh-key");
        return false;
    }
    if (debian && create->size && create->size < LEAST) {
        complain("--size: Debian needs 1G at least");
        return false;
    }
    if (!create->suite)
        create->suite = "bookworm";
    if (!strcmp(create->suite, "12"))
        create->suite = "bookworm";
    if (!strcmp(create->suite, "13"))
        create->suite = "trixie";
    if (strcmp(create->suite, "bookworm") != 0 && strcmp(create->suite, "trixie") != 0) {
        complain("--suite: unknown suite '%s' (known: bookworm, trixie)", create->suite);
        return false;
    }
    return true;
}

/* ---- The words ---- */

struct words {
    const char *word[2];
    unsigned count;
};

/* True when there is something to make; else STATUS is what to exit with. */
static bool parse(struct create_options *create, struct words *words, char **argv, int *status)
{
    struct options options = {.command = "create", .specs = specs, .argv = argv + 1, .words = true};
    const char *value = NULL;
    int option;

    *status = STATUS_ERROR;
    while ((option = options_next(&options, &value)) != OPTIONS_END) {
        if (option == OPTIONS_FAIL)
            return false;
        if (option == OPT_HELP) {
            *status = help();
            return false;
        }
        if (option == OPTIONS_WORD && words->count == ARRAY_SIZE(words->word)) {
            complain("unexpected argument '%s'", value);
            return false;
        }
        if (option == OPTIONS_WORD)
            words->word[words->count++] = value;
        else if (!set_option(create, option, value))
            return false;
    }
    return set_source(create) && consistent(create);
}

static bool read_words(struct create_options *create, const struct words *words)
{
    unsigned wanted = create->from ? 1 : 2;

    if (!create->from && words->count && strcmp(words->word[0], "debian") != 0) {
        complain("unknown system '%s' (known: debian; or --from FILE)", words->word[0]);
        return false;
    }
    if (words->count != wanted) {
        complain(create->from ? "there is to be one name: doppel create --from FILE NAME"
                              : "there are to be two words: doppel create debian NAME");
        return false;
    }
    create->name = words->word[wanted - 1];
    return true;
}

/* Files that are read late are looked at early. */
static int check_files(const struct create_options *create, struct error *err)
{
    const char *const files[] = {create->from, create->kernel,
                                 create->initrd && *create->initrd ? create->initrd : NULL,
                                 create->ssh_key, create->cloud_init};

    for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
        if (files[i] && access(files[i], R_OK) < 0)
            return error_set(err, errno, "cannot open %s: %s", files[i], strerror(errno));
    return 0;
}

static int create_it(const struct create_options *create, struct error *err)
{
    struct base_image base = {0};
    char folder[PATH_MAX];
    int result = registry_folder(create->name, folder, err);

    if (!result)
        return error_set(err, EEXIST, "there is a machine named %s (doppel rm %s removes it)",
                         create->name, create->name);
    if (result != -ENOENT)
        return result;
    result = check_files(create, err);
    if (result)
        return result;
    switch (create->source) {
    case CREATE_DEBIAN: result = create_debian(create, &base, err); break;
    case CREATE_IMAGE: result = create_from_image(create, &base, err); break;
    case CREATE_TAR: result = create_from_tar(create, &base, err); break;
    case CREATE_OCI: result = create_from_oci(create, &base, err); break;
    }
    if (!result)
        result = create_machine(create, &base, err);
    base_image_give_back(&base);
    return result;
}

int cmd_create(char **argv)
{
    struct create_options create = {.memory = CREATE_MEMORY};
    struct words words = {0};
    struct error err = {0};
    int status;

    if (!parse(&create, &words, argv, &status))
        return status;
    if (!read_words(&create, &words))
        return STATUS_ERROR;
    if (!create_it(&create, &err))
        return 0;
    complain("%s", err.text);
    return STATUS_ERROR;
}
