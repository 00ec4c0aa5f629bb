/*
 * Requests that a folder's process was at when it died.
 */
#include "share/intent.h"

void share_begin(const struct share_request *r, const struct share_plan *plan)
{
    if (!r->intent)
        return;
    r->intent->plan = *plan;
    atomic_store_explicit(&r->intent->begun, 1, memory_order_release);
}

bool share_begun(const struct share_request *r, struct share_plan *plan)
{
    if (!r->again || !r->intent || !atomic_load_explicit(&r->intent->begun, memory_order_acquire))
        return false;
    *plan = r->intent->plan;
    return true;
}
