/*
 * `doppel connect`: this process's standard streams and a port of a guest, as one connection.
 */
#include "cli/arguments.h"
#include "cli/cli.h"
#include "cli/guest_port.h"

#include "base/thread.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK 65536

enum { OPT_WAIT, OPT_PASS_FD, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_WAIT] = {"wait", "SECONDS", "how long the guest may take until it answers (0)"},
    [OPT_PASS_FD] = {"pass-fd", NULL, "hand the connection over to ssh (its ProxyUseFdpass)"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static const struct arguments arguments = {
    .name = "connect",
    .usage =
        "Usage: doppel connect [OPTION...] NAME PORT\n"
        "Connects standard input and output with the vsock port PORT of the machine NAME, which\n"
        "runs. With the word 'ssh' as PORT, with its ssh server, the way that the definition "
        "says.\n",
    .specs = specs};

struct request {
    const char *name, *port;
    unsigned wait;
    bool pass_fd;
};

/* Passes FD to the process at the other end of standard output, a socket. */
static int pass(int fd, struct error *err)
{
    char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    if (sendmsg(STDOUT_FILENO, &message, MSG_NOSIGNAL) != 1)
        return error_set(err, errno, "--pass-fd: standard output takes no descriptor: %s",
                         strerror(errno));
    return 0;
}

/* Copies from FROM to TO until the end. Returns 0, -EPIPE if TO takes no more, or an errno. */
static int copy(int from, int to)
{
    char data[CHUNK];

    for (;;) {
        ssize_t n = read(from, data, sizeof(data));

        if (n == 0)
            return 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        for (ssize_t done = 0; done < n;) {
            ssize_t written = write(to, data + done, (size_t)(n - done));

            if (written < 0 && errno != EINTR)
                return -errno;
            done += written > 0 ? written : 0;
        }
    }
}

/* The thread that reads standard input. */
static void *send_input(void *opaque)
{
    int fd = (int)(intptr_t)opaque;

    copy(STDIN_FILENO, fd);
    shutdown(fd, SHUT_WR);
    return NULL;
}

/* Copies both ways until the guest has ended its side. A thread may then still read input, which
 * the end of the process ends. */
static int relay(int fd, struct error *err)
{
    pthread_t thread;
    int ret = thread_start(&thread, "input", send_input, (void *)(intptr_t)fd, err);

    if (ret)
        return ret;
    pthread_detach(thread);
    ret = copy(fd, STDOUT_FILENO);
    if (ret == -ECONNRESET) /* the guest has gone */
        ret = 0;
    return ret ? error_set(err, -ret, "cannot write standard output: %s", strerror(-ret)) : 0;
}

int cmd_connect(char **argv)
{
    struct argument_words words = {.names = "NAME PORT", .least = 2, .most = 2};
    struct request request = {0};
    const char *wait = "0";
    const struct argument_setting settings[] = {[OPT_WAIT] = {.value = &wait},
                                                [OPT_PASS_FD] = {.flag = &request.pass_fd},
                                                [OPT_HELP] = {0}};
    int status = arguments_read(&arguments, settings, argv, &words), ret, fd;
    struct guest_port port;
    struct error err = {0};

    if (status != ARGUMENTS_GO_ON)
        return status;
    if (!parse_wait(wait, &request.wait))
        return STATUS_ERROR;
    request.name = words.word[0];
    request.port = words.word[1];
    ret = guest_port_choose(request.name, request.port, &port, &err);
    if (!ret) {
        fd = ret = guest_port_connect(&port, request.wait, &err);
        if (ret >= 0)
            ret = request.pass_fd ? pass(fd, &err) : relay(fd, &err);
    }
    if (ret)
        complain("%s", err.text);
    return ret ? STATUS_ERROR : 0;
}
