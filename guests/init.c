/*
 * Process 1 of the default guest. With a session file from the host (protocol.h) it runs that
 * command and carries its streams over COM2; without one it runs a shell on the console. When the
 * command or the shell ends, so does the machine. With a virtio socket device, it also starts the
 * agent (agent/).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "agent/agent.h"
#include "network.h"
#include "protocol.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define HELLO_EVERY_MS 200
/* How often to look whether somebody reads: less and less often while nobody does. */
#define TYPING_POLL_FIRST_MS 1
#define TYPING_POLL_MOST_MS  32
#define LEADERLESS_POLLS     40
#define AWAIT_END_SECONDS    10
#define PCI_DEVICES          "/sys/bus/pci/devices"
#define PCI_VIRTIO           0x1af4
#define PCI_VIRTIO_VSOCK     0x1053
#define AGENT_AGAIN_SECONDS  1
/* How often a typed end of file may go unheeded before the terminal is hung up. */
#define TYPED_EOFS 16

static const char *const default_env[] = {
    "HOME=/root",      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM=vt100",      "USER=root",
    "LOGNAME=root",    "SHELL=/bin/sh",
    "PS1=\\h:\\w\\$ ",
};

enum mode { MODE_PIPE, MODE_TTY, MODE_TYPED };

struct session {
    enum mode mode;
    bool crlf;
    const char *path;
    char **argv;
    size_t argc;

    int line; /* COM2 */
    struct proto_reader reader;
    uint32_t nonce;
    bool running;

    pid_t child;
    bool ended; /* the child has been waited for; its status is in STATUS */
    int status;
    int master, slave;           /* the pseudo-terminal, or -1 */
    int in, out, err;            /* this side of the pipes, or of the terminal; -1 when closed */
    uint32_t out_credit;         /* bytes the host still takes */
    uint8_t typed[PROTO_WINDOW]; /* from the host, not yet taken by the command */
    size_t typed_size;
    bool typed_end, newline_owed;
    unsigned eofs, leaderless, typing_poll_ms;
};

/* Set by the signal handler: what another process asked init to do. */
static volatile sig_atomic_t asked;
static int wakeup[2];
static pid_t agent; /* or 0 */

static void on_signal(int signal)
{
    int saved = errno;

    if (signal == SIGTERM)
        asked = RB_AUTOBOOT;
    else if (signal != SIGCHLD)
        asked = RB_POWER_OFF;
    if (write(wakeup[1], "", 1) < 0)
        errno = 0; /* full: it will be read anyway */
    errno = saved;
}

__attribute__((noreturn)) static void end_machine(int how)
{
    sync();
    reboot(how);
    for (;;)
        pause();
}

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    fprintf(stderr, "init: ");
    vfprintf(stderr, format, ap);
    fprintf(stderr, ": %s\n", strerror(errno));
    va_end(ap);
    end_machine(RB_POWER_OFF);
}

/* The number in a PCI device's file, or 0. */
static unsigned long pci_number(const char *device, const char *file)
{
    char path[320], text[16];
    unsigned long number = 0;
    ssize_t size;
    int fd;

    snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", device, file);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    size = read(fd, text, sizeof(text) - 1);
    if (size > 0) {
        text[size] = 0;
        number = strtoul(text, NULL, 16);
    }
    close(fd);
    return number;
}

/* Whether there is a virtio device with this PCI device ID; 0: with any. */
static bool has_virtio(unsigned long id)
{
    DIR *dir = opendir(PCI_DEVICES);
    struct dirent *entry;
    bool found = false;

    while (dir && !found && (entry = readdir(dir)))
        found = entry->d_name[0] != '.' && pci_number(entry->d_name, "vendor") == PCI_VIRTIO &&
                (!id || pci_number(entry->d_name, "device") == id);
    if (dir)
        closedir(dir);
    return found;
}

