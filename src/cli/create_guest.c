/*
 * What is changed on a machine's own disk before its first start: host name, user, keys, and
 * doppel's agent. The files are those of passwd(5), shadow(5), group(5), hosts(5), sudoers(5) and
 * systemd.unit(5).
 */
#include "cli/create.h"

#include "cli/guest.h"
#include "ctl/replace.h"

#include "blk/blk.h"
#include "image/ext4_edit.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FILE_MOST (1 << 20)
#define USER_ID   1000

/* No package of Debian's has files of these names, so that upgrades of the guest leave them alone.
 * A drop-in of the target does what `systemctl enable` does by a link. What commands of the agent
 * have started goes on when the agent is started anew. */
#define AGENT_MOST    (4 << 20)
#define AGENT_FOLDER  "/usr/local/sbin"
#define AGENT_PATH    AGENT_FOLDER "/doppel-agent"
#define AGENT_UNIT    "/etc/systemd/system/doppel-agent.service"
#define AGENT_DROP_IN "/etc/systemd/system/multi-user.target.d"

static const char agent_unit[] = "[Unit]\n"
                                 "Description=Runs commands for doppel exec on the host\n"
                                 "StartLimitIntervalSec=0\n"
                                 "\n"
                                 "[Service]\n"
                                 "ExecStart=" AGENT_PATH "\n"
                                 "Restart=always\n"
                                 "RestartSec=100ms\n"
                                 "KillMode=process\n"
                                 "OOMPolicy=continue\n"
                                 "OOMScoreAdjust=-900\n"
                                 "TasksMax=infinity\n"
                                 "\n"
                                 "[Install]\n"
                                 "WantedBy=multi-user.target\n";

struct guest {
    struct ext4_edit *edit;
    const char *hostname, *user, *keys;
    char home[80]; /* of who is let in */
    uint32_t id;
    int64_t now;
};

static struct ext4_attributes attributes(const struct guest *guest, unsigned mode, uint32_t owner)
{
    return (struct ext4_attributes){
        .mode = mode, .uid = owner, .gid = owner, .seconds = guest->now};
}

static int put(struct guest *guest, const char *path, unsigned mode, uint32_t owner,
               const char *text, struct error *err)
{
    struct ext4_attributes new = attributes(guest, mode, owner);

    return ext4_edit_write(guest->edit, path, text, strlen(text), &new, err);
}

/* Whether TEXT, lines of fields between colons, has a line whose first field is NAME. */
static bool has_entry(const char *text, const char *name)
{
    size_t length = strlen(name);

    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, name, length) && line[length] == ':')
            return true;
    }
    return false;
}

/* Adds LINE, the user's, to the end of the file PATH. */
static int append(struct guest *guest, const char *path, const char *line, struct error *err)
{
    size_t size;
    char *old = ext4_edit_read(guest->edit, path, FILE_MOST, &size, err), *text;
    int result, length;

    if (!old)
        return -err->code;
    if (has_entry(old, guest->user)) {
        free(old);
        return error_set(err, EEXIST, "--user: %s of the image has a '%s' already", path,
                         guest->user);
    }
    length = asprintf(&text, "%s%s%s", old, size && old[size - 1] != '\n' ? "\n" : "", line);
    free(old);
    if (length < 0)
        return error_set(err, ENOMEM, "out of memory");
    result = put(guest, path, 0644, 0, text, err);
    free(text);
    return result;
}

static int set_hostname(struct guest *guest, struct error *err)
{
    char text[400];
    int result;

    snprintf(text, sizeof(text), "%s\n", guest->hostname);
    result = put(guest, "/etc/hostname", 0644, 0, text, err);
    if (result)
        return result;
    snprintf(text, sizeof(text),
             "127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost ip6-loopback\n",
             guest->hostname);
    return put(guest, "/etc/hosts", 0644, 0, text, err);
}

/* Copies a file that each new user gets, if there is one. */
static int copy_skeleton(struct guest *guest, const char *name, struct error *err)
{
    char from[64], to[120], *text;
    size_t size;
    int result;

    snprintf(from, sizeof(from), "/etc/skel/%s", name);
    snprintf(to, sizeof(to), "%s/%s", guest->home, name);
    text = ext4_edit_read(guest->edit, from, FILE_MOST, &size, err);
    if (!text)
        return err->code == ENOENT ? 0 : -err->code;
    result = put(guest, to, 0644, guest->id, text, err);
    free(text);
    return result;
}

