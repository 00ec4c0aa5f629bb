/*
 * The thread of a device in front of a back end: it connects, has the back end serve what driver
 * and device have agreed on, ends requests, and connects again.
 */
#include "dev/vhost/device_private.h"

#include "base/time.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#define BIT(N) (UINT64_C(1) << (N))

/* Features of the rings that are shared with the back end. */
#define RING_FEATURES (BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_INDIRECT_DESC))

/* How long the thread waits between attempts to connect, and how long a back end must have been
 * there for another attempt at once. One that comes only to go, again and again, would keep this
 * thread and the log busy. */
#define FIRST_RETRY_NS (50 * NS_PER_MS)
#define LAST_RETRY_NS  NS_PER_S
#define LASTING_NS     NS_PER_S

/* ---- The connection ---- */

int vhost_fetch_config(struct vhost_device *v, uint8_t *config, struct error *err)
{
    int ret = 0;

    if (!v->kind->fetches_config)
        memcpy(config, v->config, sizeof(v->config));
    else
        ret = vhost_get_config(&v->connection, config, v->kind->config_size, err);
    if (ret == 0 && v->kind->adapt_config)
        v->kind->adapt_config(config, v->queues);
    return ret;
}

/* Has the guest see this configuration. */
static void show_config(struct vhost_device *v, const uint8_t *config)
{
    bus_lock(v->device.host.bus);
    if (memcmp(config, v->config, v->kind->config_size) != 0) {
        memcpy(v->config, config, v->kind->config_size);
        virtio_config_changed(&v->device);
    }
    bus_unlock(v->device.host.bus);
}

static int update_config(struct vhost_device *v, struct error *err)
{
    uint8_t config[VIRTIO_CONFIG_MAX];
    int ret = vhost_fetch_config(v, config, err);

    if (ret == 0)
        show_config(v, config);
    return ret;
}

/* Has the guest see whether there is a back end. */
static void show_link(struct vhost_device *v, bool up)
{
    uint8_t config[VIRTIO_CONFIG_MAX];

    if (!v->kind->set_link)
        return;
    memcpy(config, v->config, sizeof(config)); /* which only this thread changes */
    v->kind->set_link(config, up);
    show_config(v, config);
}

/* Tells that the back end is gone, and logs why it does not come back, once for each reason. */
static void complain_once(struct vhost_device *v, const struct error *err)
{
    if (err->code == ECANCELED)
        return; /* the machine ends */
    if (!v->complained)
        log_tell(v->log, LOG_LEVEL_WARNING, "%s '%s': %s; its requests %s", v->kind->thing, v->path,
                 err->text,
                 v->kind->refuse ? "fail until there is a back end" : "wait for a back end");
    else if (v->complained != err->code)
        log_line(v->log, LOG_LEVEL_WARNING, "%s '%s': %s", v->kind->thing, v->path, err->text);
    v->complained = err->code;
}

/* Each time twice as much later than the last time, until a back end has lasted. */
static void retry_later(struct vhost_device *v)
{
    v->retry_after = MIN(MAX(2 * v->retry_after, FIRST_RETRY_NS), LAST_RETRY_NS);
    v->retry_at = time_now_ns() + v->retry_after;
}

static void lose(struct vhost_device *v, const struct error *err)
{
    complain_once(v, err);
    vhost_disconnect(&v->connection);
    v->connected = v->followed = v->serving = false;
    vhost_rings_forget(v, true);
    show_link(v, false);
    if (time_now_ns() - v->connected_at < LASTING_NS) {
        retry_later(v);
        return;
    }
    v->retry_after = 0;
    v->retry_at = time_now_ns();
}