/* Whether it is a module, and one of use: NUMBER-NAME.ko, or with the PCI device ID of what it
 * drives NUMBER-NAME.ID.ko. */
static int is_of_use(const struct dirent *entry)
{
    const char *dot = strchr(entry->d_name, '.');

    return dot && dot != entry->d_name && has_virtio(strtoul(dot + 1, NULL, 16));
}

/* Loads the drivers of the virtio devices that there are: the modules that guests/make has put
 * there for this kernel, in the order of their names. */
static void load_drivers(void)
{
    struct dirent **modules;
    struct utsname system;
    char folder[128];
    int count;

    if (!has_virtio(0) || uname(&system))
        return;
    snprintf(folder, sizeof(folder), "/lib/modules/%s", system.release);
    count = scandir(folder, &modules, is_of_use, alphasort);
    for (int i = 0; i < count; i++) {
        char path[512];
        int fd;

        snprintf(path, sizeof(path), "%s/%s", folder, modules[i]->d_name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
            fprintf(stderr, "init: cannot load %s: %s\n", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        free(modules[i]);
    }
    if (count >= 0)
        free(modules);
}

/* Whether NAME is a virtual terminal, for which the machine would need a display. */
static bool is_virtual_terminal(const char *name)
{
    return !strncmp(name, "tty", 3) && (!name[3] || (name[3] >= '0' && name[3] <= '9'));
}

/* Opens a terminal, or returns -1. */
static int open_tty(const char *name)
{
    char path[64];

    snprintf(path, sizeof(path), "/dev/%s", name);
    return open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

/* Opens the console that the kernel was given: of those in use, the last one is /dev/console, by
 * whose name it cannot be a controlling terminal. Without any that somebody can see, the first
 * serial port. */
static int open_console(void)
{
    char names[256] = "", *name;
    int fd = open("/sys/class/tty/console/active", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? read(fd, names, sizeof(names) - 1) : 0;

    if (fd >= 0)
        close(fd);
    for (size = size > 0 ? size : 0; size > 0; size = name - names) {
        while (size > 0 && (names[size - 1] == ' ' || names[size - 1] == '\n'))
            size--;
        names[size] = 0;
        for (name = names + size; name > names && name[-1] != ' ';)
            name--;
        fd = *name && !is_virtual_terminal(name) ? open_tty(name) : -1;
        if (fd >= 0)
            return fd;
    }
    fd = open_tty("ttyS0");
    return fd >= 0 ? fd : open_tty("console");
}

/* The kernel opens no console for process 1 if the console's driver is a module. Then the standard
 * streams are closed, and files that are opened must not take their numbers. */
static bool has_streams(void)
{
    bool missing = false;
    int fd;

    for (fd = 0; fd < 3; fd++)
        missing |= fcntl(fd, F_GETFD) < 0;
    while (missing && (fd = open("/dev/null", O_RDWR)) >= 0)
        if (fd > 2) {
            close(fd);
            break;
        }
    return !missing;
}

static void open_streams(void)
{
    int tty = open_console();

    for (int fd = 0; tty >= 0 && fd < 3; fd++)
        dup2(tty, fd);
    if (tty > 2)
        close(tty);
}

static void set_up_system(void)
{
    static const struct {
        const char *type, *where;
    } mounts[] = {{"proc", "/proc"},      {"sysfs", "/sys"}, {"devtmpfs", "/dev"},
                  {"devpts", "/dev/pts"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"}};
    struct ifreq lo = {.ifr_name = "lo"};
    struct sigaction action = {.sa_handler = on_signal};
    bool streams;
    int sock;

    for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
        mkdir(mounts[i].where, 0755);
        if (mount(mounts[i].type, mounts[i].where, mounts[i].type, 0, NULL) && errno != EBUSY)
            fprintf(stderr, "init: cannot mount %s: %s\n", mounts[i].where, strerror(errno));
    }
    streams = has_streams();
    load_drivers();
    if (!streams)
        open_streams();
    sethostname("doppel", 6);
    sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock >= 0) {
        lo.ifr_flags = IFF_UP | IFF_RUNNING;
        ioctl(sock, SIOCSIFFLAGS, &lo);
        close(sock);
    }
    network_begin();
    for (size_t i = 0; i < sizeof(default_env) / sizeof(default_env[0]); i++)
        putenv((char *)default_env[i]);

    if (pipe2(wakeup, O_CLOEXEC | O_NONBLOCK))
        die("pipe");
    sigaction(SIGCHLD, &action, NULL);
    sigaction(SIGTERM, &action, NULL); /* busybox: reboot */
    sigaction(SIGUSR1, &action, NULL); /* busybox: halt */
    sigaction(SIGUSR2, &action, NULL); /* busybox: poweroff */
    signal(SIGPIPE, SIG_IGN);
    reboot(RB_DISABLE_CAD);
}

/* In a child: the signals as a program expects to find them. */
static void reset_signals(void)
{
    static const int signals[] = {SIGCHLD, SIGTERM, SIGUSR1, SIGUSR2, SIGPIPE};

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        signal(signals[i], SIG_DFL);
}

/* Starts the agent, AFTER so many seconds, if there is a device by which it is reached. */
static void start_agent(unsigned after)
{
    pid_t pid = has_virtio(PCI_VIRTIO_VSOCK) ? fork() : -1;

    if (pid == 0) {
        reset_signals();
        setsid();
        sleep(after);
        _exit(agent_serve() ? 1 : 0);
    }
    agent = pid > 0 ? pid : 0;
}

/* Makes TTY the controlling terminal of a new session, with all three standard streams on it. */
static void take_terminal(int tty)
{
    setsid();
    ioctl(tty, TIOCSCTTY, 1);
    for (int fd = 0; fd < 3; fd++)
        dup2(tty, fd);
}

/* Collects children that ended, adopted ones too. True when PID is one of them. */
static bool reap(pid_t pid, int *status)
{
    bool found = false;
    pid_t got;
    int how;

    while ((got = waitpid(-1, &how, WNOHANG)) > 0) {
        if (got == agent) { /* without vsock it ends by itself */
            agent = 0;
            if (WIFSIGNALED(how))
                start_agent(AGENT_AGAIN_SECONDS);
        } else if (got == pid) {
            *status = WIFSIGNALED(how) ? 128 + WTERMSIG(how) : WEXITSTATUS(how);
            found = true;
        }
    }
    return found;
}

static void drain_wakeup(void)
{
    char bytes[64];

    while (read(wakeup[0], bytes, sizeof(bytes)) > 0)
        ;
}

/* The plain case: a login shell on the console. */
static void console_shell(void)
{
    int tty = open_console();
    int status;
    pid_t child;

    if (tty < 0)
        die("cannot open the console");
    child = fork();
    if (child == 0) {
        reset_signals();
        take_terminal(tty);
        if (chdir("/root"))
            chdir("/");
        execl("/bin/sh", "-sh", (char *)NULL);
        _exit(127);
    }
    if (child < 0)
        die("fork");
    while (!asked && !reap(child, &status)) {
        struct pollfd pfd = {wakeup[0], POLLIN, 0};

        poll(&pfd, 1, -1);
        drain_wakeup();
    }
    tcdrain(tty);
}

/* Makes PATH and what leads there. */
static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0755);
        *slash = '/';
    }
    mkdir(path, 0755);
}

/* Mounts a shared folder as WHAT says: rw:TAG:PATH or ro:TAG:PATH. A command must not run without
 * the files that it is for. */
static void mount_share(char *what)
{
    unsigned long flags = strncmp(what, "ro:", 3) ? 0 : MS_RDONLY;
    char *tag = what + 3, *path = strchr(tag, ':');

    *path++ = 0;
    make_folders(path);
    if (mount(tag, path, "virtiofs", flags, NULL))
        die("cannot mount the shared folder '%s' on %s", tag, path);
}

/* Splits the session file into its strings. False without one. */
static bool read_session(struct session *s)
{
    int fd = open(PROTO_SESSION, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *text, *p, *end;

    if (fd < 0)
        return false;
    if (fstat(fd, &st) || !(text = malloc((size_t)st.st_size + 1)) ||
        !(s->argv = calloc((size_t)st.st_size + 2, sizeof(char *))) ||
        read(fd, text, (size_t)st.st_size) != st.st_size)
        die("cannot read %s", PROTO_SESSION);
    close(fd);
    end = text + st.st_size;
    *end = 0;
    if (strcmp(text, PROTO_SESSION_MAGIC) != 0) {
        errno = EPROTO;
        die("%s is of another version", PROTO_SESSION);
    }
    for (p = text + strlen(text) + 1; p < end; p += strlen(p) + 1) {
        if (!strncmp(p, "arg=", 4))
            s->argv[s->argc++] = p + 4;
        else if (!strncmp(p, "env=", 4))
            putenv(p + 4);
        else if (!strncmp(p, "mount=", 6))
            mount_share(p + 6);
        else if (!strncmp(p, "path=", 5))
            s->path = p + 5;
        else if (!strcmp(p, "newline=crlf"))
            s->crlf = true;
        else if (!strcmp(p, "mode=tty"))
            s->mode = MODE_TTY;
        else if (!strcmp(p, "mode=typed"))
            s->mode = MODE_TYPED;
    }
    if (!s->path || !s->argc) {
        errno = EINVAL;
        die("%s names no command", PROTO_SESSION);
    }
    return true;
}

static void write_all(int fd, const uint8_t *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);

        if (n > 0) {
            data += n;
            size -= (size_t)n;
        } else if (n < 0 && errno != EINTR) {
            die("cannot write to the host");
        }
    }
}

