/*
 * A Linux guest whose machine is moved: again and again, while requests of its devices are in
 * flight, it is paused, saved, destroyed, made again in the next of some engines, and goes on.
 * moved.py says what the guest does and compares what it says with what the host has.
 *
 *     moved [--engine NAME[,NAME]...] [--moves N] [--seed N] [--cpus N] [--switch] [--lan SOCKET]
 *           --device DESCRIPTION... --type LINE KERNEL INITRD
 *
 * With --switch the machine stays the same and gets the next engine. With --lan a card on a virtual
 * switch finds that at SOCKET.
 *
 * LINE is typed at the first prompt. Then the guest says ROUND whenever it has done something more;
 * the machine is moved a little later, at places that depend on the seed. After the last move END
 * is typed, and the guest has to power itself off. The output is the guest's, and a line of our
 * own.
 */
#include "../lockstep/kernel.h"
#include "../lockstep/restore.h"
#include "../variants.h"

#include "base/time.h"
#include "base/unix_socket.h"
#include "base/util.h"
#include "dev/virtio/serve.h"
#include "net/remote_link.h"
#include "net/switch.h"
#include "vm/vm.h"

#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PROMPT "# "
#define ROUND  "@@round"
#define END    "end\n"

#define OUTPUT_MAX   (1 * MiB)
#define ENGINES_MAX  8
#define DEVICES_MAX  8
#define MOST_ROUNDS  3                /* between two moves, on average two */
#define MOST_WAIT_NS (20 * NS_PER_MS) /* after the last of them */
#define GREETING_NS  (60 * NS_PER_S)

struct options {
    const char *kernel, *initrd, *line, *lan;
    const char *devices[DEVICES_MAX + 1];
    unsigned device_count, cpus, moves;
    bool switched; /* in one machine */
    uint64_t seed;
    unsigned engines;
    struct engine_ops engine[ENGINES_MAX];
};

struct run {
    const struct options *options;
    struct vm_config config;
    struct vm *vm;
    struct chance chance;

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t more;
    char output[OUTPUT_MAX];
    size_t written, seen; /* SEEN: what was waited for is before */
    bool ended;
};

/* Requests that were in flight when a machine was saved: what the frame holds then. */
static unsigned in_flight;

void __real_virtio_queue_held_state(struct virtio_queue *q, struct state *s);
void __wrap_virtio_queue_held_state(struct virtio_queue *q, struct state *s);
void __wrap_virtio_queue_held_state(struct virtio_queue *q, struct state *s)
{
    if (state_saving(s))
        in_flight += q->held_count;
    __real_virtio_queue_held_state(q, s);
}

/* ---- What the guest says ---- */

static void on_output(void *opaque, const void *data, size_t size)
{
    struct run *r = opaque;

    pthread_mutex_lock(&r->lock);
    size = MIN(size, OUTPUT_MAX - r->written);
    memcpy(r->output + r->written, data, size);
    r->written += size;
    fwrite(data, 1, size, stdout);
    pthread_cond_broadcast(&r->more);
    pthread_mutex_unlock(&r->lock);
}

static void on_end(void *opaque)
{
    struct run *r = opaque;

    pthread_mutex_lock(&r->lock);
    r->ended = true;
    pthread_cond_broadcast(&r->more);
    pthread_mutex_unlock(&r->lock);
}

/* Waits until the guest has said WORDS, behind what was waited for before. False: it has ended. */
static bool await(struct run *r, const char *words)
{
    const char *found;
    bool ended;

    pthread_mutex_lock(&r->lock);
    while (!(found = memmem(r->output + r->seen, r->written - r->seen, words, strlen(words))) &&
           !r->ended)
        pthread_cond_wait(&r->more, &r->lock);
    if (found)
        r->seen = (size_t)(found - r->output) + strlen(words);
    ended = !found;
    pthread_mutex_unlock(&r->lock);
    if (ended)
        printf("moved: the guest has ended without \"%s\"\n", words);
    return !ended;
}

/* As a user types: when there is room. */
static void type(struct run *r, const char *text)
{
    size_t size = strlen(text);

    while (size) {
        size_t taken = vm_serial_input(r->vm, 0, text, size);

        text += taken;
        size -= taken;
        if (size)
            time_sleep_ns(NS_PER_MS);
    }
}

/* ---- The switch ---- */

struct connector {
    const char *lan;
    int link;
};

/* Makes a connection to the switch whenever the machine's card asks for one. */
static void *connect_card(void *opaque)
{
    struct connector *c = opaque;

    while (remote_link_await(c->link)) {
        struct error err = {0};
        int fd = unix_socket_connect(c->lan, &err), ret;

        ret = fd < 0 ? fd : switch_greet(fd, "moved", GREETING_NS, &err);
        remote_link_answer(c->link, ret < 0 ? ret : fd, &err);
        if (fd >= 0)
            close(fd);
        remote_link_done(c->link);
    }
    close(c->link);
    free(c);
    return NULL;
}

static int link_to_switch(void *opaque, const char *name)
{
    const struct options *o = opaque;
    struct connector *c = o->lan && name ? malloc(sizeof(*c)) : NULL;
    pthread_t thread;
    int ends[2];

    if (!c || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
        free(c);
        return -1;
    }
    *c = (struct connector){.lan = o->lan, .link = ends[1]};
    pthread_create(&thread, NULL, connect_card, c);
    pthread_detach(thread);
    return ends[0];
}

