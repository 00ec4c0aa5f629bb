/*
 * What a user is told of an image's backing file. Its name is from the image: it may be anything.
 */
#include "blk/qcow2/backing.h"

#include "blk/qcow2/header.h"
#include "blk/qcow2/qcow2_private.h"

#include "base/log.h"
#include "base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct line {
    char *at, *end; /* END is the byte 0's */
};

static void put(struct line *line, char c)
{
    if (line->at < line->end)
        *line->at++ = c;
}

static void put_commas(struct line *line, unsigned count)
{
    while (count-- > 0)
        put(line, ',');
}

/* Puts SIZE bytes of a name, its commas COMMAS times each. */
static void put_name(struct line *line, const char *name, size_t size, unsigned commas)
{
    for (size_t i = 0; i < size && name[i]; i++) {
        if (name[i] == ',')
            put_commas(line, commas);
        else
            put(line, name[i]);
    }
}

void qcow2_backing_advice(const struct qcow2 *q, char text[QCOW2_ADVICE])
{
    static const char begin[] = "add '", key[] = "backing=", end[] = "' behind it";
    struct line line = {text, text + QCOW2_ADVICE - sizeof(end)};
    const char *image = blk_info(q->file).file, *slash = strrchr(image, '/');
    char name[QCOW2_BACKING_MAX + 1];
    /* Each level doubles commas, and its value is a text of options, where names double them. */
    unsigned commas = 1u << MIN(q->depth, 8);

    qcow2_header_backing(q, name);
    put_name(&line, begin, sizeof(begin), 1);
    put_commas(&line, commas);
    put_name(&line, key, sizeof(key), 1);
    if (name[0] != '/' && slash)
        put_name(&line, image, (size_t)(slash + 1 - image), 4 * commas);
    put_name(&line, name, sizeof(name), 4 * commas);
    strcpy(line.at, end);
    log_clean(text);
}

/* Takes "." and ".." and empty steps out of PATH, which begins with '/'. */
static void simplify(char *path)
{
    char *to = path;

    for (const char *from = path; *from;) {
        size_t size = strcspn(from + 1, "/");

        if (size == 2 && from[1] == '.' && from[2] == '.') {
            while (to > path && *--to != '/')
                ;
        } else if (size && !(size == 1 && from[1] == '.')) {
            memmove(to, from, size + 1);
            to += size + 1;
        }
        from += size + 1;
    }
    *to = '\0';
}

/* Where NAME in an image leads to, as an absolute path, which the caller frees; NULL: unknown. */
static char *follow(const char *image, const char *name)
{
    const char *slash = strrchr(image, '/');
    char *folder, *real = NULL, *path = NULL;

    if (name[0] == '/') {
        path = strdup(name);
    } else {
        folder = slash ? strndup(image, (size_t)(slash + 1 - image)) : strdup(".");
        real = folder ? realpath(folder, NULL) : NULL;
        free(folder);
        if (!real || asprintf(&path, "%s/%s", real, name) < 0)
            path = NULL;
        free(real);
    }
    if (path)
        simplify(path);
    return path;
}

void qcow2_backing_compare(const struct qcow2 *q)
{
    const char *given = blk_info(q->backing).file;
    char name[QCOW2_BACKING_MAX + 1], *meant, *real;

    qcow2_header_backing(q, name);
    if (strcmp(name, given) == 0 || !q->blk.host)
        return;
    meant = follow(blk_info(q->file).file, name);
    real = realpath(given, NULL);
    if (!meant || !real || strcmp(meant, real) != 0)
        log_line(q->blk.host->log, LOG_LEVEL_WARNING,
                 "%.150s: its backing file is '%.100s' by its own account, and not '%.150s'",
                 q->name, name, given);
    free(meant);
    free(real);
}
