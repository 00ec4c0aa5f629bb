/*
 * Boots a kernel twice, in two virtual machines of one process, and prints what each sends on its
 * serial port, line by line:
 *
 *     cc pair.c $(pkg-config --cflags --libs doppel) -o pair
 *     ./pair KERNEL [COMMAND_LINE [INITRD]]
 *
 * Exits with 0 when both guests have powered themselves off.
 */
#include <doppel.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#define MACHINES 2
/* What a machine may send before it has to wait for us, and what it sends beyond that. */
#define ENOUGH 4096
#define ROOM   (ENOUGH + DOPPEL_OUTPUT_EXCESS)

struct machine {
    const char *name;
    struct doppel_vm *vm;
    struct doppel_events *events;
    int output_fd; /* an eventfd: there is output */
    pthread_mutex_t lock;
    char output[ROOM]; /* guarded by the lock */
    size_t size;
    char line[ROOM]; /* what has been taken of it, up to the end of the line */
    size_t length;
    struct doppel_end end;
};

/* ---- On the machine's threads: these must not wait ---- */

static void take_output(void *opaque, const void *data, size_t size)
{
    struct machine *m = opaque;

    pthread_mutex_lock(&m->lock);
    memcpy(m->output + m->size, data, size);
    m->size += size;
    pthread_mutex_unlock(&m->lock);
    eventfd_write(m->output_fd, 1);
}

static bool has_enough(void *opaque)
{
    struct machine *m = opaque;
    bool enough;

    pthread_mutex_lock(&m->lock);
    enough = m->size >= ENOUGH;
    pthread_mutex_unlock(&m->lock);
    return enough;
}

/* ---- On the main thread ---- */

static void print_line(struct machine *m)
{
    printf("%s: %.*s\n", m->name, (int)m->length, m->line);
    fflush(stdout);
    m->length = 0;
}

static void print_output(struct machine *m)
{
    char output[ROOM];
    size_t size;

    pthread_mutex_lock(&m->lock);
    size = m->size;
    memcpy(output, m->output, size);
    m->size = 0;
    pthread_mutex_unlock(&m->lock);
    doppel_output_room(m->vm);
    for (size_t i = 0; i < size; i++) {
        if (output[i] == '\n' || m->length == sizeof(m->line))
            print_line(m);
        if (output[i] >= ' ' && output[i] <= '~')
            m->line[m->length++] = output[i];
    }
}

/* Returns whether the machine still runs. */
static bool print_event(struct machine *m)
{
    struct doppel_event event;

    if (doppel_events_next(m->events, 0, &event) < 0)
        return true;
    switch (event.kind) {
    case DOPPEL_EVENT_LOG: printf("%s: (%s)\n", m->name, event.text); return true;
    case DOPPEL_EVENT_RESET: printf("%s: (begins anew)\n", m->name); return true;
    case DOPPEL_EVENT_ENDED: break;
    default: return true;
    }
    print_output(m);
    if (m->length)
        print_line(m);
    doppel_wait(m->vm, -1, &m->end);
    printf("%s: (%s)\n%s", m->name,
           m->end.outcome == DOPPEL_POWEROFF ? "powered off" : "ended otherwise", m->end.report);
    fflush(stdout);
    return false;
}

static bool start(struct machine *m, struct doppel_config *config)
{
    struct doppel_error err;

    m->output_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&m->lock, NULL);
    config->serial[0].output = take_output;
    config->serial[0].full = has_enough;
    config->serial[0].opaque = m;
    m->vm = doppel_create(config, &err);
    if (m->vm)
        m->events = doppel_events_open(m->vm, &err);
    if (m->output_fd < 0 || !m->events || doppel_start(m->vm, &err) < 0) {
        fprintf(stderr, "%s: %s\n", m->name, err.text);
        return false;
    }
    return true;
}

static void run(struct machine machines[MACHINES])
{
    struct pollfd fds[2 * MACHINES];
    unsigned running = MACHINES;
    eventfd_t count;

    for (unsigned i = 0; i < MACHINES; i++) {
        fds[2 * i] = (struct pollfd){machines[i].output_fd, POLLIN, 0};
        fds[2 * i + 1] = (struct pollfd){doppel_events_fd(machines[i].events), POLLIN, 0};
    }
    while (running > 0 && (poll(fds, 2 * MACHINES, -1) >= 0 || errno == EINTR)) {
        for (unsigned i = 0; i < MACHINES; i++) {
            if (fds[2 * i].revents && eventfd_read(machines[i].output_fd, &count) == 0)
                print_output(&machines[i]);
            if (fds[2 * i + 1].revents && !print_event(&machines[i])) {
                running--;
                fds[2 * i].fd = fds[2 * i + 1].fd = -1;
            }
        }
    }
}

int main(int argc, char **argv)
{
    static struct machine machines[MACHINES] = {{.name = "one"}, {.name = "two"}};
    struct doppel_config config;
    bool good = true;

    if (argc < 2) {
        fprintf(stderr, "usage: %s KERNEL [COMMAND_LINE [INITRD]]\n", argv[0]);
        return EXIT_FAILURE;
    }
    doppel_config_init(&config);
    config.memory = 256 << 20;
    config.kernel = argv[1];
    config.command_line = argc > 2 ? argv[2] : NULL;
    config.initrd = argc > 3 ? argv[3] : NULL;
    for (unsigned i = 0; i < MACHINES && good; i++)
        good = start(&machines[i], &config);
    if (good)
        run(machines);
    for (unsigned i = 0; i < MACHINES; i++) {
        good = good && machines[i].end.outcome == DOPPEL_POWEROFF;
        if (machines[i].vm)
            doppel_destroy(machines[i].vm);
    }
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