/* ---- Moving ---- */

/* The machine is not there when this fails. */
static bool move(struct run *r, unsigned n)
{
    const struct options *o = r->options;
    struct error err = {0};

    if (o->switched) {
        if (vm_switch_engine(r->vm, &o->engine[n % o->engines], &err) == 0)
            return true;
        printf("moved: %s\n", err.text);
        return false;
    }
    vm_pause(r->vm);
    r->vm = restore(r->vm, &o->engine[n % o->engines], &r->config);
    if (!r->vm)
        return false;
    /* What has ended is the machine that was destroyed. */
    pthread_mutex_lock(&r->lock);
    r->ended = false;
    pthread_mutex_unlock(&r->lock);
    if (vm_start(r->vm, &err) == 0)
        return true;
    printf("moved: %s\n", err.text);
    return false;
}

static bool move_often(struct run *r)
{
    const struct options *o = r->options;

    for (unsigned n = 1; n <= o->moves; n++) {
        for (uint64_t i = chance_around(&r->chance, MOST_ROUNDS - 1); i; i--)
            if (!await(r, ROUND))
                return false;
        time_sleep_ns(chance_around(&r->chance, MOST_WAIT_NS / 2));
        if (!move(r, n))
            return false;
    }
    /* The last one goes on, too. */
    return await(r, ROUND);
}

static bool run(struct run *r)
{
    static struct vm_end end;

    if (!await(r, PROMPT))
        return false;
    type(r, r->options->line);
    type(r, "\n");
    if (!move_often(r))
        return false;
    type(r, END);
    vm_wait(r->vm, -1, &end);
    printf("\nmoved: %u times with seed %" PRIu64, r->options->moves, r->options->seed);
    if (!r->options->switched) /* restore() saves twice */
        printf(", %u requests were in flight", in_flight / 2);
    printf("\n");
    if (end.outcome != VM_POWEROFF)
        printf("moved: the guest has not powered itself off\n%s\n", end.report);
    return end.outcome == VM_POWEROFF;
}

/* ---- The program ---- */

static void tell(void *opaque, enum log_level level, const char *text)
{
    printf("moved: %s: %s\n", log_level_name(level), text);
}

static bool run_image(const struct options *o, struct boot_image *image)
{
    static const struct log log = {.most = LOG_LEVEL_WARNING, .line = tell, .tell = tell};
    struct run *r = calloc(1, sizeof(*r));
    struct error err = {0};
    bool good = false;

    if (!r)
        return false;
    r->options = o;
    r->chance.state = o->seed * 2 + 1;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->more, NULL);
    r->config = (struct vm_config){
        .cpus = o->cpus,
        .memory = 128 * MiB,
        .load = kernel_load,
        .load_opaque = image,
        .log = &log,
        .events = {.ended = on_end, .opaque = r},
        .devices = {.list = o->devices,
                    .serial[0].sent = {.output = on_output, .opaque = r},
                    .remote = link_to_switch,
                    .remote_opaque = (void *)o},
    };
    r->vm = vm_create(&o->engine[0], &r->config, &err);
    if (r->vm && vm_start(r->vm, &err) == 0)
        good = run(r);
    else
        printf("moved: %s\n", err.text);
    vm_destroy(r->vm);
    free(r);
    return good;
}

static bool boot_and_run(const struct options *o)
{
    struct kernel kernel;
    bool good;

    if (!kernel_open(&kernel, o->kernel, o->initrd, "console=ttyS0 quiet cryptomgr.notests"))
        return false;
    good = run_image(o, kernel.image);
    kernel_close(&kernel);
    return good;
}

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {{"engine", required_argument, NULL, 'e'},
                                          {"moves", required_argument, NULL, 'm'},
                                          {"seed", required_argument, NULL, 's'},
                                          {"cpus", required_argument, NULL, 'c'},
                                          {"device", required_argument, NULL, 'd'},
                                          {"switch", no_argument, NULL, 'w'},
                                          {"type", required_argument, NULL, 't'},
                                          {"lan", required_argument, NULL, 'l'},
                                          {0}};
    char bt[] = "bt", *engines = bt;
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'e': engines = optarg; break;
        case 'm': o->moves = (unsigned)strtoul(optarg, NULL, 0); break;
        case 's': o->seed = strtoull(optarg, NULL, 0); break;
        case 'c': o->cpus = (unsigned)strtoul(optarg, NULL, 0); break;
        case 'w': o->switched = true; break;
        case 't': o->line = optarg; break;
        case 'l': o->lan = optarg; break;
        case 'd':
            if (o->device_count == DEVICES_MAX)
                return false;
            o->devices[o->device_count++] = optarg;
            break;
        default: return false;
        }
    }
    o->engines = variants_find(engines, o->engine, ENGINES_MAX);
    if (argc - optind != 2 || !o->line || !o->engines)
        return false;
    o->kernel = argv[optind];
    o->initrd = argv[optind + 1];
    return true;
}

int main(int argc, char **argv)
{
    struct options options = {.cpus = 1, .moves = 1};

    if (!parse(argc, argv, &options)) {
        fprintf(stderr, "usage: moved [OPTION]... KERNEL INITRD; see moved.c\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    return !boot_and_run(&options);
}
