/*
 * What a guest knows and has open of an isolated folder, as the process that uses the folder knows
 * it from notes (notes.h): a share without a folder, whose nodes and handles have no descriptors.
 * It is saved like any other, and with what was saved the next process of the folder goes on.
 *
 * One thread at a time.
 */
#ifndef DOPPEL_SHARE_MIRROR_H
#define DOPPEL_SHARE_MIRROR_H

#include "share/notes.h"

/* Makes SHARE, which is zero but for its options, lock and handles, a mirror. 0 or -ENOMEM. */
int share_mirror_init(struct share *share);
/* Follows a note that is neither a result nor DONE. 0; -EPROTO: it cannot be. -ENOMEM. */
int share_mirror_note(struct share *share, const struct share_note *note);
/* Follows the changes of SIZE bytes that came with a result. */
int share_mirror_change(struct share *share, const uint8_t *changes, size_t size);

#endif
