/*
 * What ssh needs to reach machines.
 */
#include "cli/ssh_setup.h"

#include "cli/cli.h"
#include "cli/program.h"
#include "ctl/definition.h"
#include "ctl/lock_file.h"
#include "ctl/registry.h"
#include "ctl/replace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY         "id_ed25519"
#define CONFIG_MOST (64 * 1024)
#define TRIES       100 /* times 0.1 s */

/* ---- The key ---- */

/* Locks FOLDER; another process that makes the key has it for moments. */
static int lock_folder(const char *folder, struct error *err)
{
    char path[PATH_MAX];
    int lock = registry_file(folder, "lock", path, err);

    if (lock)
        return lock;
    lock = -EBUSY;
    for (unsigned i = 0; i < TRIES && lock == -EBUSY; i++) {
        if (i > 0)
            usleep(100000);
        lock = lock_file_take(path, "makes a key");
    }
    return lock < 0 ? error_set(err, -lock, "cannot lock %s: %s", path, strerror(-lock)) : lock;
}

/* Makes the key KEY, in a folder that is locked. The public one gets its name first: so a private
 * one is never without. */
static int make_key(const char *key, struct error *err)
{
    char draft[PATH_MAX + 8], public_draft[PATH_MAX + 16], public_key[PATH_MAX + 8];
    const char *const argv[] = {"ssh-keygen", "-q",     "-t", "ed25519", "-N", "",
                                "-C",         "doppel", "-f", draft,     NULL};
    int ret;

    snprintf(draft, sizeof(draft), "%s.new", key);
    snprintf(public_draft, sizeof(public_draft), "%s.pub", draft);
    snprintf(public_key, sizeof(public_key), "%s.pub", key);
    unlink(draft); /* of a process that was killed */
    ret = program_run(argv, "openssh-client", err);
    if (!ret && (rename(public_draft, public_key) < 0 || rename(draft, key) < 0))
        ret = error_set(err, errno, "cannot make the key %s: %s", key, strerror(errno));
    return ret;
}

int ssh_setup_key(char path[PATH_MAX], struct error *err)
{
    char folder[PATH_MAX];
    int lock, ret = home_folder(HOME_DATA, "ssh", folder, sizeof(folder), err);

    if (!ret)
        ret = registry_file(folder, KEY, path, err);
    if (ret || access(path, F_OK) == 0)
        return ret;
    lock = lock_folder(folder, err);
    if (lock < 0)
        return lock;
    if (access(path, F_OK) < 0)
        ret = make_key(path, err);
    close(lock);
    return ret;
}

/* ---- Configurations ---- */

/* Whether ssh_config(5) can name PATH, in quotes and with each '%' doubled. */
static bool can_be_named(const char *path)
{
    return !strpbrk(path, "\"\\\n\r") && !strstr(path, "${");
}

/* Writes TEXT with each '%' doubled. */
static void put_percents(FILE *to, const char *text)
{
    for (; *text; text++) {
        if (*text == '%')
            fputc('%', to);
        fputc(*text, to);
    }
}

static void put_path(FILE *to, const char *key, const char *path)
{
    fprintf(to, "    %s \"", key);
    put_percents(to, path);
    fputs("\"\n", to);
}

char *ssh_setup_proxy(const char *name, unsigned patience)
{
    char self[PATH_MAX] = "doppel", *text = NULL;
    char *quoted = NULL;
    size_t size;
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    FILE *to;

    if (n > 0)
        self[n] = '\0';
    to = open_memstream(&quoted, &size);
    if (!to)
        return NULL;
    quote_for_shell(to, self);
    if (fclose(to) == 0) {
        to = open_memstream(&text, &size);
        if (to) {
            put_percents(to, quoted);
            fprintf(to, " connect --pass-fd --wait %u %s " SSH_PORT_WORD, patience, name);
            if (fclose(to) != 0) {
                free(text);
                text = NULL;
            }
        }
    }
    free(quoted);
    return text;
}