static int make_home(struct guest *guest, struct error *err)
{
    static const char *const skeleton[] = {".bashrc", ".profile", ".bash_logout"};
    struct ext4_attributes new = attributes(guest, 0700, guest->id);
    int result = ext4_edit_directory(guest->edit, guest->home, &new, err);

    for (unsigned i = 0; i < sizeof(skeleton) / sizeof(skeleton[0]) && !result; i++)
        result = copy_skeleton(guest, skeleton[i], err);
    return result;
}

/* Makes the user, who needs no password: on the console, which is its owner's, and for sudo. ssh
 * lets nobody in without a key. */
static int make_user(struct guest *guest, struct error *err)
{
    char text[256], path[80];
    int result;

    snprintf(text, sizeof(text), "%s:x:%u:%u::%s:/bin/bash\n", guest->user, guest->id, guest->id,
             guest->home);
    result = append(guest, "/etc/passwd", text, err);
    snprintf(text, sizeof(text), "%s::19700:0:99999:7:::\n", guest->user);
    if (!result)
        result = append(guest, "/etc/shadow", text, err);
    snprintf(text, sizeof(text), "%s:x:%u:\n", guest->user, guest->id);
    if (!result)
        result = append(guest, "/etc/group", text, err);
    snprintf(text, sizeof(text), "%s:!::\n", guest->user);
    if (!result)
        result = append(guest, "/etc/gshadow", text, err);
    if (!result)
        result = make_home(guest, err);
    if (result)
        return result;
    snprintf(path, sizeof(path), "/etc/sudoers.d/%s", guest->user);
    snprintf(text, sizeof(text), "%s ALL=(ALL:ALL) NOPASSWD: ALL\n", guest->user);
    return put(guest, path, 0440, 0, text, err);
}

static int let_in(struct guest *guest, struct error *err)
{
    struct ext4_attributes new = attributes(guest, 0700, guest->id);
    char path[128];
    int result;

    snprintf(path, sizeof(path), "%s/.ssh", guest->home);
    result = ext4_edit_directory(guest->edit, path, &new, err);
    if (result)
        return result;
    snprintf(path, sizeof(path), "%s/.ssh/authorized_keys", guest->home);
    return put(guest, path, 0600, guest->id, guest->keys, err);
}

/* Installs the agent and starts it with the system. */
static int install_agent(struct guest *guest, struct error *err)
{
    struct ext4_attributes program = attributes(guest, 0755, 0);
    char path[PATH_MAX + 32], *agent;
    size_t size = 0;
    int result;

    guest_agent(path);
    agent = read_small_file(path, AGENT_MOST, &size, err);
    if (!agent)
        return -err->code;
    result = ext4_edit_directory(guest->edit, AGENT_FOLDER, &program, err);
    if (!result)
        result = ext4_edit_write(guest->edit, AGENT_PATH, agent, size, &program, err);
    free(agent);
    if (!result)
        result = put(guest, AGENT_UNIT, 0644, 0, agent_unit, err);
    if (!result)
        result = ext4_edit_directory(guest->edit, AGENT_DROP_IN, &program, err);
    if (!result)
        result = put(guest, AGENT_DROP_IN "/doppel.conf", 0644, 0,
                     "[Unit]\nWants=doppel-agent.service\n", err);
    return result;
}

int create_guest(struct blk *blk, const char *hostname, const char *user, const char *keys,
                 struct error *err)
{
    struct guest guest = {.hostname = hostname, .user = user, .keys = keys, .now = time(NULL)};
    int result = 0;

    guest.edit = ext4_edit_open(blk, 0, blk_info(blk).size, "the machine's disk", EXT4_CHANGE, err);
    if (!guest.edit)
        return -EIO;
    snprintf(guest.home, sizeof(guest.home), "%s%s", user ? "/home/" : "/root", user ? user : "");
    guest.id = user ? USER_ID : 0;
    if (hostname)
        result = set_hostname(&guest, err);
    if (!result && user)
        result = make_user(&guest, err);
    if (!result && keys)
        result = let_in(&guest, err);
    if (!result)
        result = install_agent(&guest, err);
    if (!result)
        result = ext4_edit_finish(guest.edit, err);
    ext4_edit_free(guest.edit);
    return result;
}
