/*
 * The end of what a guest knows of a shared folder.
 */
#include "share/lock.h"
#include "share/tables.h"

void share_tables_reset(struct share *s)
{
    atomic_store(&s->ready, false);
    share_handles_release(s);
    share_holders_release(s);
    share_nodes_forget(s);
}
