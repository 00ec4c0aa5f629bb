/*
 * What the actions of `doppel image` share: their words, and opening images for maintenance.
 */
#ifndef DOPPEL_CLI_IMAGE_H
#define DOPPEL_CLI_IMAGE_H

#include "base/error.h"
#include "blk/blk.h"
#include "blk/options.h"
#include "blk/qcow2/qcow2.h"
#include "cli/arguments.h"
#include "cli/cli.h"
#include "cli/json_text.h"

#include <stdbool.h>
#include <stddef.h>

/* The actions: argv[0] is the action's name. They return the exit status. */
int image_create(char **argv);
int image_info(char **argv);
int image_convert(char **argv);
int image_import(char **argv);
int image_check(char **argv);
int image_resize(char **argv);
int image_snapshot(char **argv);

/* Reads all arguments (arguments_read), and then what the words say of the image, whose format is
 * *FORMAT if a setting has led there. ARGUMENTS_GO_ON: *IMAGE is to be freed. */
int image_arguments_of_one(const struct arguments *command, const struct argument_setting *settings,
                           char **argv, struct argument_words *words, const char *const *format,
                           struct blk_options *image);

/* Prints what an error says. Returns STATUS_ERROR. */
int image_complain(const struct error *err);

/* Reads TEXT, a disk as `--disk` has it, whose format is FORMAT if that is not NULL. */
int image_parse(const char *text, const char *format, struct blk_options *options,
                struct error *err);

/* The same of a file that will be made: it has a format and no other settings. */
int image_parse_new(const char *text, const char *format, struct blk_options *options,
                    struct error *err);

/* Reads the name of a way to compress; complains if it is none. */
bool image_compression(const char *text, enum qcow2_compression *compression);
/* Reads the size of a cluster; complains if it is none. */
bool image_cluster_size(const char *text, unsigned *size);

/* For all images that an action opens: warnings go to standard error. */
extern const struct blk_host image_host;

/* Has what was written to BLK reach stable storage. NAME is for the message. */
int image_flush(struct blk *blk, const char *name, struct error *err);

/* Opens the bytes that OPTIONS name, whatever their format. */
struct blk *image_open_bytes(const struct blk_options *options, bool readonly, struct error *err);
/* Opens the qcow2 image that OPTIONS name, to work on the image itself: its backing file is not
 * looked at. DAMAGED: for a check, also one that is corrupt. */
struct blk *image_open_offline(const struct blk_options *options, bool readonly, bool damaged,
                               struct error *err);

/* SIZE as people read it: "8 GiB". */
void image_size_text(char *text, size_t room, uint64_t size);
/* A copy of TEXT without bytes that control a terminal or are no UTF-8; the caller frees it. NULL
 * if there is no memory. */
char *image_clean(const char *text);
/* A member NAME of an object, of which an image or a user says TEXT. */
void image_json_text(struct json_text *json, const char *name, const char *text);
/* NAME as the image PATH means it: relative to its folder. The caller frees it; NULL: no memory. */
char *image_beside(const char *path, const char *name);

#endif
