/*
 * Open Virtualization Archives (DMTF's DSP0243): tar archives with a description and disks.
 */
#ifndef DOPPEL_IMAGE_OVA_H
#define DOPPEL_IMAGE_OVA_H

#include "base/error.h"

/* Writes the one disk in the archive FD, a .vmdk file, to the empty file OUT. NAME is for messages.
 * An archive with no disk, or with several, is refused. */
int ova_extract(int fd, const char *name, int out, struct error *err);

#endif
