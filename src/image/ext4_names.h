/*
 * The names in a file system that is built: a tree in memory, with a table to find them in.
 */
#ifndef DOPPEL_IMAGE_EXT4_NAMES_H
#define DOPPEL_IMAGE_EXT4_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct node {
    struct node *parent;          /* of the root directory: itself */
    struct node *first, *last;    /* a directory: what is in it, */
    struct node *next, *previous; /* in the order in which it came */
    struct node *chain;           /* the next one in the table's bucket */
    char *target;                 /* a symbolic link: where to */
    uint32_t ino;
    unsigned children, folders; /* a directory: how many; how many of these are directories */
    uint8_t type;               /* EXT2_FT_... */
    uint8_t length;
    char name[]; /* without a NUL */
};

struct names;

/* With a root directory. NULL: no memory. */
struct names *names_create(uint32_t root_ino);
void names_free(struct names *names);

struct node *names_root(struct names *names);
uint64_t names_count(const struct names *names);

/* LENGTH is 1 to 255. */
struct node *names_find(struct names *names, const struct node *folder, const char *name,
                        size_t length);
/* FOLDER has no such name. NULL: no memory, or the names would take more than 1 GiB. TARGET is
 * copied. */
struct node *names_add(struct names *names, struct node *folder, const char *name, size_t length,
                       uint8_t type, uint32_t ino, const char *target);
/* Nothing is in it any more. */
void names_remove(struct names *names, struct node *node);

/* The first directory of all, or the one that follows NODE, each behind the one that it is in;
 * NULL: there are no more. */
struct node *names_next_folder(struct names *names, struct node *node);

#endif
