/*
 * Consoles: from a description to a device with open host ends behind its ports.
 */
#include "vm/console_ports.h"

#include "base/util.h"
#include "vm/description.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Ports while they are put together. Consoles stand first, as a driver that knows no more than one
 * port looks at the first one. */
struct ports {
    struct virtio_console_port port[VIRTIO_CONSOLE_PORTS_MAX];
    unsigned count, consoles;
};

static bool is_console(const char *name)
{
    return strncmp(name, "hvc", 3) == 0 && name[3] &&
           strspn(name + 3, "0123456789") == strlen(name + 3);
}

/* What may be the name of a file in the guest's /dev/virtio-ports. */
static int check_name(const char *text, const struct ports *ports, const char *name,
                      struct error *err)
{
    size_t length = strlen(name);

    if (!length || length > VIRTIO_CONSOLE_NAME_MAX || name[0] == '.' ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != length)
        return error_set(err, EINVAL,
                         "device %s: '%s' is no name of a port: 1 to %d letters, digits, '.', '_' "
                         "and '-'",
                         text, name, VIRTIO_CONSOLE_NAME_MAX);
    for (unsigned i = ports->consoles; i < ports->count; i++)
        if (strcmp(ports->port[i].name, name) == 0)
            return error_set(err, EINVAL, "device %s: '%s' is given twice", text, name);
    return 0;
}

/* Adds a port; NAME "" is a console's. */
static void add(struct ports *ports, const char *name, struct con_end *end)
{
    unsigned at = *name ? ports->count : ports->consoles++;

    memmove(&ports->port[at + 1], &ports->port[at], (ports->count - at) * sizeof(ports->port[0]));
    ports->port[at] = (struct virtio_console_port){.end = end};
    strcpy(ports->port[at].name, name);
    ports->count++;
}

struct opener {
    const char *text;
    const struct con_given *given;
    struct loop *loop;
    struct con_end **tty;
    struct ports ports;
};

/* Opens one port. Consoles are numbered by their order, which their names must say. */
static int open_port(struct opener *o, const char *name, const char *where, struct error *err)
{
    bool console = is_console(name), tty = strcmp(where, "tty") == 0;
    struct con_end *end;

    if (o->ports.count == VIRTIO_CONSOLE_PORTS_MAX)
        return error_set(err, EINVAL, "a console has at most %d ports: device %s",
                         VIRTIO_CONSOLE_PORTS_MAX, o->text);
    if (console && strtoul(name + 3, NULL, 10) != o->ports.consoles)
        return error_set(err, EINVAL, "device %s: '%s' comes where hvc%u must", o->text, name,
                         o->ports.consoles);
    if (!console && check_name(o->text, &o->ports, name, err) < 0)
        return -err->code;
    if (tty && *o->tty)
        return error_set(err, EINVAL, "device %s: only one port can be the tty", o->text);
    end = con_end_open(where, o->given, o->loop, err);
    if (!end)
        return -err->code;
    if (tty)
        *o->tty = end;
    add(&o->ports, console ? "" : name, end);
    return 0;
}

static int open_setting(void *opaque, const char *key, const char *value, struct error *err)
{
    return strcmp(key, "slot") == 0 ? 0 : open_port(opaque, key, value, err);
}

static void close_all(struct opener *o)
{
    for (unsigned i = 0; i < o->ports.count; i++)
        con_end_close(o->ports.port[i].end);
}

struct dev *console_ports_create(const struct virtio_slot *slot, const char *text,
                                 const struct con_given *given, struct con_end **tty,
                                 struct error *err)
{
    struct con_end *before = *tty;
    struct opener o = {.text = text, .given = given, .loop = slot->loop, .tty = tty};
    struct dev *dev = NULL;
    int ret = description_each(text, open_setting, &o, err);

    if (ret == 0 && o.ports.count == 0)
        ret = open_port(&o, "hvc0", "tty", err);
    if (ret == 0)
        dev = virtio_console_create(slot, o.ports.port, o.ports.count, err);
    else
        close_all(&o);
    if (!dev)
        *tty = before;
    return dev;
}
