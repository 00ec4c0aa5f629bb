/*
 * What can be changed of a network while it runs: shaping and the capture.
 */
#include "net/capture.h"
#include "net/driver.h"
#include "net/shaper.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Shaping ---- */

static bool send_from_shaper(void *opaque, uint8_t *data, size_t size,
                             const struct net_offload *offload)
{
    struct net *net = opaque;

    return net_send_finished(net, &net->shaped, data, size, *offload);
}

static void flush_from_shaper(void *opaque)
{
    net_flush(opaque);
}

static void ready_from_shaper(void *opaque)
{
    net_tell_card(opaque);
}

/* The shaper, which is made when it is needed for the first time. */
static struct shaper *need_shaper(struct net *net, struct error *err)
{
    const struct shaper_exit way_out = {.send = send_from_shaper,
                                        .flush = flush_from_shaper,
                                        .ready = ready_from_shaper,
                                        .opaque = net};
    struct shaper *shaper = atomic_load(&net->shaper);

    if (!shaper) {
        shaper = shaper_create(&way_out, err);
        atomic_store(&net->shaper, shaper);
    }
    return shaper;
}

static bool shapes(const struct net_shape *shape)
{
    return shape->delay || shape->jitter || shape->loss || shape->rate;
}

static int set_shape(struct net *net, const struct net_shape *shape, struct error *err)
{
    struct shaper *shaper = atomic_load(&net->shaper);

    if (!shaper && !shapes(shape))
        return 0;
    shaper = need_shaper(net, err);
    if (!shaper)
        return -ENOMEM;
    shaper_set(shaper, shape);
    net_tell_card(net); /* what an old rate held up may go */
    return 0;
}

/* ---- The capture ---- */

void net_capture(struct net *net, const struct iovec *iov, unsigned iovs, size_t size)
{
    pthread_mutex_lock(&net->capture_lock);
    if (net->capture)
        capture_frame(net->capture, iov, iovs, size);
    pthread_mutex_unlock(&net->capture_lock);
}

/* Ends the capture there is, and goes on with CAPTURE, which may be NULL. */
static void set_capture(struct net *net, struct capture *capture)
{
    struct capture *before;

    pthread_mutex_lock(&net->capture_lock);
    before = net->capture;
    net->capture = capture;
    pthread_mutex_unlock(&net->capture_lock);
    atomic_store(&net->captures, capture != NULL);
    capture_destroy(before);
}

/* ---- Both ---- */

/* CAPTURE NULL: it stays. Empty: it ends. What fails is done first. */
static int set_both(struct net *net, const struct net_shape *shape, const char *capture,
                    struct error *err)
{
    struct capture *made = NULL;

    if (capture && *capture) {
        made = capture_create(capture, net->host->log, err);
        if (!made)
            return -EIO;
    }
    if (set_shape(net, shape, err) < 0) {
        capture_destroy(made);
        return -ENOMEM;
    }
    if (capture)
        set_capture(net, made);
    return 0;
}

int net_set_up_settings(struct net *net, const struct net_options *options, struct error *err)
{
    return set_both(net, &options->shape, options->capture, err);
}

int net_change(struct net *net, const char *text, struct error *err)
{
    struct shaper *shaper = atomic_load(&net->shaper);
    struct net_shape shape = {0};
    char *capture = NULL;
    int ret;

    if (shaper)
        shape = shaper_get(shaper);
    ret = net_options_change(text, &shape, &capture, err);
    if (ret == 0)
        ret = set_both(net, &shape, capture, err);
    free(capture);
    return ret;
}

void net_stop_settings(struct net *net)
{
    shaper_stop(atomic_load(&net->shaper));
}

void net_free_settings(struct net *net)
{
    shaper_free(atomic_load(&net->shaper));
    set_capture(net, NULL);
}
