/*
 * Unix sockets that are found by their path.
 */
#include "base/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_socket(const char *path, struct sockaddr_un *address, struct error *err)
{
    int fd;

    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) > UNIX_SOCKET_PATH_MAX)
        return error_set(err, ENAMETOOLONG, "'%s': a socket's path has at most %zu bytes", path,
                         UNIX_SOCKET_PATH_MAX);
    strcpy(address->sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd >= 0 ? fd : error_set(err, errno, "cannot make a socket: %s", strerror(errno));
}

int unix_socket_connect(const char *path, struct error *err)
{
    struct sockaddr_un address;
    int fd = open_socket(path, &address, err), code;

    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    code = errno;
    close(fd);
    return error_set(err, code, "cannot connect to '%s': %s", path, strerror(code));
}

/* Whether the file at PATH is a socket that nobody listens to: its process was killed. */
static bool is_stale(const char *path)
{
    int fd = unix_socket_connect(path, NULL);
    struct stat status;

    if (fd >= 0)
        close(fd);
    return fd == -ECONNREFUSED && lstat(path, &status) == 0 && S_ISSOCK(status.st_mode);
}

/* Nobody can connect before listen(), so the mode is in time. */
static int bind_private(int fd, const struct sockaddr_un *address, int backlog)
{
    int code;

    if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
        return -errno;
    if (chmod(address->sun_path, 0600) == 0 && listen(fd, backlog) == 0)
        return 0;
    code = errno;
    unlink(address->sun_path);
    return -code;
}

int unix_socket_listen(const char *path, int backlog, struct error *err)
{
    struct sockaddr_un address;
    int fd = open_socket(path, &address, err), ret;

    if (fd < 0)
        return fd;
    ret = bind_private(fd, &address, backlog);
    if (ret == -EADDRINUSE && is_stale(path)) {
        unlink(path);
        ret = bind_private(fd, &address, backlog);
    }
    if (ret == 0)
        return fd;
    close(fd);
    return error_set(err, -ret, "cannot listen at '%s': %s", path,
                     ret == -EADDRINUSE ? "the file exists, or somebody listens there"
                                        : strerror(-ret));
}

bool unix_socket_is_ours(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

int unix_socket_spare(int listener, struct error *err)
{
    int fd = fcntl(listener, F_DUPFD_CLOEXEC, 0);

    return fd >= 0 ? fd : error_set(err, errno, "cannot keep a descriptor: %s", strerror(errno));
}

static int accept_once(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    return fd >= 0 ? fd : -errno;
}

int unix_socket_accept(int listener, int *spare)
{
    int ret = accept_once(listener), fd;

    if (ret != -EMFILE && ret != -ENFILE)
        return ret;
    if (*spare >= 0)
        close(*spare);
    fd = accept_once(listener);
    if (fd >= 0)
        close(fd);
    *spare = unix_socket_spare(listener, NULL);
    return ret;
}
