/*
 * Fuzz target: definitions of named machines. What is understood is written and read again as the
 * same.
 */
#include "ctl/definition.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* The words keep their sense within the machine's folder. */
static void check_words(const struct definition *d)
{
    for (unsigned i = 0; i < d->disks.count; i++) {
        char *disk = definition_disk("/a,b", d->disks.word[i]);

        check(disk && strlen(disk) >= strlen(d->disks.word[i]));
        free(disk);
    }
    for (unsigned i = 0; i < d->nets.count; i++) {
        char *net = definition_net(d, "name", d->nets.word[i], i);

        check(net && !strncmp(net, d->nets.word[i], strlen(d->nets.word[i])));
        free(net);
    }
}

static void check_vsock(const struct definition *d)
{
    char *vsock = definition_vsock(d, "/a,b");

    check(vsock && strstr(vsock, "socket="));
    free(vsock);
}

static void check_definition(const struct definition *d)
{
    char *text = definition_text(d, NULL), *text_again;
    struct definition again;

    check(!d->base || home_valid_name(d->base));
    check(!d->ssh_user || (*d->ssh_user && !strpbrk(d->ssh_user, " \t\n\"'\\%")));
    check(d->memory % 4096 == 0);
    check(d->disks.count <= DEFINITION_WORDS_MOST && d->nets.count <= DEFINITION_WORDS_MOST);
    check_words(d);
    check_vsock(d);
    if (!text) /* in quotes, it may be larger than it may be */
        return;
    check(definition_parse(text, strlen(text), "again", &again, NULL) == 0);
    text_again = definition_text(&again, NULL);
    check(text_again && strcmp(text, text_again) == 0);
    definition_free(&again);
    free(text_again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct definition d;
    struct error err = {0};

    if (definition_parse((const char *)data, size, "fuzz", &d, &err) == 0) {
        check_definition(&d);
        definition_free(&d);
    } else {
        check(err.code > 0 && *err.text && !strpbrk(err.text, "\n\033"));
        check(!d.kernel && d.disks.count == 0);
    }
    return 0;
}
