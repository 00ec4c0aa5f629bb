/*
 * Disks that an NBD server has.
 *
 * One thread has the connection to itself. Of the requests that have come to it (inbox.h), up to 32
 * are at the server at once, each with one piece of at most 512 KiB on its way.
 *
 * A server that has closed the connection, or that has not answered for some time, is gone: all
 * requests fail with -EIO, those in flight and all later ones, and the log has one line. There is
 * no second connection: what a server had acknowledged and not yet flushed may be lost with it, and
 * the guest must learn of that.
 */
#ifndef DOPPEL_BLK_NBD_NBD_H
#define DOPPEL_BLK_NBD_NBD_H

#include "blk/driver.h"
#include "blk/options.h"

struct blk *nbd_open(const struct blk_options *options, const struct blk_host *host,
                     struct error *err);

#endif
