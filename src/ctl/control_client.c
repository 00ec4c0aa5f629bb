/*
 * The client's side of control sockets.
 */
#include "ctl/control.h"
#include "ctl/doppel.h"
#include "ctl/run_folder.h"

#include "base/error.h"
#include "base/log.h"
#include "base/time.h"
#include "base/unix_socket.h"
#include "base/util.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEPT_MOST 64 /* events, and answers, that nobody has taken yet */

struct doppel_control {
    int fd;
    int last; /* the last request's number */
    char in[CONTROL_LINE_MOST];
    size_t in_size;
    json_t *events, *answers; /* arrays: the oldest comes first */
};

/* ---- Lines ---- */

static int gone(struct error *err)
{
    return error_set(err, EPIPE, "the machine's process has gone");
}

/* Sends TEXT, which a server that works takes at once. */
static int send_all(struct doppel_control *c, const char *text, struct error *err)
{
    size_t size = strlen(text);

    while (size > 0) {
        struct pollfd pfd = {c->fd, POLLOUT, 0};
        ssize_t n = send(c->fd, text, size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return gone(err);
        if (n < 0 && poll(&pfd, 1, 1000) == 0)
            return error_set(err, ETIMEDOUT, "the machine's process does not answer");
        if (n > 0) {
            text += n;
            size -= (size_t)n;
        }
    }
    return 0;
}

static void keep(json_t *list, json_t *line)
{
    if (json_array_size(list) >= KEPT_MOST)
        json_array_remove(list, 0);
    json_array_append(list, line);
}

/* Takes a line that has come. What is no line of the protocol is ignored. */
static void take_line(struct doppel_control *c, const char *text, size_t size)
{
    json_t *line = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);

    if (json_is_string(json_object_get(line, "event")))
        keep(c->events, line);
    else if (json_is_integer(json_object_get(line, "id")))
        keep(c->answers, line);
    json_decref(line);
}

static int read_lines(struct doppel_control *c, struct error *err)
{
    ssize_t n = recv(c->fd, c->in + c->in_size, sizeof(c->in) - c->in_size, MSG_DONTWAIT);
    size_t done = 0;
    char *end;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return gone(err);
    c->in_size += (size_t)n;
    while ((end = memchr(c->in + done, '\n', c->in_size - done))) {
        take_line(c, c->in + done, (size_t)(end - (c->in + done)));
        done = (size_t)(end + 1 - c->in);
    }
    c->in_size -= done;
    memmove(c->in, c->in + done, c->in_size);
    if (c->in_size < sizeof(c->in))
        return 0;
    return error_set(err, EPROTO, "the machine's process sends what is no answer");
}

/* Waits for what TAKE finds, which is then the caller's. */
static int wait_for(struct doppel_control *c, json_t *(*take)(struct doppel_control *, int),
                    int number, int timeout_ms, json_t **found, struct error *err)
{
    uint64_t end = timeout_ms < 0 ? UINT64_MAX : time_now_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    int ret = 0;

    while (!(*found = take(c, number))) {
        struct pollfd pfd = {c->fd, POLLIN, 0};
        uint64_t now = time_now_ns();
        int wait = timeout_ms < 0 ? -1
                   : now < end    ? (int)MIN((end - now) / NS_PER_MS + 1, (uint64_t)INT_MAX)
                                  : 0;

        if (ret < 0) /* what came before the end has been looked at */
            return ret;
        if (poll(&pfd, 1, wait) > 0)
            ret = read_lines(c, err);
        else if (time_now_ns() >= end)
            return error_set(err, ETIMEDOUT, "the machine's process does not answer");
    }
    return 0;
}

/* ---- Answers and events ---- */

static json_t *take_from(json_t *list, size_t at)
{
    json_t *line = json_incref(json_array_get(list, at));

    json_array_remove(list, at);
    return line;
}

/* Answer NUMBER, or the last one: the server has understood nothing. */
static json_t *take_answer(struct doppel_control *c, int number)
{
    for (size_t i = 0; i < json_array_size(c->answers); i++) {
        json_int_t id = json_integer_value(json_object_get(json_array_get(c->answers, i), "id"));

        if (id == number || id == 0)
            return take_from(c->answers, i);
    }
    return NULL;
}

static json_t *take_event(struct doppel_control *c, int number)
{
    (void)number;
    return json_array_size(c->events) ? take_from(c->events, 0) : NULL;
}

static int give(json_t *value, char **text, struct error *err)
{
    if (!text)
        return 0;
    *text = json_dumps(value, JSON_COMPACT);
    return *text ? 0 : error_set(err, ENOMEM, "out of memory");
}

