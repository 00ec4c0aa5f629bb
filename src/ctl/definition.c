/*
 * Definitions in memory, and what their words mean.
 */
#include "ctl/definition.h"

#include "base/field.h"
#include "base/util.h"
#include "blk/options.h"
#include "ctl/definition_fields.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIELD(name, type, member) {name, type, offsetof(struct definition, member), NULL}

static const struct definition_field ssh_fields[] = {
    FIELD("user", DEFINITION_USER, ssh_user),
    FIELD("key", DEFINITION_TEXT, ssh_key),
    FIELD("port", DEFINITION_PORT, ssh_port),
    {NULL, DEFINITION_TEXT, 0, NULL},
};

const struct definition_field definition_fields[] = {
    FIELD("kernel", DEFINITION_TEXT, kernel),
    FIELD("initrd", DEFINITION_TEXT, initrd),
    FIELD("append", DEFINITION_TEXT, append),
    FIELD("memory", DEFINITION_MEMORY, memory),
    FIELD("cpus", DEFINITION_CPUS, cpus),
    FIELD("disks", DEFINITION_WORDS, disks),
    FIELD("nets", DEFINITION_WORDS, nets),
    FIELD("shares", DEFINITION_WORDS, shares),
    FIELD("devices", DEFINITION_WORDS, devices),
    FIELD("restart", DEFINITION_RESTART, restart),
    FIELD("vsock", DEFINITION_TEXT, vsock),
    FIELD("mac", DEFINITION_MAC, mac),
    FIELD("base", DEFINITION_NAME, base),
    {"ssh", DEFINITION_GROUP, 0, ssh_fields},
    {NULL, DEFINITION_TEXT, 0, NULL},
};

static void free_words(struct definition_words *words)
{
    while (words->count > 0)
        free(words->word[--words->count]);
}

void definition_free(struct definition *d)
{
    char *texts[] = {d->kernel, d->initrd, d->append,   d->restart, d->vsock,
                     d->mac,    d->base,   d->ssh_user, d->ssh_key};

    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++)
        free(texts[i]);
    free_words(&d->disks);
    free_words(&d->nets);
    free_words(&d->shares);
    free_words(&d->devices);
    *d = (struct definition){0};
}

int definition_set(char **member, const char *text, struct error *err)
{
    char *copy = strdup(text);

    if (!copy)
        return error_set(err, ENOMEM, "out of memory");
    free(*member);
    *member = copy;
    return 0;
}

int definition_add(struct definition_words *words, const char *word, struct error *err)
{
    char *copy = NULL;
    int ret;

    if (words->count == DEFINITION_WORDS_MOST)
        return error_set(err, E2BIG, "more than %d in a list", DEFINITION_WORDS_MOST);
    ret = definition_set(&copy, word, err);
    if (!ret)
        words->word[words->count++] = copy;
    return ret;
}

/* Where the setting behind the one at AT begins, or the end. */
static const char *next_setting(const char *at)
{
    at = field_end(at);
    return *at ? at + 1 : at;
}

/* Whether SETTINGS, separated by commas that stand alone, have one that begins with KEY ("mac=").
 */
static bool has_setting(const char *settings, const char *key)
{
    for (; *settings; settings = next_setting(settings))
        if (!strncmp(settings, key, strlen(key)))
            return true;
    return false;
}

/* Writes TEXT to TO, with COMMAS for each comma. Returns where it ends. */
static char *put_commas(char *to, const char *text, const char *commas)
{
    for (; *text; text++)
        to = *text == ',' ? stpcpy(to, commas) : (*to = *text, to + 1);
    *to = '\0';
    return to;
}

/* ---- Network cards ---- */

bool definition_parse_mac(const char *text, uint8_t mac[6])
{
    /* IEEE 802, 8.2: that bit is set in the addresses of groups. */
    return field_mac(text, mac) && !(mac[0] & 1);
}

/* FNV-1a. */
static uint64_t hash(uint64_t value, const char *text)
{
    for (; *text; text++)
        value = (value ^ (uint8_t)*text) * 0x100000001b3;
    return value;
}

/* An address that depends on the machine's NAME, on the user, and on the host if that says what it
 * is called. */
