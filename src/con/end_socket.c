/*
 * The host end that is a Unix socket, which serves one client at a time.
 *
 *      listening --accept--> connected --everything read, and the client gone--> listening
 *
 * Others wait in the socket's backlog meanwhile. What a client has sent before it went is read
 * first, however long the guest takes for it. Clients come and go on the loop's thread only.
 */
#include "base/unix_socket.h"
#include "base/util.h"
#include "con/end_private.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 8

struct sock {
    struct con_end end;
    struct loop *loop;
    char *path;
    int listener, spare; /* SPARE: see unix_socket_accept */
    struct loop_watch *listener_watch;
    struct loop_job job; /* ends a connection that reading or writing has found broken */

    pthread_mutex_t lock; /* guards the rest; only the loop's is taken with it held */
    int client;           /* -1: nobody is there */
    struct loop_watch *watch;
    uint32_t wanted; /* EPOLLIN: reading found nothing; EPOLLOUT: writing found no room */
    bool input_ended;
    bool hung; /* the client has gone, but for what it has sent */
    bool broken;
    bool closing;        /* nobody is taken in any more */
    bool inside;         /* the loop is in on_client(), which may have removed its own watch */
    pthread_cond_t left; /* it is no longer */
};

static struct sock *sock_of(struct con_end *end)
{
    return container_of(end, struct sock, end);
}

/* ---- Reading and writing ---- */

/* Has the loop watch for EVENTS, too. With the lock. */
static void want(struct sock *s, uint32_t events)
{
    s->wanted |= events;
    if (s->watch && !s->hung)
        loop_modify(s->watch, s->wanted | EPOLLHUP);
}

/* The connection is over. With the lock. */
static void give_up(struct sock *s)
{
    s->broken = true;
    loop_post(s->loop, &s->job);
}

static bool later(int error)
{
    return error == EAGAIN || error == EINTR;
}

static size_t sock_read(struct con_end *end, void *data, size_t size)
{
    struct sock *s = sock_of(end);
    ssize_t n = 0;

    pthread_mutex_lock(&s->lock);
    if (s->client >= 0 && !s->broken && !s->input_ended) {
        n = recv(s->client, data, size, MSG_DONTWAIT);
        if (n < 0 && later(errno))
            want(s, EPOLLIN);
        else if (n == 0 && !s->hung)
            s->input_ended = true; /* and it may still listen */
        else if (n <= 0)
            give_up(s);
    }
    pthread_mutex_unlock(&s->lock);
    return n > 0 ? (size_t)n : 0;
}

static size_t sock_write(struct con_end *end, const void *data, size_t size)
{
    struct sock *s = sock_of(end);
    size_t done = size;

    pthread_mutex_lock(&s->lock);
    if (s->client >= 0 && !s->broken && !s->hung) {
        ssize_t n = send(s->client, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n >= 0 || later(errno))
            done = n > 0 ? (size_t)n : 0;
        else
            give_up(s);
        if (done < size)
            want(s, EPOLLOUT);
    }
    pthread_mutex_unlock(&s->lock);
    return done;
}

static bool sock_connected(struct con_end *end)
{
    struct sock *s = sock_of(end);
    bool connected;

    pthread_mutex_lock(&s->lock);
    connected = s->client >= 0;
    pthread_mutex_unlock(&s->lock);
    return connected;
}

/* ---- Clients: on the loop's thread ---- */

static void ready(struct sock *s)
{
    s->end.events.ready(s->end.events.opaque);
}

static void disconnect(struct sock *s)
{
    struct loop_watch *watch;
    int client;

    pthread_mutex_lock(&s->lock);
    if (s->closing || s->client < 0) { /* the client is sock_close's then */
        pthread_mutex_unlock(&s->lock);
        return;
    }
    watch = s->watch;
    client = s->client;
    s->watch = NULL;
    s->client = -1;
    s->broken = false;
    pthread_mutex_unlock(&s->lock);
    loop_remove(watch);
    close(client);
    loop_modify(s->listener_watch, EPOLLIN);
    s->end.events.connected(s->end.events.opaque, false);
    ready(s); /* what waits to be written is dropped */
}

static void run_job(void *opaque)
{
    struct sock *s = opaque;
    bool broken;

    pthread_mutex_lock(&s->lock);
    broken = s->broken;
    pthread_mutex_unlock(&s->lock);
    if (broken)
        disconnect(s);
}