static void send_frame(struct session *s, enum proto_type type, const void *payload, size_t size)
{
    uint8_t line[PROTO_ENCODED(PROTO_PAYLOAD)];

    write_all(s->line, line, proto_encode(line, type, payload, size));
}

static void send_hello(struct session *s)
{
    uint8_t hello[5] = {PROTO_VERSION};

    proto_put32(hello + 1, s->nonce);
    send_frame(s, PROTO_HELLO, hello, sizeof(hello));
}

static void set_size(struct session *s, const uint8_t *payload)
{
    struct winsize size = {.ws_row = proto_get16(payload), .ws_col = proto_get16(payload + 2)};

    if (s->master >= 0 && size.ws_row && size.ws_col)
        ioctl(s->master, TIOCSWINSZ, &size);
}

static void open_terminal(struct session *s)
{
    struct termios t;

    if (openpty(&s->master, &s->slave, NULL, NULL, NULL))
        die("cannot open a pseudo-terminal");
    fcntl(s->master, F_SETFD, FD_CLOEXEC);
    fcntl(s->slave, F_SETFD, FD_CLOEXEC);
    if (!s->crlf && !tcgetattr(s->slave, &t)) {
        t.c_oflag &= ~(tcflag_t)ONLCR;
        tcsetattr(s->slave, TCSANOW, &t);
    }
}

