/*
 * Base images that no machine needs.
 */
#ifndef DOPPEL_CLI_BASE_IMAGE_SWEEP_H
#define DOPPEL_CLI_BASE_IMAGE_SWEEP_H

#include "base/error.h"

#include <stdbool.h>

/* Removes the base images that no definition names and nobody has taken, and what killed processes
 * have left of others, and tells SWEPT of each path. With DRY it only tells. Fails without having
 * removed a base image if a definition cannot be read: it may name any. */
int base_image_sweep(bool dry, void (*swept)(void *opaque, const char *path), void *opaque,
                     struct error *err);

#endif