/* Whether the client has sent something that was not read. */
static bool anything_left(const struct sock *s)
{
    char byte;

    return recv(s->client, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static void on_client(void *opaque, uint32_t events)
{
    struct sock *s = opaque;
    bool over;

    pthread_mutex_lock(&s->lock);
    s->inside = true;
    s->wanted &= ~events;
    s->hung |= (events & (EPOLLHUP | EPOLLERR)) != 0;
    over = s->hung && (s->input_ended || !anything_left(s));
    if (s->watch)
        loop_modify(s->watch, s->hung ? 0 : s->wanted | EPOLLHUP);
    pthread_mutex_unlock(&s->lock);
    if (over)
        disconnect(s);
    else
        ready(s);
    pthread_mutex_lock(&s->lock);
    s->inside = false;
    pthread_cond_signal(&s->left);
    pthread_mutex_unlock(&s->lock);
}

static bool take_in(struct sock *s, int client)
{
    bool taken;

    pthread_mutex_lock(&s->lock);
    if (!s->closing)
        s->watch = loop_add(s->loop, client, EPOLLIN | EPOLLHUP, on_client, s, NULL);
    taken = s->watch != NULL;
    if (taken) {
        s->client = client;
        s->input_ended = s->hung = false;
        s->wanted = EPOLLIN;
    }
    pthread_mutex_unlock(&s->lock);
    return taken;
}

static void on_listener(void *opaque, uint32_t events)
{
    struct sock *s = opaque;
    int client = unix_socket_accept(s->listener, &s->spare);

    if (client < 0)
        return;
    loop_modify(s->listener_watch, 0); /* one at a time */
    if (take_in(s, client)) {
        s->end.events.connected(s->end.events.opaque, true);
        ready(s);
    } else {
        close(client);
        loop_modify(s->listener_watch, EPOLLIN);
    }
}

static void sock_begin(struct con_end *end)
{
    struct sock *s = sock_of(end);

    loop_modify(s->listener_watch, EPOLLIN);
}

/* ---- Making and unmaking ---- */

static void free_sock(struct sock *s)
{
    pthread_cond_destroy(&s->left);
    pthread_mutex_destroy(&s->lock);
    free(s->path);
    free(s);
}

static void sock_close(struct con_end *end)
{
    struct sock *s = sock_of(end);
    struct loop_watch *watch;

    /* The loop may be disconnecting: then the client is its own, and what it does uses the
     * listener's watch, which goes last. Or else it leaves the client to this thread. */
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    watch = s->watch;
    s->watch = NULL;
    pthread_mutex_unlock(&s->lock);
    loop_remove(watch);
    pthread_mutex_lock(&s->lock);
    while (s->inside)
        pthread_cond_wait(&s->left, &s->lock);
    pthread_mutex_unlock(&s->lock);
    loop_cancel(s->loop, &s->job);
    loop_remove(s->listener_watch);
    if (s->client >= 0)
        close(s->client);
    unlink(s->path);
    close(s->listener);
    if (s->spare >= 0)
        close(s->spare);
    free_sock(s);
}

static const struct con_end_ops ops = {.close = sock_close,
                                       .begin = sock_begin,
                                       .connected = sock_connected,
                                       .read = sock_read,
                                       .write = sock_write};

struct con_end *con_end_socket_open(const char *path, struct loop *loop, struct error *err)
{
    struct sock *s = calloc(1, sizeof(*s));

    if (s)
        s->path = strdup(path);
    if (!s || !s->path) {
        free(s);
        error_set(err, ENOMEM, "no memory for a port");
        return NULL;
    }
    s->end.ops = &ops;
    s->loop = loop;
    s->client = -1;
    s->job = (struct loop_job){.run = run_job, .opaque = s};
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->left, NULL);
    s->listener = unix_socket_listen(path, BACKLOG, err);
    if (s->listener >= 0) {
        s->spare = unix_socket_spare(s->listener, err);
        if (s->spare >= 0)
            s->listener_watch = loop_add(loop, s->listener, 0, on_listener, s, err);
        if (s->listener_watch)
            return &s->end;
        if (s->spare >= 0)
            close(s->spare);
        unlink(path);
        close(s->listener);
    }
    free_sock(s);
    return NULL;
}
