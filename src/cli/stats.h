/*
 * What `doppel run --stats` prints.
 */
#ifndef DOPPEL_CLI_STATS_H
#define DOPPEL_CLI_STATS_H

#include "ctl/doppel.h"

#include <stdbool.h>

/* To standard error. BOOT_MS: from the start until the guest answered; negative when it never did
 * or was not expected to. */
void stats_print(const struct doppel_stats *stats, long long boot_ms, bool json);

#endif