/* The host knows how the session ended and ends the machine. Were init faster, the kernel's
 * farewell would appear on the console. */
static void await_end(struct session *s)
{
    tcdrain(s->line);
    for (unsigned left = AWAIT_END_SECONDS; left > 0;)
        left = sleep(left); /* ended children interrupt it */
}

/* In the child: becomes the command, or reports the errno on REPORT. */
__attribute__((noreturn)) static void become_command(struct session *s, int pipes[3][2], int report)
{
    int error;

    reset_signals();
    if (s->mode == MODE_PIPE) {
        setsid();
        dup2(pipes[0][0], 0);
        dup2(pipes[1][1], 1);
        dup2(pipes[2][1], 2);
    } else {
        take_terminal(s->slave);
    }
    if (chdir("/root"))
        chdir("/");
    execvp(s->path, s->argv);
    error = errno;
    write(report, &error, sizeof(error));
    _exit(127);
}

/* Starts the command. When it cannot be started the host is told, with the status a shell would
 * give, and the machine ends. */
static void start_command(struct session *s)
{
    int pipes[3][2], report[2], error = 0;

    for (unsigned i = 0; i < 3; i++)
        if (pipe2(pipes[i], O_CLOEXEC))
            die("pipe");
    if (pipe2(report, O_CLOEXEC))
        die("pipe");
    s->child = fork();
    if (s->child < 0)
        die("fork");
    if (s->child == 0)
        become_command(s, pipes, report[1]);
    close(report[1]);
    if (read(report[0], &error, sizeof(error)) == sizeof(error)) {
        char text[PROTO_PAYLOAD];
        int n = snprintf(text + 1, sizeof(text) - 1, "%.900s: %s", s->path, strerror(error));

        text[0] = error == ENOENT ? 127 : 126;
        send_frame(s, PROTO_FAIL, text, 1 + (size_t)n);
        await_end(s);
        end_machine(RB_POWER_OFF);
    }
    close(report[0]);
    close(pipes[0][0]);
    close(pipes[1][1]);
    close(pipes[2][1]);
    if (s->mode == MODE_PIPE) {
        s->in = pipes[0][1];
        s->out = pipes[1][0];
        s->err = pipes[2][0];
        fcntl(s->err, F_SETFL, O_NONBLOCK);
    } else {
        close(pipes[0][1]);
        close(pipes[1][0]);
        close(pipes[2][0]);
        s->in = s->out = s->master;
        s->err = -1;
    }
    fcntl(s->in, F_SETFL, O_NONBLOCK);
    fcntl(s->out, F_SETFL, O_NONBLOCK);
}