static void made_up_mac(const char *name, uint8_t mac[6])
{
    char text[128] = "";
    uint64_t value = hash(0xcbf29ce484222325, name);

    gethostname(text, sizeof(text) - 1);
    value = hash(value, text);
    snprintf(text, sizeof(text), "/%u", (unsigned)geteuid());
    value = hash(value, text);
    value ^= value >> 32;
    mac[0] = 0x52; /* locally administered: 52:54:00, which QEMU has made known for guests */
    mac[1] = 0x54;
    mac[2] = 0x00;
    mac[3] = (uint8_t)(value >> 16);
    mac[4] = (uint8_t)(value >> 8);
    mac[5] = (uint8_t)value;
}

void definition_mac(const struct definition *definition, const char *name, unsigned card,
                    uint8_t mac[6])
{
    uint32_t low;

    if (!definition->mac || !definition_parse_mac(definition->mac, mac))
        made_up_mac(name, mac);
    low = ((uint32_t)mac[3] << 16 | (uint32_t)mac[4] << 8 | mac[5]) + card;
    mac[3] = (uint8_t)(low >> 16);
    mac[4] = (uint8_t)(low >> 8);
    mac[5] = (uint8_t)low;
}

char *definition_net(const struct definition *definition, const char *name, const char *word,
                     unsigned card)
{
    uint8_t mac[6];
    char *net;

    if (has_setting(next_setting(word), "mac="))
        return strdup(word);
    definition_mac(definition, name, card, mac);
    return asprintf(&net, "%s,mac=%02x:%02x:%02x:%02x:%02x:%02x", word, mac[0], mac[1], mac[2],
                    mac[3], mac[4], mac[5]) < 0
               ? NULL
               : net;
}

/* ---- Sockets ---- */

bool definition_has_vsock(const struct definition *definition)
{
    return !definition->vsock || strcmp(definition->vsock, "none") != 0;
}

char *definition_vsock(const struct definition *definition, const char *socket)
{
    const char *settings = definition->vsock ? definition->vsock : "";
    char *word = malloc(strlen(settings) + 2 * strlen(socket) + sizeof(",socket="));

    if (!word)
        return NULL;
    strcpy(word, settings);
    if (!has_setting(settings, "socket=")) {
        strcat(word, *settings ? ",socket=" : "socket=");
        put_commas(word + strlen(word), socket, ",,");
    }
    return word;
}

/* ---- Names of files ---- */

char *definition_path(const char *folder, const char *name)
{
    char *path;

    if (*name == '/')
        return strdup(name);
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

/* Puts FOLDER with COMMAS for each comma, and a slash, in front of what is at AT in *WORD. */
static bool insert_folder(char **word, size_t at, const char *folder, const char *commas)
{
    size_t room = strlen(*word) + strlen(folder) * strlen(commas) + 2;
    char *longer = malloc(room), *to;

    if (!longer)
        return false;
    memcpy(longer, *word, at);
    to = put_commas(longer + at, folder, commas);
    *to++ = '/';
    stpcpy(to, *word + at);
    free(*word);
    *word = longer;
    return true;
}

/* Whether what is at AT is the name of a file, and relative. */
static bool is_relative(const char *at)
{
    struct blk_options options;
    char head[64]; /* enough to tell a file from a server */
    bool is_file;

    snprintf(head, sizeof(head), "file=%.*s", MIN((int)strcspn(at, ","), 48), at);
    if (*at == '/' || blk_options_parse(head, &options, NULL) < 0)
        return false;
    is_file = options.source == BLK_FILE;
    blk_options_free(&options);
    return is_file;
}

char *definition_disk(const char *folder, const char *word)
{
    char *path = strdup(word);
    bool ok = path != NULL;

    for (const char *setting = next_setting(word); ok && *setting;
         setting = next_setting(setting)) {
        size_t at = (size_t)(setting - word) + strlen("backing=");

        if (strncmp(setting, "backing=", strlen("backing=")) != 0 || !is_relative(word + at))
            continue;
        ok = insert_folder(&path, at, folder, ",,,,");
        break; /* it is there once; what comes in front of it has not moved */
    }
    if (ok && is_relative(word))
        ok = insert_folder(&path, 0, folder, ",,");
    if (ok)
        return path;
    free(path);
    return NULL;
}
