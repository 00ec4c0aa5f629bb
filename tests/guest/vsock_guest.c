/*
 * The guest's part of the tests of virtio sockets.
 *
 *      vsock-guest echo PORT COUNT    listens, and sends COUNT connections back what they send
 *      vsock-guest connect PORT       connects to the host: standard input goes there, what comes
 *                                     from there to standard output
 *      vsock-guest cid                prints the guest's own address
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static int fail(const char *what)
{
    printf("%s: %s\n", what, strerror(errno));
    return 1;
}

static int open_socket(unsigned cid, unsigned port, struct sockaddr_vm *address)
{
    *address = (struct sockaddr_vm){.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
    return socket(AF_VSOCK, SOCK_STREAM, 0);
}

/* Copies FROM to TO until its end. */
static int copy(int from, int to)
{
    static char bytes[100000];
    ssize_t n;

    while ((n = read(from, bytes, sizeof(bytes))) > 0) {
        for (ssize_t done = 0, some; done < n; done += some) {
            some = write(to, bytes + done, (size_t)(n - done));
            if (some < 0)
                return fail("write");
        }
    }
    return n < 0 ? fail("read") : 0;
}

static int echo(unsigned port, unsigned count)
{
    struct sockaddr_vm address;
    int listener = open_socket(VMADDR_CID_ANY, port, &address);

    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(listener, 100) < 0)
        return fail("listen");
    puts("listening");
    fflush(stdout);
    while (count--) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            return fail("accept");
        if (fork() == 0)
            _exit(copy(fd, fd));
        close(fd);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
    while (wait(NULL) > 0)
        ;
    return 0;
}

static int connect_out(unsigned port)
{
    struct sockaddr_vm address;
    int fd = open_socket(VMADDR_CID_HOST, port, &address);

    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return fail("connect");
    if (fork() == 0)
        _exit(copy(STDIN_FILENO, fd) || shutdown(fd, SHUT_WR));
    return copy(fd, STDOUT_FILENO);
}

static int print_cid(void)
{
    int fd = open("/dev/vsock", O_RDONLY);
    unsigned cid;

    if (fd < 0 || ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) < 0)
        return fail("/dev/vsock");
    printf("cid %u\n", cid);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (!strcmp(what, "echo") && argc == 4)
        return echo((unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]));
    if (!strcmp(what, "connect") && argc == 3)
        return connect_out((unsigned)atoi(argv[2]));
    return strcmp(what, "cid") ? 2 : print_cid();
}