/* What an answer says that is no result. */
static int failed(const json_t *answer, struct error *err)
{
    const json_t *error = json_object_get(answer, "error");
    const char *code = json_string_value(json_object_get(error, "code"));
    const char *message = json_string_value(json_object_get(error, "message"));
    int ret = error_set(err, code ? control_errno(code) : EPROTO, "%s",
                        message && *message ? message : "the machine's process gave no reason");

    log_clean(err->text); /* it may be what a guest has made of that process */
    return ret;
}

static int answer(struct doppel_control *c, int number, int timeout_ms, char **result,
                  struct error *err)
{
    json_t *line;
    int ret = wait_for(c, take_answer, number, timeout_ms, &line, err);

    if (ret)
        return ret;
    ret = json_object_get(line, "result") ? give(json_object_get(line, "result"), result, err)
                                          : failed(line, err);
    json_decref(line);
    return ret;
}

static int request(struct doppel_control *c, const char *name, const char *arguments,
                   struct error *err)
{
    json_t *given = arguments ? json_loads(arguments, JSON_REJECT_DUPLICATES, NULL) : NULL;
    char *line;
    int ret;

    if (arguments && !json_is_object(given)) {
        json_decref(given);
        return error_set(err, EINVAL, "the arguments of '%s' are no JSON object", name);
    }
    c->last = c->last < INT_MAX ? c->last + 1 : 1;
    line = control_line(
        json_pack("{s:i, s:s, s:o*}", "id", c->last, "request", name, "arguments", given));
    ret = line ? send_all(c, line, err) : error_set(err, EMSGSIZE, "the request is too long");
    free(line);
    return ret ? ret : c->last;
}

/* ---- The public calls ---- */

static int report(int ret, const struct error *why, struct doppel_error *err)
{
    if (ret < 0 && err) {
        err->code = why->code;
        snprintf(err->text, sizeof(err->text), "%s", why->text);
    }
    return ret;
}

int doppel_control_send(struct doppel_control *c, const char *name, const char *arguments,
                        struct doppel_error *err)
{
    struct error why = {0};

    return report(request(c, name, arguments, &why), &why, err);
}

int doppel_control_answer(struct doppel_control *c, int number, int timeout_ms, char **result,
                          struct doppel_error *err)
{
    struct error why = {0};

    return report(answer(c, number, timeout_ms, result, &why), &why, err);
}

int doppel_control_call(struct doppel_control *c, const char *name, const char *arguments,
                        int timeout_ms, char **result, struct doppel_error *err)
{
    int number = doppel_control_send(c, name, arguments, err);

    return number < 0 ? number : doppel_control_answer(c, number, timeout_ms, result, err);
}

int doppel_control_event(struct doppel_control *c, int timeout_ms, char **event,
                         struct doppel_error *err)
{
    struct error why = {0};
    json_t *line;
    int ret = wait_for(c, take_event, 0, timeout_ms, &line, &why);

    if (!ret) {
        ret = give(line, event, &why);
        json_decref(line);
    }
    return report(ret, &why, err);
}

int doppel_control_fd(const struct doppel_control *c)
{
    return c->fd;
}

void doppel_control_close(struct doppel_control *c)
{
    if (!c)
        return;
    if (c->fd >= 0)
        close(c->fd);
    json_decref(c->events);
    json_decref(c->answers);
    free(c);
}

static int connect_to(struct doppel_control *c, const char *name, struct error *err)
{
    char path[PATH_MAX];
    struct lock_holder holder;
    int ret = run_folder_find(name, RUN_CONTROL, path, &holder, err);

    if (ret)
        return ret;
    if (!holder.held)
        return run_folder_not_running(name, err);
    c->fd = unix_socket_connect(path, err);
    if (c->fd < 0)
        return c->fd;
    if (!unix_socket_is_ours(c->fd))
        return error_set(err, EPERM, "the process behind '%s' is another user's", path);
    return 0;
}

struct doppel_control *doppel_control_open(const char *name, struct doppel_error *err)
{
    struct doppel_control *c = calloc(1, sizeof(*c));
    struct error why = {0};
    int ret = -ENOMEM;

    if (c) {
        c->fd = -1;
        c->events = json_array();
        c->answers = json_array();
    }
    if (!c || !c->events || !c->answers)
        error_set(&why, ENOMEM, "out of memory");
    else
        ret = connect_to(c, name, &why);
    if (ret) {
        report(ret, &why, err);
        doppel_control_close(c);
        return NULL;
    }
    return c;
}
