/*
 * Users and groups of a guest.
 */
#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MOST (4u * 1024 * 1024)

/* A part of a text, which has no 0 at its end. */
struct span {
    const char *at;
    size_t size;
};

/* Cuts what stands before the first SEPARATOR off *REST. */
static struct span cut(struct span *rest, char separator)
{
    const char *found = rest->size ? memchr(rest->at, separator, rest->size) : NULL;
    struct span first = {rest->at, found ? (size_t)(found - rest->at) : rest->size};
    size_t taken = first.size + (found ? 1 : 0);

    rest->at += taken;
    rest->size -= taken;
    return first;
}

static bool equals(struct span span, const char *text)
{
    return span.size == strlen(text) && !memcmp(span.at, text, span.size);
}

static void copy(char *to, size_t room, struct span from)
{
    snprintf(to, room, "%.*s", (int)(from.size < room ? from.size : room - 1), from.at);
}

/* Numbers of users and groups; the last one stands for none (chown(2)). */
static bool parse_id(struct span text, uint32_t *id)
{
    uint64_t number = 0;

    if (text.size == 0 || text.size > 10)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        number = 10 * number + (uint64_t)(text.at[i] - '0');
    }
    *id = (uint32_t)number;
    return number < UINT32_MAX;
}

/* Looks for the line of NAME, or with NAME NULL for that of user->uid. */
static bool find_entry(const char *name, struct span passwd, struct agent_user *user)
{
    while (passwd.size > 0) {
        struct span line = cut(&passwd, '\n'), field[7];
        uint32_t uid, gid;

        for (unsigned i = 0; i < 7; i++)
            field[i] = cut(&line, ':');
        if (!parse_id(field[2], &uid) || !parse_id(field[3], &gid) || field[0].size == 0 ||
            !(name ? equals(field[0], name) : uid == user->uid))
            continue;
        user->uid = uid;
        user->gid = gid;
        copy(user->name, sizeof(user->name), field[0]);
        copy(user->home, sizeof(user->home), field[5]);
        copy(user->shell, sizeof(user->shell), field[6]);
        return true;
    }
    return false;
}

static void add_group(struct agent_user *user, gid_t gid)
{
    for (unsigned i = 0; i < user->group_count; i++)
        if (user->groups[i] == gid)
            return;
    if (user->group_count < AGENT_GROUPS_MOST)
        user->groups[user->group_count++] = gid;
}

/* Adds the groups that have the user as a member. */
static void find_groups(struct agent_user *user, struct span group)
{
    while (group.size > 0) {
        struct span line = cut(&group, '\n'), field[3];
        uint32_t gid;

        for (unsigned i = 0; i < 3; i++)
            field[i] = cut(&line, ':');
        while (parse_id(field[2], &gid) && line.size > 0)
            if (equals(cut(&line, ','), user->name))
                add_group(user, gid);
    }
}

bool agent_user_find(const char *name, const char *passwd, size_t passwd_size, const char *group,
                     size_t group_size, struct agent_user *user)
{
    struct span text = {name, strlen(name)}, uid = cut(&text, ':');
    struct span entries = {passwd, passwd_size};
    bool has_gid = uid.size < strlen(name);
    uint32_t id, gid = 0;

    memset(user, 0, sizeof(*user));
    if (parse_id(uid, &id) && (!has_gid || parse_id(text, &gid))) {
        user->uid = id;
        if (!find_entry(NULL, entries, user))
            user->gid = id;
        if (has_gid)
            user->gid = gid;
    } else if (!find_entry(name, entries, user)) {
        return false;
    }
    if (!*user->home)
        snprintf(user->home, sizeof(user->home), "/");
    if (!*user->shell)
        snprintf(user->shell, sizeof(user->shell), "/bin/sh");
    add_group(user, user->gid);
    if (*user->name && !has_gid)
        find_groups(user, (struct span){group, group_size});
    return true;
}

/* The text of a file, up to FILE_MOST bytes; empty without one. To be freed. */
static char *read_file(const char *path, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t length = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    size_t room = length > 0 && length < (off_t)FILE_MOST ? (size_t)length : FILE_MOST;
    char *text = malloc(room + 1);
    ssize_t n = 0;

    *size = 0;
    while (fd >= 0 && text && *size < room &&
           (n = pread(fd, text + *size, room - *size, (off_t)*size)) > 0)
        *size += (size_t)n;
    if (fd >= 0)
        close(fd);
    return text;
}

bool agent_user_look_up(const char *name, struct agent_user *user)
{
    size_t passwd_size, group_size;
    char *passwd = read_file("/etc/passwd", &passwd_size);
    char *group = read_file("/etc/group", &group_size);
    bool found =
        passwd && group && agent_user_find(name, passwd, passwd_size, group, group_size, user);

    free(passwd);
    free(group);
    return found;
}