/* --- From the host ----------------------------------------------------------------------- */

static void handle_start(struct session *s, const uint8_t *payload, size_t size)
{
    if (s->running || size != 8 || proto_get32(payload) != s->nonce)
        return;
    s->running = true;
    if (s->mode != MODE_PIPE) {
        open_terminal(s);
        set_size(s, payload + 4);
    }
    start_command(s);
}

static void handle_frame(struct session *s)
{
    const uint8_t *payload = s->reader.frame + 1;
    size_t size = s->reader.size - 1;
    enum proto_type type = (enum proto_type)s->reader.frame[0];

    if (type == PROTO_START)
        handle_start(s, payload, size);
    if (!s->running)
        return;
    if (type == PROTO_IN && s->typed_size + size <= sizeof(s->typed)) {
        memcpy(s->typed + s->typed_size, payload, size);
        s->typed_size += size;
    } else if (type == PROTO_IN_END) {
        s->typed_end = true;
    } else if (type == PROTO_CREDIT && size == 4) {
        s->out_credit += proto_get32(payload);
    } else if (type == PROTO_SIZE && size == 4) {
        set_size(s, payload);
    }
}

static void read_line(struct session *s)
{
    uint8_t bytes[4096];
    ssize_t n = read(s->line, bytes, sizeof(bytes));

    for (ssize_t i = 0; i < n; i++) {
        if (proto_decode(&s->reader, bytes[i])) {
            handle_frame(s);
            proto_next(&s->reader);
        }
    }
}

/* --- To the command ---------------------------------------------------------------------- */

/* The first SIZE bytes of input have been used up. */
static void consume(struct session *s, size_t size)
{
    uint8_t credit[4];

    s->typed_size -= size;
    memmove(s->typed, s->typed + size, s->typed_size);
    proto_put32(credit, (uint32_t)size);
    send_frame(s, PROTO_CREDIT, credit, sizeof(credit));
}