/* The configuration of the machine NAME; the caller frees it. NULL: no memory. */
static char *config_text(const char *name, const struct definition *definition, const char *key,
                         const char *known_hosts)
{
    char *proxy = ssh_setup_proxy(name, SSH_PATIENCE), *text = NULL;
    size_t size;
    FILE *to = proxy ? open_memstream(&text, &size) : NULL;

    if (to) {
        fprintf(to,
                "# Written by doppel, and written anew by each doppel ssh.\n"
                "Host %s\n"
                "    HostName %s\n"
                "    HostKeyAlias doppel-guest\n"
                "    User %s\n",
                name, name, definition->ssh_user ? definition->ssh_user : DEFINITION_DEFAULT_USER);
        put_path(to, "IdentityFile", key);
        put_path(to, "UserKnownHostsFile", known_hosts);
        fprintf(to,
                "    GlobalKnownHostsFile /dev/null\n"
                "    IdentitiesOnly yes\n"
                "    StrictHostKeyChecking accept-new\n"
                "    LogLevel ERROR\n"
                "    ProxyCommand %s\n"
                "    ProxyUseFdpass yes\n",
                proxy);
        if (fclose(to) != 0) {
            free(text);
            text = NULL;
        }
    }
    free(proxy);
    return text;
}

/* Replaces FILE by TEXT if it holds something else. */
static int write_if_new(const char *file, const char *text, struct error *err)
{
    size_t size = 0;
    char *old = read_small_file(file, CONFIG_MOST, &size, NULL);
    bool same = old && !strcmp(old, text);

    free(old);
    return same ? 0 : replace_file(file, text, strlen(text), 0600, err);
}

/* A file for ssh -F, or for an Include of the user's own, that leads to those of all machines. */
static int write_common(struct error *err)
{
    char machines[PATH_MAX], file[PATH_MAX], *text;
    int ret = home_path(HOME_DATA, "machines", machines, sizeof(machines), err);

    if (!ret)
        ret = home_path(HOME_DATA, "ssh/config", file, sizeof(file), err);
    if (ret)
        return ret;
    if (asprintf(&text, "# Written by doppel.\nInclude \"%s/*/" SSH_CONFIG "\"\n", machines) < 0)
        return error_set(err, ENOMEM, "out of memory");
    ret = write_if_new(file, text, err);
    free(text);
    return ret;
}

/* Writes the configuration to PATH; the private key is KEY unless the definition names one. */
static int write_config(const char *name, const char *folder, const struct definition *definition,
                        const char *key, const char *path, struct error *err)
{
    char known_hosts[PATH_MAX], *own = NULL, *text;
    int ret = registry_file(folder, "known_hosts", known_hosts, err);

    if (ret)
        return ret;
    if (definition->ssh_key)
        own = definition_path(folder, definition->ssh_key);
    if (definition->ssh_key && !own)
        return error_set(err, ENOMEM, "out of memory");
    if (own)
        key = own;
    if (!can_be_named(key) || !can_be_named(known_hosts)) {
        ret = error_set(err, EINVAL, "ssh cannot be told of %s: its name has quotes in it",
                        can_be_named(key) ? known_hosts : key);
    } else {
        text = config_text(name, definition, key, known_hosts);
        ret = text ? write_if_new(path, text, err) : error_set(err, ENOMEM, "out of memory");
        free(text);
    }
    free(own);
    return ret;
}

int ssh_setup_config(const char *name, const char *folder, char path[PATH_MAX], struct error *err)
{
    struct definition definition;
    char key[PATH_MAX], file[PATH_MAX];
    int ret = registry_file(folder, DEFINITION_FILE, file, err);

    if (!ret)
        ret = definition_load(file, &definition, err);
    if (ret)
        return ret;
    ret = ssh_setup_key(key, err);
    if (!ret)
        ret = registry_file(folder, SSH_CONFIG, path, err);
    if (!ret)
        ret = write_config(name, folder, &definition, key, path, err);
    if (!ret)
        ret = write_common(err);
    definition_free(&definition);
    return ret;
}
