/*
 * The agent: a process that listens, and one for each connection. One more than there are
 * connections waits for the next client, so that nobody waits for fork(2).
 */
#include "agent.h"
#include "../agent_protocol.h"
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define BACKLOG     128
#define AGAIN_IN_US 100000

/* Listens; a negative errno on failure. */
static int listen_on_vsock(void)
{
    struct sockaddr_vm address = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = AGENT_PORT};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0), error;

    if (fd >= 0 && !bind(fd, (const struct sockaddr *)(const void *)&address, sizeof(address)) &&
        !listen(fd, BACKLOG))
        return fd;
    error = errno;
    if (fd >= 0)
        close(fd);
    return -error;
}

/* Accepts the next client. Only the host is one: programs of the guest are not to become root by
 * this. */
static int accept_host(int listener)
{
    for (;;) {
        struct sockaddr_vm peer = {0};
        socklen_t size = sizeof(peer);
        int fd = accept4(listener, (struct sockaddr *)(void *)&peer, &size, SOCK_CLOEXEC);

        if (fd >= 0 && peer.svm_cid == VMADDR_CID_HOST)
            return fd;
        if (fd >= 0)
            close(fd);
        else if (errno != EINTR && errno != ECONNABORTED)
            usleep(AGAIN_IN_US);
    }
}

/* The process for the next client. By the end of TAKEN the agent sees that there is one, or that
 * this process has died. Until then it ends with the agent, PARENT: the next one is to have the
 * port. */
__attribute__((noreturn)) static void serve_next(int listener, int taken, pid_t parent)
{
    int link;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(0);
    link = accept_host(listener);
    prctl(PR_SET_PDEATHSIG, 0);
    close(taken);
    close(listener);
    agent_session_serve(link);
}

/* Waits until the other end of the pipe is closed. */
static void await_end(int fd)
{
    char byte;
    ssize_t n;

    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
}

int agent_serve(void)
{
    int listener = listen_on_vsock(), taken[2];
    pid_t self = getpid();

    if (listener < 0)
        return listener;
    signal(SIGCHLD, SIG_IGN); /* nobody waits for these processes */
    for (;;) {
        pid_t pid = -1;

        if (pipe2(taken, O_CLOEXEC) == 0) {
            pid = fork();
            if (pid == 0) {
                close(taken[0]);
                serve_next(listener, taken[1], self);
            }
            close(taken[1]);
            if (pid > 0)
                await_end(taken[0]);
            close(taken[0]);
        }
        if (pid < 0)
            usleep(AGAIN_IN_US);
    }
}