/* Whether the terminal's foreground process sleeps for want of input: nothing is left for it to
 * read, and it waits where a read or a poll waits. */
static bool somebody_reads(struct session *s)
{
    struct pollfd pfd = {s->slave, POLLIN, 0};
    char path[64], where[64] = "";
    pid_t group = 0;
    ssize_t n;
    int fd;

    if (poll(&pfd, 1, 0) != 0 || ioctl(s->master, TIOCGPGRP, &group) || group <= 0)
        return false;
    snprintf(path, sizeof(path), "/proc/%d/wchan", (int)group);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) /* gone: the shell will take its place, or others of the group are left to read */
        return ++s->leaderless > LEADERLESS_POLLS;
    s->leaderless = 0;
    n = read(fd, where, sizeof(where) - 1);
    close(fd);
    return n > 0 && (strstr(where, "poll") || strstr(where, "select") ||
                     strstr(where, "wait_woken") || strstr(where, "n_tty_read"));
}

/* Types the next line, or the end of file, once somebody reads. */
static void type_line(struct session *s)
{
    const uint8_t *newline = memchr(s->typed, '\n', s->typed_size);
    size_t size = newline ? (size_t)(newline - s->typed) + 1 : s->typed_size;
    ssize_t n;

    if (!newline && !s->typed_end && size < sizeof(s->typed))
        return; /* the rest of the line is still to come */
    if (!somebody_reads(s)) {
        s->typing_poll_ms =
            s->typing_poll_ms < TYPING_POLL_MOST_MS ? 2 * s->typing_poll_ms : TYPING_POLL_MOST_MS;
        return;
    }
    s->typing_poll_ms = TYPING_POLL_FIRST_MS;
    if (size > 0) {
        n = write(s->in, s->typed, size);
        if (n > 0) {
            s->newline_owed = s->typed[n - 1] != '\n';
            consume(s, (size_t)n);
            s->eofs = 0;
        }
    } else if (s->newline_owed) {
        s->newline_owed = write(s->in, "\n", 1) != 1;
    } else if (s->eofs++ < TYPED_EOFS) {
        write(s->in, "\4", 1);
    } else {
        close(s->slave);
        close(s->master);
        s->slave = s->master = s->in = s->out = -1;
    }
}

static void feed_command(struct session *s)
{
    ssize_t n;

    if (s->mode == MODE_TYPED) {
        type_line(s);
        return;
    }
    if (s->typed_size > 0) {
        n = write(s->in, s->typed, s->typed_size);
        if (n > 0) {
            consume(s, (size_t)n);
        } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
            if (s->mode == MODE_PIPE) {
                close(s->in);
                s->in = -1;
            }
            consume(s, s->typed_size);
        }
    }
    if (s->typed_size == 0 && s->typed_end && s->mode == MODE_PIPE && s->in >= 0) {
        close(s->in);
        s->in = -1;
    }
}

/* --- From the command -------------------------------------------------------------------- */

/* Where input is typed no terminal can answer the shell's question for the cursor's position, and
 * the question would only be noise in what may be a file. */
static size_t drop_question(uint8_t *bytes, size_t size)
{
    static const char question[] = "\033[6n";
    const size_t length = sizeof(question) - 1;
    size_t kept = 0;

    for (size_t i = 0; i < size;) {
        if (size - i >= length && !memcmp(bytes + i, question, length))
            i += length;
        else
            bytes[kept++] = bytes[i++];
    }
    return kept;
}

/* Passes on what FD has, as far as the credit goes. False when nothing came. */
static bool pass_output(struct session *s, int *fd, enum proto_type type)
{
    uint8_t bytes[PROTO_PAYLOAD];
    size_t most = s->out_credit < sizeof(bytes) ? s->out_credit : sizeof(bytes);
    ssize_t n;

    if (*fd < 0 || most == 0)
        return false;
    n = read(*fd, bytes, most);
    if (n > 0) {
        size_t size = s->mode == MODE_TYPED ? drop_question(bytes, (size_t)n) : (size_t)n;

        s->out_credit -= (uint32_t)size;
        send_frame(s, type, bytes, size);
        return true;
    }
    if (s->mode == MODE_PIPE && (n == 0 || (errno != EAGAIN && errno != EINTR))) {
        close(*fd);
        *fd = -1;
    }
    return false;
}

