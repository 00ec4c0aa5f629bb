/*
 * The virtio console (Virtual I/O Device specification 1.2, 5.3).
 *
 *      queue 0, 1     port 0: what the guest receives, what it sends
 *      queue 2, 3     control: messages to the guest, from the guest
 *      queue 4, 5     port 1, and so on
 *
 * What the guest is to be told of a port is a set of bits, so it takes no memory however often it
 * changes, and the guest hears the last state of things. No request is ever in flight: one that
 * cannot be served yet waits (VIRTIO_WAIT).
 */
#include "dev/virtio/console.h"

#include "base/util.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define F_SIZE      0
#define F_MULTIPORT 1

#define CONTROL_RECEIVE 2
#define CONTROL_SEND    3

#define COPY_BYTES 4096u  /* at a time */
#define TURN_BYTES 65536u /* of one request, before other requests have their turn */

/* Device configuration (5.3.4). */
struct config {
    uint16_t columns, rows;
    uint32_t ports, emergency;
};

/* Control messages (5.3.6.2). */
struct message {
    uint32_t port;
    uint16_t event, value;
};
enum {
    DEVICE_READY,
    PORT_ADD,
    PORT_REMOVE,
    PORT_READY,
    CONSOLE_PORT,
    RESIZE,
    PORT_OPEN,
    PORT_NAME
};
struct size {
    uint16_t columns, rows; /* behind a RESIZE: in this order (5.3.6.2.1) */
};

/* What the guest is to be told of a port, in this order. */
enum { TELL_ADD, TELL_CONSOLE, TELL_NAME, TELL_SIZE, TELL_OPEN, TELLS };
static const uint16_t tell_event[TELLS] = {PORT_ADD, CONSOLE_PORT, PORT_NAME, RESIZE, PORT_OPEN};
#define BIT(N) ((uint8_t)(1u << (N)))

struct console;

struct port {
    struct console *console;
    unsigned id;
    char name[VIRTIO_CONSOLE_NAME_MAX + 1];
    struct con_end *end;

    uint64_t sent; /* of the request that the guest sends; the queue's worker's */
    /* Guarded by the console's lock. */
    uint8_t tell;    /* bits of TELL_... */
    bool known;      /* the guest's driver has said that it is ready for the port */
    bool guest_open; /* a program in the guest has it open */
    bool told_open;  /* the last PORT_OPEN that the guest was told */
};

struct console {
    struct virtio_device device;
    struct loop_job resize; /* tells the guest of a new size */

    pthread_mutex_t lock; /* guards the rest, and what the ports say; the ends' come after it */
    uint16_t rows, columns;
    bool multiport; /* the driver knows more than port 0 */
    unsigned count;
    struct port port[];
};

static struct console *console_of(struct virtio_device *d)
{
    return container_of(d, struct console, device);
}

static unsigned receive_queue(const struct port *port)
{
    return port->id ? 2 * port->id + 2 : 0;
}

/* The port whose queue this is; not for the control queues. */
static struct port *port_of(struct console *c, unsigned queue)
{
    return &c->port[queue < CONTROL_RECEIVE ? 0 : queue / 2 - 1];
}

static bool is_console(const struct port *port)
{
    return !port->name[0];
}

/* ---- Messages to the guest ---- */

/* Has the guest told what BITS say of the port, if its driver listens. */
static void tell(struct port *port, uint8_t bits)
{
    struct console *c = port->console;
    bool listens;

    pthread_mutex_lock(&c->lock);
    listens = c->multiport && (port->known || bits == BIT(TELL_ADD));
    port->tell |= listens ? bits : 0;
    pthread_mutex_unlock(&c->lock);
    if (listens)
        virtio_wake(&c->device, CONTROL_RECEIVE);
}

/* Takes the next thing to tell, and says what it is. With the lock. */
static bool take_message(struct console *c, struct message *m)
{
    for (unsigned i = 0; i < c->count; i++) {
        struct port *port = &c->port[i];

        for (unsigned n = 0; n < TELLS; n++) {
            if (!(port->tell & BIT(n)))
                continue;
            port->tell &= (uint8_t)~BIT(n);
            *m = (struct message){.port = i, .event = tell_event[n], .value = n != TELL_ADD};
            if (n == TELL_OPEN)
                m->value = port->told_open = con_end_connected(port->end);
            return true;
        }
    }
    return false;
}

/* What follows a message. Returns its size. */
static size_t message_tail(const struct console *c, const struct message *m, void *tail)
{
    const struct size size = {.columns = c->columns, .rows = c->rows};

    if (m->event == RESIZE)
        memcpy(tail, &size, sizeof(size));
    else if (m->event == PORT_NAME)
        memcpy(tail, c->port[m->port].name, sizeof(c->port[m->port].name));
    return m->event == RESIZE      ? sizeof(size)
           : m->event == PORT_NAME ? strlen(c->port[m->port].name)
                                   : 0;
}

