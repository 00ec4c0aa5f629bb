/*
 * qemu-img, as a second opinion on what is in an image.
 */
#ifndef DOPPEL_TESTS_BLK_PEER_H
#define DOPPEL_TESTS_BLK_PEER_H

#include <stdbool.h>
#include <stdint.h>

/* The name by which an image's header names its backing file: peers see the descriptor BACKING
 * there. */
#define PEER_BACKING "/dev/fd/900"

/* A file without a name that holds SIZE bytes of DATA. */
int peer_file(const void *data, uint64_t size);

/* Has `qemu-img check` look at the qcow2 image in the descriptor IMAGE. BACKING is a raw file, or
 * -1. Returns its exit status: 0 good, 2 errors, 3 leaks. What it says of errors comes to standard
 * error. */
int peer_check(int image, int backing);
/* Whether `qemu-img compare` finds SIZE bytes of DATA in the qcow2 image. */
bool peer_compare(int image, int backing, const void *data, uint64_t size);

#endif