/* Everything the command wrote before it ended, however long the host takes to write it down. */
static void finish_output(struct session *s)
{
    for (;;) {
        struct pollfd pfd = {s->line, POLLIN, 0};

        if (s->out_credit > 0) {
            bool more = pass_output(s, &s->out, PROTO_OUT);

            more |= pass_output(s, &s->err, PROTO_ERR);
            if (!more && s->out_credit > 0)
                return;
        } else {
            poll(&pfd, 1, -1);
            read_line(s);
        }
    }
}

static void wait_for_work(struct session *s)
{
    bool typing = s->mode == MODE_TYPED && (s->typed_size > 0 || s->typed_end);
    bool feeding = s->mode != MODE_TYPED && s->in >= 0 && s->typed_size > 0;
    struct pollfd pfd[5] = {
        {s->line, POLLIN, 0},
        {wakeup[0], POLLIN, 0},
        {s->out_credit ? s->out : -1, POLLIN, 0},
        {s->out_credit ? s->err : -1, POLLIN, 0},
        {feeding ? s->in : -1, POLLOUT, 0},
    };
    int timeout = !s->running ? HELLO_EVERY_MS : typing ? (int)s->typing_poll_ms : -1;

    if (s->in >= 0 && s->in == s->out && feeding) {
        pfd[2].events |= POLLOUT;
        pfd[4].fd = -1;
        if (!s->out_credit)
            pfd[2] = (struct pollfd){s->in, POLLOUT, 0};
    }
    if (poll(pfd, 5, timeout) == 0 && !s->running)
        send_hello(s);
    if (pfd[0].revents)
        read_line(s);
    if (pfd[1].revents)
        drain_wakeup();
}

static void run_session(struct session *s)
{
    struct termios t;
    uint8_t status;

    s->line = open("/dev/ttyS1", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (s->line < 0 || tcgetattr(s->line, &t))
        die("cannot open COM2");
    cfmakeraw(&t);
    cfsetspeed(&t, B115200);
    t.c_cflag |= CLOCAL | CREAD;
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    tcsetattr(s->line, TCSAFLUSH, &t);
    s->master = s->slave = s->in = s->out = s->err = -1;
    s->out_credit = PROTO_WINDOW;
    s->typing_poll_ms = TYPING_POLL_FIRST_MS;
    if (getrandom(&s->nonce, sizeof(s->nonce), GRND_NONBLOCK) < 0) {
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        s->nonce = (uint32_t)now.tv_nsec;
    }
    send_hello(s);
    while (!asked && !s->ended) {
        wait_for_work(s);
        if (s->running) {
            feed_command(s);
            pass_output(s, &s->out, PROTO_OUT);
            pass_output(s, &s->err, PROTO_ERR);
            s->ended = reap(s->child, &s->status);
        }
    }
    kill(-1, SIGKILL); /* else what still runs could write for ever */
    if (s->running)
        finish_output(s);
    if (s->ended) {
        status = (uint8_t)s->status;
        send_frame(s, PROTO_EXIT, &status, 1);
        await_end(s);
    }
    tcdrain(s->line);
}

int main(int argc, char **argv)
{
    static struct session session;

    if (getpid() != 1) { /* the DHCP client's */
        network_event(argc > 1 ? argv[1] : "");
        return 0;
    }
    set_up_system();
    start_agent(0);
    if (read_session(&session))
        run_session(&session);
    else
        console_shell();
    end_machine(asked ? asked : RB_POWER_OFF);
}