/* Whether a back end that has come back is as good as the first one. */
static int check_offer(struct vhost_device *v, struct error *err)
{
    uint64_t needed = (v->device.features & v->kind->features) | BIT(VIRTIO_F_VERSION_1);

    if (needed & ~v->connection.features)
        return error_set(err, EPROTO,
                         "the back end that has come back lacks features (%#llx) that the guest "
                         "was offered",
                         (unsigned long long)(needed & ~v->connection.features));
    if (v->connection.queues * v->kind->queues_each < v->queues)
        return error_set(err, EPROTO, "the back end that has come back has %u queues, not %u",
                         v->connection.queues * v->kind->queues_each, v->queues);
    return update_config(v, err);
}

static void reconnect(struct vhost_device *v)
{
    struct error err = {0};

    if (time_now_ns() < v->retry_at)
        return;
    if (vhost_connect(&v->connection, v->path, v->end, &err) == 0) {
        if (check_offer(v, &err) == 0) {
            v->connected = true;
            v->connected_at = time_now_ns();
            return;
        }
        vhost_disconnect(&v->connection);
    }
    complain_once(v, &err);
    retry_later(v);
}

/* ---- Serving ---- */

static int tell_to_serve(struct vhost_device *v, uint64_t features, unsigned used,
                         struct error *err)
{
    uint64_t offered = v->connection.features;
    const struct vhost_service service = {
        .features =
            (features & v->kind->features) | BIT(VIRTIO_F_VERSION_1) | (offered & RING_FEATURES),
        .parts = v->part,
        .part_count = v->parts,
        .rings = v->rings,
        .queues = v->queues,
        .enabled = used,
        .files = v->files,
    };

    v->used_followed = used;
    return vhost_start(&v->connection, &service, err);
}

/* Has the back end serve the first USED queues. */
static int follow_use(struct vhost_device *v, unsigned used, struct error *err)
{
    unsigned before = v->used_followed;

    if (!v->serving || used == before)
        return 0;
    v->used_followed = used;
    return vhost_enable(&v->connection, MIN(before, used), MAX(before, used), used > before, err);
}

/* Lets requests in, unless the driver has reset the device meanwhile. */
static void open_queues(struct vhost_device *v, unsigned epoch)
{
    pthread_mutex_lock(&v->lock);
    for (unsigned i = 0; i < v->queues && v->epoch == epoch; i++) {
        pthread_mutex_lock(&v->queue[i].lock);
        v->queue[i].runs = true;
        v->queue[i].lost = false;
        pthread_mutex_unlock(&v->queue[i].lock);
    }
    pthread_mutex_unlock(&v->lock);
    for (unsigned i = 0; i < v->queues; i++)
        virtio_wake(&v->device, i);
}

/* Ends what is served, and has the back end serve what driver and device have agreed on. */
static int serve_anew(struct vhost_device *v, bool accepted, uint64_t features, unsigned used,
                      struct error *err)
{
    int ret = v->serving ? vhost_stop(&v->connection, v->queues, err) : 0;

    v->serving = false;
    vhost_rings_forget(v, false);
    if (ret < 0 || !accepted)
        return ret;
    ret = vhost_rings_make(v, err);
    if (ret == 0)
        ret = tell_to_serve(v, features, used, err);
    v->serving = ret == 0;
    return ret;
}

/* Has the back end do what is wanted now. */
static void follow(struct vhost_device *v)
{
    struct error err = {0};
    bool accepted;
    uint64_t features;
    unsigned epoch, used;

    pthread_mutex_lock(&v->lock);
    accepted = v->accepted && !v->recalled;
    features = v->features;
    epoch = v->epoch;
    used = v->used;
    pthread_mutex_unlock(&v->lock);
    if (v->followed && epoch == v->epoch_followed) {
        if (follow_use(v, used, &err) < 0)
            lose(v, &err);
        return;
    }
    if (serve_anew(v, accepted, features, used, &err) < 0) {
        lose(v, &err);
        return;
    }
    v->followed = true;
    v->epoch_followed = epoch;
    if (v->complained)
        log_tell(v->log, LOG_LEVEL_INFO, "%s '%s': the back end is there again", v->kind->thing,
                 v->path);
    v->complained = 0;
    show_link(v, true);
    if (v->serving)
        open_queues(v, epoch);
}

