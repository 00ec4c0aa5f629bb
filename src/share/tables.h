/*
 * All that is known of what a guest knows of a shared folder: nodes, handles and locks. Nothing is
 * in flight.
 */
#ifndef DOPPEL_SHARE_TABLES_H
#define DOPPEL_SHARE_TABLES_H

#include "share/share_private.h"

/* Forgets it, and closes what the guest had open. */
void share_tables_reset(struct share *share);
/* As share_state, but that what was loaded is not open yet. */
void share_tables_state(struct share *share, struct state *s, uint32_t instance);
/* Opens what was loaded, and takes the locks. */
void share_tables_open(struct share *share);
/* Takes back what a process that has died in the midst of that has left: a mode that was to be
 * another one for a moment only. */
void share_tables_mend(struct share *share);

#endif
