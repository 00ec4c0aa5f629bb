/*
 * What a user is told of an image's backing file. Its name is from the image: it may be anything.
 */
#include "blk/qcow2_backing.h"

#include "blk/qcow2_header.h"
#include "blk/qcow2_private.h"

#include "base/log.h"
#include "base/util.h"

#include <stdio.h>
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