static enum virtio_result send_message(struct console *c, struct virtio_request *r)
{
    struct {
        struct message head;
        uint8_t tail[VIRTIO_CONSOLE_NAME_MAX + 1];
    } m;
    size_t size = 0;
    bool any;

    if (r->chain.writable_bytes < sizeof(m.head))
        return VIRTIO_BROKEN;
    pthread_mutex_lock(&c->lock);
    any = take_message(c, &m.head);
    if (any)
        size = sizeof(m.head) + message_tail(c, &m.head, m.tail);
    pthread_mutex_unlock(&c->lock);
    if (!any)
        return VIRTIO_WAIT;
    size = MIN(size, r->chain.writable_bytes);
    if (virtio_write_at(r, 0, &m, size) < 0)
        return VIRTIO_BROKEN;
    virtio_complete(r, (uint32_t)size);
    return VIRTIO_TAKEN;
}

/* ---- Messages from the guest ---- */

static void driver_ready(struct console *c)
{
    for (unsigned i = 0; i < c->count; i++)
        tell(&c->port[i], BIT(TELL_ADD));
}

static void port_ready(struct port *port)
{
    struct console *c = port->console;
    uint8_t bits = is_console(port) ? BIT(TELL_CONSOLE) : BIT(TELL_NAME);

    pthread_mutex_lock(&c->lock);
    port->known = true;
    if (is_console(port) && c->rows)
        bits |= BIT(TELL_SIZE);
    pthread_mutex_unlock(&c->lock);
    if (con_end_connected(port->end))
        bits |= BIT(TELL_OPEN);
    tell(port, bits);
}

static void port_open(struct port *port, bool open)
{
    pthread_mutex_lock(&port->console->lock);
    port->guest_open = open;
    pthread_mutex_unlock(&port->console->lock);
    virtio_wake(&port->console->device, receive_queue(port));
}

/* What the guest says of ports that do not exist means nothing. */
static enum virtio_result take_control(struct console *c, struct virtio_request *r)
{
    struct message m;

    if (virtio_read_at(r, 0, &m, sizeof(m)) < 0)
        return VIRTIO_BROKEN;
    if (m.event == DEVICE_READY && m.value)
        driver_ready(c);
    else if (m.event == PORT_READY && m.value && m.port < c->count)
        port_ready(&c->port[m.port]);
    else if (m.event == PORT_OPEN && m.port < c->count)
        port_open(&c->port[m.port], m.value);
    virtio_complete(r, 0);
    return VIRTIO_TAKEN;
}

/* ---- Bytes ---- */

/* Whether a program in the guest would get what the port receives. */
static bool receives(struct port *port)
{
    struct console *c = port->console;
    bool open;

    pthread_mutex_lock(&c->lock);
    open = is_console(port) || port->guest_open || !c->multiport;
    pthread_mutex_unlock(&c->lock);
    return open;
}

static enum virtio_result receive(struct port *port, struct virtio_request *r)
{
    uint8_t bytes[COPY_BYTES];
    size_t size = MIN(r->chain.writable_bytes, sizeof(bytes));

    if (!size)
        return VIRTIO_BROKEN;
    size = receives(port) ? con_end_read(port->end, bytes, size) : 0;
    if (!size)
        return VIRTIO_WAIT;
    if (virtio_write_at(r, 0, bytes, size) < 0)
        return VIRTIO_BROKEN;
    virtio_complete(r, (uint32_t)size);
    return VIRTIO_TAKEN;
}

/* A request that waits for its end begins again where it stopped. */
static enum virtio_result send(struct port *port, struct virtio_request *r)
{
    uint64_t total = r->chain.readable_bytes, most = port->sent + TURN_BYTES;
    uint8_t bytes[COPY_BYTES];

    while (port->sent < total) {
        size_t size = MIN(total - port->sent, sizeof(bytes)), written;

        if (port->sent >= most) {
            virtio_wake(&port->console->device, r->queue->index);
            return VIRTIO_WAIT;
        }
        if (virtio_read_at(r, port->sent, bytes, size) < 0)
            return VIRTIO_BROKEN;
        written = con_end_write(port->end, bytes, size);
        port->sent += written;
        if (written < size)
            return VIRTIO_WAIT;
    }
    port->sent = 0;
    virtio_complete(r, 0);
    return VIRTIO_TAKEN;
}

static enum virtio_result serve(struct virtio_device *d, struct virtio_request *r)
{
    struct console *c = console_of(d);
    unsigned queue = r->queue->index;

    if (queue == CONTROL_RECEIVE)
        return send_message(c, r);
    if (queue == CONTROL_SEND)
        return take_control(c, r);
    return queue % 2 ? send(port_of(c, queue), r) : receive(port_of(c, queue), r);
}

/* ---- The host ends ---- */

static void end_ready(void *opaque)
{
    struct port *port = opaque;

    virtio_wake(&port->console->device, receive_queue(port));
    virtio_wake(&port->console->device, receive_queue(port) + 1);
}

static void end_connected(void *opaque, bool connected)
{
    tell(opaque, BIT(TELL_OPEN));
}

