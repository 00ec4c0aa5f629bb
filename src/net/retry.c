/*
 * Connecting again to what has gone: when.
 */
#include "net/retry.h"

#include "base/time.h"
#include "base/util.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define FIRST_NS   (100 * NS_PER_MS)
#define SELDOM_NS  (1600 * NS_PER_MS)
#define LASTING_NS NS_PER_S

static void on_timer(void *opaque, uint32_t events)
{
    struct retry *retry = opaque;
    uint64_t count;

    if (read(retry->timer, &count, sizeof(count)) > 0)
        retry->again(retry->opaque);
}

int retry_open(struct retry *retry, struct loop *loop, void (*again)(void *opaque), void *opaque,
               struct error *err)
{
    *retry = (struct retry){.again = again, .opaque = opaque, .delay = FIRST_NS};
    retry->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (retry->timer < 0)
        return error_set(err, errno, "network: cannot make a timer: %s", strerror(errno));
    retry->watch = loop_add(loop, retry->timer, EPOLLIN, on_timer, retry, err);
    if (!retry->watch) {
        close(retry->timer);
        return -ENOMEM;
    }
    return 0;
}

void retry_stop(struct retry *retry)
{
    loop_remove(retry->watch);
    retry->watch = NULL;
}

void retry_close(struct retry *retry)
{
    retry_stop(retry);
    close(retry->timer);
}

void retry_connected(struct retry *retry)
{
    retry->connected_at = time_now_ns();
}

void retry_later(struct retry *retry)
{
    struct itimerspec in = {.it_value = time_spec(retry->delay)};

    if (retry->connected_at && time_now_ns() - retry->connected_at >= LASTING_NS) {
        in.it_value = time_spec(FIRST_NS);
        retry->delay = FIRST_NS;
    }
    retry->connected_at = 0;
    retry->delay = MIN(2 * retry->delay, SELDOM_NS);
    timerfd_settime(retry->timer, 0, &in, NULL);
}
