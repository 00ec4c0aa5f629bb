/*
 * The event loop: one thread that waits on file descriptors and calls back.
 */
#ifndef DOPPEL_BASE_LOOP_H
#define DOPPEL_BASE_LOOP_H

#include "base/error.h"

#include <stdint.h>

struct loop;
struct loop_watch;
struct where;

/* EVENTS is what epoll(7) reported (EPOLLIN, ...). */
typedef void loop_cb(void *opaque, uint32_t events);

struct loop *loop_create(struct error *err);
void loop_destroy(struct loop *loop); /* stops it first */

/* Starts and stops the thread. Callbacks run on that thread only. Stop waits for a callback in
 * progress and must not be called from one. */
int loop_start(struct loop *loop, struct error *err);
void loop_stop(struct loop *loop);

/* For asking where the thread is (where.h). */
struct where *loop_where(struct loop *loop);

/* Watches FD (not owned) for EVENTS; callable from any thread. NULL on failure. */
struct loop_watch *loop_add(struct loop *loop, int fd, uint32_t events, loop_cb *cb, void *opaque,
                            struct error *err);
/* 0 events: paused. */
int loop_modify(struct loop_watch *watch, uint32_t events);
/* After this returns the callback is not running and is not called again; from within a callback
 * a watch may remove itself. */
void loop_remove(struct loop_watch *watch);

#endif