/* ---- Size: on the loop's thread ---- */

static void tell_size(void *opaque)
{
    struct console *c = opaque;

    bus_lock(c->device.host.bus);
    virtio_config_changed(&c->device);
    bus_unlock(c->device.host.bus);
    for (unsigned i = 0; i < c->count; i++)
        if (is_console(&c->port[i]))
            tell(&c->port[i], BIT(TELL_SIZE));
}

void virtio_console_resize(struct dev *dev, unsigned rows, unsigned columns)
{
    struct console *c = console_of(virtio_pci_device(dev));

    pthread_mutex_lock(&c->lock);
    c->rows = (uint16_t)MIN(rows, UINT16_MAX);
    c->columns = (uint16_t)MIN(columns, UINT16_MAX);
    pthread_mutex_unlock(&c->lock);
    loop_post(c->device.host.loop, &c->resize);
}

/* ---- The device ---- */

static void read_config(struct virtio_device *d, void *image)
{
    struct console *c = console_of(d);
    struct config config = {.ports = c->count};

    pthread_mutex_lock(&c->lock);
    config.columns = c->columns;
    config.rows = c->rows;
    pthread_mutex_unlock(&c->lock);
    memcpy(image, &config, sizeof(config));
}

static void accepted(struct virtio_device *d, uint64_t features)
{
    struct console *c = console_of(d);

    pthread_mutex_lock(&c->lock);
    c->multiport = features >> F_MULTIPORT & 1;
    pthread_mutex_unlock(&c->lock);
}

static void reset(struct virtio_device *d)
{
    struct console *c = console_of(d);

    pthread_mutex_lock(&c->lock);
    c->multiport = false;
    for (unsigned i = 0; i < c->count; i++) {
        struct port *port = &c->port[i];

        port->sent = 0;
        port->tell = 0;
        port->known = port->guest_open = port->told_open = false;
    }
    pthread_mutex_unlock(&c->lock);
}

/* A guest that was told of a client who is not there any more, or not yet, hears of it. */
static void state_port(struct port *port, struct state *s)
{
    state_field(s, port->sent);
    state_field(s, port->tell);
    state_bool(s, &port->known);
    state_bool(s, &port->guest_open);
    state_bool(s, &port->told_open);
    con_end_state(port->end, s);
    port->tell &= (1u << TELLS) - 1;
    if (!state_saving(s) && port->known && port->told_open != con_end_connected(port->end))
        port->tell |= BIT(TELL_OPEN);
}

static void state(struct virtio_device *d, struct state *s)
{
    struct console *c = console_of(d);

    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < c->count; i++)
        state_port(&c->port[i], s);
    pthread_mutex_unlock(&c->lock);
}

static void close_ends(struct virtio_device *d)
{
    struct console *c = console_of(d);

    for (unsigned i = 0; i < c->count; i++) {
        con_end_close(c->port[i].end);
        c->port[i].end = NULL;
    }
    loop_cancel(d->host.loop, &c->resize);
}

static void free_console(struct virtio_device *d)
{
    struct console *c = console_of(d);

    pthread_mutex_destroy(&c->lock);
    free(c);
}

static const struct virtio_ops ops = {
    .name = "virtio-console",
    .id = 3,
    .features = 1 << F_SIZE | 1 << F_MULTIPORT,
    .queues = VIRTIO_QUEUES_MAX,
    .queue_size = 128,
    .config_size = sizeof(struct config),
    .serve = serve,
    .read_config = read_config,
    .accepted = accepted,
    .reset = reset,
    .state = state,
    .close = close_ends,
    .free = free_console,
};

static struct console *make(const struct virtio_console_port *ports, unsigned count)
{
    struct console *c = calloc(1, sizeof(*c) + count * sizeof(c->port[0]));

    if (!c)
        return NULL;
    c->count = count;
    c->device.queues = 2 * count + 2;
    c->resize = (struct loop_job){.run = tell_size, .opaque = c};
    pthread_mutex_init(&c->lock, NULL);
    for (unsigned i = 0; i < count; i++) {
        struct port *port = &c->port[i];

        port->console = c;
        port->id = i;
        memcpy(port->name, ports[i].name, sizeof(port->name));
        port->end = ports[i].end;
    }
    return c;
}

struct dev *virtio_console_create(const struct virtio_slot *slot,
                                  const struct virtio_console_port *ports, unsigned count,
                                  struct error *err)
{
    struct console *c = make(ports, count);
    struct dev *dev = c ? virtio_pci_create(slot, &ops, &c->device, err) : NULL;

    for (unsigned i = 0; i < count; i++) {
        const struct con_end_events events = {
            .ready = end_ready, .connected = end_connected, .opaque = c ? &c->port[i] : NULL};

        if (dev)
            con_end_begin(ports[i].end, &events);
        else if (!c || c->port[i].end)
            con_end_close(ports[i].end);
    }
    if (!c)
        error_set(err, ENOMEM, "no memory for a device (%s)", ops.name);
    else if (!dev)
        free_console(&c->device);
    return dev;
}
