/*
 * How the snapshots of an image are shown.
 */
#ifndef DOPPEL_CLI_SNAPSHOTS_H
#define DOPPEL_CLI_SNAPSHOTS_H

#include "blk/qcow2/qcow2.h"
#include "cli/json_text.h"

/* As a table on standard output; nothing if there are none. */
void snapshots_print(const struct qcow2_snapshot *list, unsigned count);
/* As a member "snapshots" of an object. */
void snapshots_json(struct json_text *json, const struct qcow2_snapshot *list, unsigned count);

#endif
