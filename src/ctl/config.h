/*
 * A program's configuration, checked.
 */
#ifndef DOPPEL_CTL_CONFIG_H
#define DOPPEL_CTL_CONFIG_H

#include "base/error.h"
#include "ctl/doppel.h"

/* Takes FROM, of SIZE bytes, in this library's size, and checks what can be checked without looking
 * at files. */
int config_take(struct doppel_config *config, const struct doppel_config *from, size_t size,
                struct error *err);

#endif
