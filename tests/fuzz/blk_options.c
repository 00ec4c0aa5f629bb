/*
 * Fuzz target: the text by which a user names a disk.
 */
#include "blk/options.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* What has been understood keeps what options.h promises. */
static void check_options(const struct blk_options *o)
{
    check(o->file && *o->file);
    check(!o->serial || (*o->serial && strlen(o->serial) <= BLK_SERIAL_MOST));
    check(!o->backing || (*o->backing && o->format == BLK_QCOW2));
    check(o->queues <= BLK_QUEUES_MOST);
    check(o->offset <= INT64_MAX && o->size <= INT64_MAX - (o->size ? o->offset : 0));
    check(o->iops <= INT64_MAX && o->bps <= INT64_MAX);
}

/* NAME with each comma doubled, behind "file=", is the name of a file again. */
static void check_name(const char *name)
{
    char *text = malloc(2 * strlen(name) + 8), *to = text + sprintf(text, "file=");
    struct blk_options o;

    for (const char *at = name; *at; at++) {
        if (*at == ',')
            *to++ = ',';
        *to++ = *at;
    }
    *to = '\0';
    check(blk_options_parse(text, &o, NULL) == 0 && strcmp(o.file, name) == 0);
    check_options(&o);
    blk_options_free(&o);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct blk_options o;
    struct error err = {0};
    char *text = malloc(size + 1);

    check(text);
    memcpy(text, data, size);
    text[size] = '\0';
    if (blk_options_parse(text, &o, &err) == 0) {
        check_options(&o);
        if (o.source != BLK_VHOST_USER)
            check_name(o.file);
        blk_options_free(&o);
    } else {
        check(err.code > 0 && *err.text && !o.file && !o.serial && !o.backing);
    }
    free(text);
    return 0;
}
