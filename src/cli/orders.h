/*
 * What the supervisor has the VM process do to its machine at somebody's request (ctl/control.h): a
 * thread of the VM process that waits for work, does one after the other, and tells what happens to
 * the machine meanwhile. What it does may take as long as the machine takes for it; the console and
 * the attendant go on.
 */
#ifndef DOPPEL_CLI_ORDERS_H
#define DOPPEL_CLI_ORDERS_H

#include "base/error.h"
#include "cli/channel.h"
#include "ctl/doppel.h"

struct orders;

/* VM exists, and has not been started. Both live longer. */
struct orders *orders_begin(struct doppel_vm *vm, const struct channel *channel, struct error *err);
/* VM has been stopped. Tells the last events. NULL is allowed. */
void orders_end(struct orders *orders);

#endif
