/*
 * The definition of a named virtual machine: what `doppel run NAME` starts with, as a YAML file
 * (machine.yaml in the machine's folder, ctl/registry.h).
 *
 *      version: 1                  the first line
 *      kernel: vmlinuz             as --kernel; without one, the default guest's
 *      initrd: initrd.img          as --initrd: '' is none
 *      append: root=/dev/vda rw
 *      memory: 2G
 *      cpus: 2
 *      disks:                      as --disk, one word each
 *        - disk.qcow2
 *      nets:                       as --net
 *        - user,forward=8080:80
 *      shares:                     as --share
 *        - /srv/src:/src:ro
 *      devices:                    as --device
 *        - balloon
 *      restart: on-failure         as --restart of doppel start
 *      vsock: cid=5                as --vsock; none: no such device
 *      mac: 52:54:00:12:34:56      of the first network card; the next ones count on from it
 *      base: debian-bookworm       the base image that the disks need
 *      ssh:
 *        user: me                  who `doppel ssh` logs in as
 *        key: /etc/keys/web        with which key; else doppel's own
 *        port: 2222                over which port of 127.0.0.1; else over vsock
 *
 * Names of files may be relative to the machine's folder in kernel, initrd, disks and key. What the
 * words of disks, nets, shares, devices and vsock mean is known to those who read the same words on
 * the command line; here they are text. Anchors, aliases, tags and unknown keys are refused, and so
 * is what is larger than the limits below.
 */
#ifndef DOPPEL_CTL_DEFINITION_H
#define DOPPEL_CTL_DEFINITION_H

#include "base/error.h"
#include "ctl/home.h"

#include <stdint.h>

#define DEFINITION_VERSION      1
#define DEFINITION_FILE         "machine.yaml"
#define DEFINITION_MOST         (64 * 1024) /* bytes of the file */
#define DEFINITION_TEXT_MOST    4096        /* bytes of a value */
#define DEFINITION_WORDS_MOST   64          /* in a list */
#define DEFINITION_USER_MOST    64          /* bytes of a user's name */
#define DEFINITION_DEFAULT_USER "root"

/* Texts, each allocated. */
struct definition_words {
    char *word[DEFINITION_WORDS_MOST];
    unsigned count;
};

/* Each text is allocated, of printable UTF-8, and NULL if the file does not have it. */
struct definition {
    char *kernel, *initrd, *append;
    uint64_t memory; /* bytes; 0: not said */
    unsigned cpus;   /* 0: not said */
    struct definition_words disks, nets, shares, devices;
    char *restart;
    char *vsock;
    char *mac;      /* six pairs of hexadecimal digits with colons, of one card (not of a group) */
    char *base;     /* a name (home_valid_name) */
    char *ssh_user; /* letters, digits and "_.@+-", not beginning with "-" */
    char *ssh_key;
    unsigned ssh_port; /* 0: not said */
};

/* Reads the SIZE bytes of TEXT, which FILE holds (for messages). On failure *DEFINITION is empty
 * and needs no freeing. */
int definition_parse(const char *text, size_t size, const char *file, struct definition *definition,
                     struct error *err);
/* Reads FILE. -ENOENT: there is none. */
int definition_load(const char *file, struct definition *definition, struct error *err);
/* Frees what *DEFINITION holds, and clears it. */
void definition_free(struct definition *definition);

/* Copies TEXT, or WORD to the end of the list. */
int definition_set(char **member, const char *text, struct error *err);
int definition_add(struct definition_words *words, const char *word, struct error *err);

/* Returns the text of *DEFINITION, which definition_parse reads as the same definition. The caller
 * frees it. NULL: a member cannot be written, because it is too large or no text. */
char *definition_text(const struct definition *definition, struct error *err);
/* Writes it to FILE, which is replaced in whole or not at all. */
int definition_save(const struct definition *definition, const char *file, struct error *err);

/* Sets MAC to the address of network card CARD (from 0) of the machine NAME: counted from the
 * definition's, or made of the name, the user and the host, so that it is the same in each run. */
void definition_mac(const struct definition *definition, const char *name, unsigned card,
                    uint8_t mac[6]);

/* Returns WORD, of network card CARD of the machine NAME, with the card's address if WORD says none
 * behind its first comma. The caller frees it; NULL: no memory. */
char *definition_net(const struct definition *definition, const char *name, const char *word,
                     unsigned card);

/* Whether the machine has a vsock device. */
bool definition_has_vsock(const struct definition *definition);
/* Returns the words of its vsock device, with the path SOCKET if they name none. The caller frees
 * them; NULL: no memory. */
char *definition_vsock(const struct definition *definition, const char *socket);

/* Returns NAME, a file's, as the definition in FOLDER means it. The caller frees it; NULL: no
 * memory. */
char *definition_path(const char *folder, const char *name);
/* The same of WORD, a disk's: of its file and its backing file. */
char *definition_disk(const char *folder, const char *word);

#endif