/* ---- The thread ---- */

/* A pause or a reset takes the buffers that a back end may keep, and the end of it gives them back.
 */
static void look_at_recall(struct vhost_device *v)
{
    bool recalled = v->kind->keeps_buffers && virtio_recalled(&v->device);

    v->followed &= recalled == v->recalled;
    v->recalled = recalled;
}

/* Gives up a back end that keeps a pause or a reset waiting. */
static void watch_drain(struct vhost_device *v)
{
    struct error err = {0};

    if (vhost_drain_look(&v->drain, virtio_recalled(&v->device), vhost_rings_out(v), time_now_ns()))
        return;
    error_set(&err, ETIMEDOUT, "the back end ends requests too slowly for a machine that waits");
    lose(v, &err);
    v->drain = (struct vhost_drain){.round_ends = 0};
}

static int time_left_ms(const struct vhost_device *v)
{
    uint64_t now = time_now_ns(), at = vhost_drain_next(&v->drain);

    if (!v->connected)
        at = MIN(at, v->retry_at);
    if (at == UINT64_MAX)
        return -1;
    return at > now ? (int)((at - now) / NS_PER_MS) + 1 : 0;
}

/* Ends what the back end has given back. One that has come to its end may still call. */
static int look_at_calls(struct vhost_device *v, const struct pollfd *calls)
{
    int ret = 0;

    for (unsigned i = 0; i < v->queues; i++) {
        int got;

        if (!calls[i].revents)
            continue;
        event_clear(v->files[i].call);
        got = v->serving && ret == 0 ? vhost_rings_end(v, i) : 0;
        if (got > 0) /* the rest is the next turn's */
            event_signal(&v->sender, v->files[i].call);
        ret = MIN(ret, got);
    }
    return ret;
}

/* Looks at what the back end has done and said. */
static void look(struct vhost_device *v, const struct pollfd *socket, const struct pollfd *calls)
{
    struct error err = {0};
    bool config_changed = false;
    int ret = look_at_calls(v, calls);

    if (ret == 0 && v->connected && (socket[0].revents || socket[1].revents))
        ret = vhost_look(&v->connection, &config_changed);
    if (ret == -EPROTO)
        error_set(&err, EPROTO, "the back end breaks the vhost-user protocol");
    else if (ret < 0)
        error_set(&err, -ret, "the back end is gone (%s)", strerror(-ret));
    else if (config_changed)
        ret = update_config(v, &err);
    if (ret < 0)
        lose(v, &err);
}

void *vhost_device_run(void *opaque)
{
    struct vhost_device *v = opaque;
    struct pollfd pfd[4 + VIRTIO_QUEUES_MAX] = {{0}};

    where_begin(&v->where);
    while (!pfd[0].revents) {
        if (!v->connected)
            reconnect(v);
        look_at_recall(v);
        if (v->connected)
            follow(v);
        watch_drain(v);
        /* What came when the pause was over, and before its queue was stopped, waits. */
        if (v->recalled && !virtio_recalled(&v->device))
            continue;
        /* Negative numbers are not looked at. */
        pfd[0] = (struct pollfd){v->end, POLLIN, 0};
        pfd[1] = (struct pollfd){v->wake, POLLIN, 0};
        pfd[2] = (struct pollfd){v->connection.socket, POLLIN, 0};
        pfd[3] = (struct pollfd){v->connection.backend, POLLIN, 0};
        for (unsigned i = 0; i < v->queues; i++)
            pfd[4 + i] = (struct pollfd){v->files[i].call, POLLIN, 0};
        if (poll(pfd, 4 + v->queues, time_left_ms(v)) < 0)
            continue;
        if (pfd[1].revents)
            event_clear(v->wake);
        look(v, &pfd[2], &pfd[4]);
    }
    where_end(&v->where);
    return NULL;
}
