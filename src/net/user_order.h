/*
 * How much libslirp has to keep of TCP's segments that come out of order. Private to user*.c.
 *
 * libslirp keeps each such segment, however small, in a buffer for a whole frame, and bounds their
 * number only by the bytes of its window: 65,535. So a guest could have it take a GiB for each
 * connection. This gate lets only so many segments of a connection in that libslirp has not
 * acknowledged. The next one in order always enters, so no connection stands still; what does not
 * enter is lost, as on a network that is overloaded, and is sent again.
 *
 * Only what libslirp says itself is believed, since the guest can say anything: a connection that
 * libslirp has begun (SYN) has nothing out of order, and what it acknowledges it does not keep. Of
 * one that was forgotten here libslirp may keep something: instead of its first segment a probe
 * enters, an empty one of long ago, which libslirp answers by what it expects; then only what comes
 * in order enters, until a whole window has passed.
 *
 * With libslirp's lock.
 */
#ifndef DOPPEL_NET_USER_ORDER_H
#define DOPPEL_NET_USER_ORDER_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Segments of a connection that libslirp has and has not acknowledged, at most: a window of TCP in
 * segments for Ethernet, and some more. */
#define USER_ORDER_MOST 64u

struct user_order;

struct user_order *user_order_create(struct error *err);
void user_order_free(struct user_order *order); /* NULL is allowed */

/* Whether a frame of the guest's may enter; it does so then. It may have become a probe of another
 * SIZE. */
bool user_order_enter(struct user_order *order, uint8_t *frame, size_t *size);
/* libslirp has sent this frame. */
void user_order_answer(struct user_order *order, const uint8_t *frame, size_t size);

#endif
