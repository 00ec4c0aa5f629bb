/*
 * Connects a VM's serial ports with this process's standard streams.
 */
#include "cli/console.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "cli/attendant.h"
#include "cli/cli.h"
#include "cli/console_line.h"
#include "cli/sink.h"
#include "con/keys.h"
#include "con/outbox.h"
#include "con/session.h"
#include "con/tty.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define OUTBOX_SIZE   (64 * 1024)
#define OUTBOX_EXCESS ((size_t)DOPPEL_MAX_CPUS * DOPPEL_OUTPUT_EXCESS)
#define INPUT_SIZE    (16 * 1024)
#define TAIL_SIZE     4096
#define LAST_LINES    10

/* Typing on a console without a session: a guest that has been silent for so long is taken to wait
 * for input; the first time it must be surer, for it may only be slow to boot. */
#define SILENCE_FIRST_MS  1500
#define SILENCE_MS        200
#define SILENCE_EOF_MS    5000
#define SILENCE_BUTTON_MS 60000
#define BUTTON_GRACE_MS   15000

/* What goes to a serial port and has not been taken yet. More is put there only when little is
 * left, so that it stays below what can be read from standard input and sent at once. */
#define TX_LITTLE 1024
struct tx {
    uint8_t *data;
    size_t size, capacity;
};

struct console {
    struct console_config config;
    struct doppel_vm *vm;
    struct doppel_events *events;
    struct session *session;
    struct tty *tty;
    bool borrowed; /* the terminal is in raw mode */
    struct attendant *attendant;

    int wake_fd;
    struct outbox *com[2], *debug;
    struct sink out, err; /* standard output and standard error */
    struct sink debug_out;
    struct console_line *line; /* in the place of both, in the background; or NULL */
    size_t line_done;          /* bytes of the session's that went there */
    bool line_waits;           /* the guest has printed more than it had room for */
    struct tx tx[2];

    uint8_t input[INPUT_SIZE]; /* read, not yet passed on */
    size_t input_size;
    bool input_ended;
    bool no_input; /* a console without a session, and standard input is the null device */

    char tail[TAIL_SIZE + 1];
    size_t tail_size;

    int64_t start_ms, boot_ms;
    bool session_begun;
    /* A virtio console is the terminal, too, and has spoken after COM1: what is typed is for it. */
    _Atomic bool hvc;

    /* A console without a session. */
    int64_t last_output_ms, last_typed_ms, button_ms;
    bool any_output, any_typed;

    pthread_t waiter;
    atomic_bool vm_ended;
    struct doppel_end end;
    enum console_end how;
    bool over; /* HOW is set */
    int signal;
};

static int64_t now_ms(void)
{
    return (int64_t)(time_now_ns() / NS_PER_MS);
}

static void finish(struct console *c, enum console_end how)
{
    if (!c->over)
        c->how = how;
    c->over = true;
}

static void wake(struct console *c)
{
    uint64_t one = 1;

    if (write(c->wake_fd, &one, sizeof(one)) < 0)
        return; /* the counter is full: the loop will wake up as it is */
}

/* --- Serial ports; called on the VM's threads --------------------------------------------- */

static void box_output(void *opaque, const void *data, size_t size)
{
    outbox_put(opaque, data, size);
}

static bool box_full(void *opaque)
{
    return outbox_full(opaque);
}

static void com1_output(void *opaque, const void *data, size_t size)
{
    struct console *c = opaque;

    atomic_store(&c->hvc, false);
    box_output(c->com[0], data, size);
}

static void hvc_output(void *opaque, const void *data, size_t size)
{
    struct console *c = opaque;

    atomic_store(&c->hvc, true);
    box_output(c->com[0], data, size);
}

static bool com1_full(void *opaque)
{
    return outbox_full(((struct console *)opaque)->com[0]);
}

static void com2_output(void *opaque, const void *data, size_t size)
{
    box_output(((struct console *)opaque)->com[1], data, size);
}

static bool com2_full(void *opaque)
{
    return outbox_full(((struct console *)opaque)->com[1]);
}

static void input_ready(void *opaque)
{
    wake(opaque);
}

void console_plug(struct console *c, struct doppel_config *config)
{
    config->serial[0] = (struct doppel_serial){com1_output, com1_full, input_ready, c};
    if (c->session)
        config->serial[1] = (struct doppel_serial){com2_output, com2_full, input_ready, c};
    config->console = (struct doppel_serial){hvc_output, com1_full, input_ready, c};
    if (c->debug) {
        config->debug_output = box_output;
        config->debug_full = box_full;
        config->debug_opaque = c->debug;
    }
}

/* Takes from BOX; a guest that was held because it was full goes on. */
static size_t take(struct console *c, struct outbox *box, void *data, size_t size)
{
    bool room;
    size_t n = outbox_take(box, data, size, &room);

    if (room)
        doppel_output_room(c->vm);
    return n;
}

/* --- To the guest -------------------------------------------------------------------------- */

static void transmit(struct console *c, unsigned port, const void *data, size_t size)
{
    struct tx *tx = &c->tx[port];

    if (tx->size + size > tx->capacity) {
        size_t capacity = 2 * (tx->size + size);
        uint8_t *bigger = realloc(tx->data, capacity);

        if (!bigger)
            return; /* as a serial line, it may lose bytes */
        tx->data = bigger;
        tx->capacity = capacity;
    }
    if (size > 0)
        memcpy(tx->data + tx->size, data, size);
    tx->size += size;
    if (tx->size > 0) {
        size_t taken = port == 0 && atomic_load(&c->hvc)
                           ? doppel_console_input(c->vm, tx->data, tx->size)
                           : doppel_serial_input(c->vm, port, tx->data, tx->size);

        tx->size -= taken;
        memmove(tx->data, tx->data + taken, tx->size);
    }
}

/* The first that goes to the guest is that it shall begin. */
static void session_send(void *opaque, const uint8_t *data, size_t size)
{
    struct console *c = opaque;

    if (!c->session_begun && c->config.on_session)
        c->config.on_session(c->config.opaque, c->vm);
    c->session_begun = true;
    transmit(c, 1, data, size);
}

static bool session_ready(void *opaque)
{
    return ((const struct console *)opaque)->tx[1].size < TX_LITTLE;
}

static void session_output(void *opaque, int fd, const uint8_t *data, size_t size)
{
    struct console *c = opaque;

    if (c->line) {
        console_line_put(c->line, data, size);
        c->line_done += size;
        return;
    }
    sink_put(fd == 1 ? &c->out : &c->err, data, size);
}

/* Whether standard input is what a program gets that is to have none: the guest is then left alone,
 * while an input that has ended has the guest end, too. */
static bool has_no_input(void)
{
    struct stat st;

    return fstat(STDIN_FILENO, &st) < 0 ||
           (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)); /* Linux, devices.txt */
}

/* Types at a console without a session: a line at a time when the guest is silent, in the end
 * Ctrl-D, and if nothing helps the power button and then the plug. */
static void type_at_console(struct console *c)
{
    int64_t now = now_ms(), silent = now - MAX(c->last_output_ms, c->last_typed_ms);
    uint8_t *newline = memchr(c->input, '\n', c->input_size);
    size_t size = newline ? (size_t)(newline - c->input) + 1 : c->input_size;

    if (c->button_ms) {
        if (now - c->button_ms > BUTTON_GRACE_MS)
            finish(c, CONSOLE_UNHEEDED);
        return;
    }
    if (!c->any_output || c->tx[0].size > 0 ||
        silent < (c->any_typed ? SILENCE_MS : SILENCE_FIRST_MS))
        return;
    if (size > 0 && (newline || c->input_ended || size == sizeof(c->input))) {
        transmit(c, 0, c->input, size);
        c->input_size -= size;
        memmove(c->input, c->input + size, c->input_size);
    } else if (c->input_ended && now - c->last_output_ms > SILENCE_BUTTON_MS) {
        doppel_power_button(c->vm);
        c->button_ms = now;
    } else if (c->input_ended && (now - c->last_typed_ms > SILENCE_EOF_MS)) {
        transmit(c, 0, "\4", 1);
    } else {
        return;
    }
    c->any_typed = true;
    c->last_typed_ms = now;
}

/* Whether what the user types is the console's, rather than what a file says. */
static bool is_typed(const struct console *c)
{
    return c->config.raw || (c->line && !c->session);
}

static void pass_input(struct console *c)
{
    size_t n;

    transmit(c, 0, NULL, 0);
    transmit(c, 1, NULL, 0);
    if (!c->session && !is_typed(c)) {
        if (!c->no_input)
            type_at_console(c);
        return;
    }
    if (c->session) {
        session_flush(c->session);
        n = MIN(session_room(c->session), c->input_size);
    } else {
        n = c->tx[0].size < TX_LITTLE ? c->input_size : 0;
    }
    if (!c->session)
        transmit(c, 0, c->input, n);
    else
        session_input(c->session, c->input, n);
    c->input_size -= n;
    memmove(c->input, c->input + n, c->input_size);
    if (c->session && c->input_ended && c->input_size == 0)
        session_input_end(c->session);
}

static void read_input(struct console *c)
{
    ssize_t n = read(STDIN_FILENO, c->input + c->input_size, sizeof(c->input) - c->input_size);

    if (n > 0)
        c->input_size += (size_t)n;
    else if (n == 0 || (errno != EINTR && errno != EAGAIN))
        c->input_ended = true;
}

static void report_size(struct console *c)
{
    unsigned rows, columns;

    tty_size(STDOUT_FILENO, &rows, &columns);
    doppel_console_resize(c->vm, rows, columns);
    if (c->session)
        session_resize(c->session, rows, columns);
}

/* What the attendant has heard. */
static void heed_user(struct console *c)
{
    int wish = attendant_wish(c->attendant);

    if (attendant_resized(c->attendant))
        report_size(c);
    if (attendant_asked(c->attendant) && c->config.on_usr1)
        c->config.on_usr1(c->config.opaque, c->vm);

    if (c->config.raw)
        c->input_size += attendant_keys(c->attendant, c->input + c->input_size,
                                        sizeof(c->input) - c->input_size);
    if (attendant_help(c->attendant) && !sink_pending(&c->out))
        sink_put(&c->out, keys_help, strlen(keys_help));
    if (wish > 0)
        c->signal = wish;
    if (wish)
        finish(c, wish > 0 ? CONSOLE_SIGNAL : CONSOLE_QUIT);
}

/* --- From the guest ------------------------------------------------------------------------ */

static void keep_tail(struct console *c, const char *data, size_t size)
{
    size_t keep = MIN(c->tail_size, TAIL_SIZE - size);

    memmove(c->tail, c->tail + c->tail_size - keep, keep);
    memcpy(c->tail + keep, data, size);
    c->tail_size = keep + size;
    c->tail[c->tail_size] = 0;
}

/* Linux ends the report of a panic with a line that repeats its reason (kernel/panic.c). */
bool console_panic(const struct console *c, char *reason, size_t size)
{
    static const char start[] = "---[ end Kernel panic - not syncing: ", end[] = " ]---";
    const char *from = strstr(c->tail, start), *to = from ? strstr(from, end) : NULL;

    if (!to)
        return false;
    from += sizeof(start) - 1;
    snprintf(reason, size, "%.*s", (int)(to - from), from);
    return true;
}

static size_t drop_returns(char *bytes, size_t size)
{
    size_t kept = 0;

    for (size_t i = 0; i < size; i++)
        if (bytes[i] != '\r')
            bytes[kept++] = bytes[i];
    return kept;
}

/* Whether more of what the guest prints can be taken. */
static bool has_room(const struct console *c)
{
    return sink_pending(&c->out) < OUTBOX_SIZE && sink_pending(&c->err) < OUTBOX_SIZE &&
           !(c->line && console_line_full(c->line));
}

/* The console's own text. Without a session it is what the user is here for; with a shell it goes
 * along with the shell's output, as on any machine; beside a command it is only kept. Takes no more
 * than an outbox holds, and is called again for the rest: a guest that never stops must not keep
 * the loop from signals and keys. */
static void take_console(struct console *c)
{
    char bytes[2048];
    size_t n, taken = 0;

    while (has_room(c) && taken < OUTBOX_SIZE &&
           (n = take(c, c->com[0], bytes, sizeof(bytes))) > 0) {
        taken += n;
        if (c->session && !c->config.crlf)
            n = drop_returns(bytes, n);
        keep_tail(c, bytes, n);
        c->last_output_ms = now_ms();
        c->any_output = true;
        if (c->line)
            console_line_put(c->line, bytes, n);
        else if (!c->session || c->config.session_input)
            sink_put(&c->out, bytes, n);
        else if (c->config.verbose)
            sink_put(&c->err, bytes, n);
    }
    c->line_waits = !has_room(c);
    if (taken >= OUTBOX_SIZE)
        wake(c);
    if (c->session && console_panic(c, NULL, 0))
        finish(c, CONSOLE_PANIC);
}

static void take_session(struct console *c)
{
    uint8_t bytes[2048];
    size_t n, taken = 0;

    if (!c->session)
        return;
    while (taken < OUTBOX_SIZE && (n = take(c, c->com[1], bytes, sizeof(bytes))) > 0) {
        session_receive(c->session, bytes, n);
        taken += n;
    }
    if (taken >= OUTBOX_SIZE)
        wake(c);
    if (c->boot_ms < 0 && session_state(c->session) != SESSION_WAITING)
        c->boot_ms = now_ms() - c->start_ms;
    if (session_state(c->session) > SESSION_RUNNING)
        finish(c, CONSOLE_SESSION);
}

static void take_debug(struct console *c)
{
    char bytes[2048];
    size_t n, taken = 0;

    while (c->debug && sink_pending(&c->debug_out) < OUTBOX_SIZE && taken < OUTBOX_SIZE &&
           (n = take(c, c->debug, bytes, sizeof(bytes))) > 0) {
        sink_put(&c->debug_out, bytes, n);
        taken += n;
    }
    if (taken >= OUTBOX_SIZE)
        wake(c);
}

/* A line of doppel's own, for the user. */
static void say(struct console *c, const char *text)
{
    const char *end = c->borrowed ? "\r\n" : "\n";
    char line[sizeof(((struct doppel_event *)0)->text) + 16];
    int size = snprintf(line, sizeof(line), "%sdoppel: %s%s", c->borrowed ? end : "", text, end);

    sink_put(&c->err, line, MIN((size_t)size, sizeof(line) - 1));
}

/* What the user has to know at once: why the machine stands still without having been told to, and
 * what has become of a disk. */
static bool is_for_user(const struct doppel_event *event)
{
    return event->kind == DOPPEL_EVENT_HELD || event->kind == DOPPEL_EVENT_GOES_ON ||
           event->kind == DOPPEL_EVENT_DISK;
}

static void take_events(struct console *c)
{
    struct doppel_event event;

    while (doppel_events_next(c->events, 0, &event) == 0)
        if (is_for_user(&event))
            say(c, event.text);
}

static bool sinks_pending(const struct console *c)
{
    return sink_pending(&c->out) || sink_pending(&c->err) || sink_pending(&c->debug_out);
}

/* Does what clients of the console in the background wait for, and takes what they have typed,
 * which would not wake the loop again. With a session, nobody listens to that. */
static void work_on_line(struct console *c)
{
    size_t n;

    console_line_work(c->line);
    n = console_line_take(c->line, c->input + c->input_size, sizeof(c->input) - c->input_size);
    if (!c->session)
        c->input_size += n;
}

static void write_sinks(struct console *c)
{
    size_t done = 0, debug_done = 0;

    if ((sink_pending(&c->out) || sink_pending(&c->err)) && c->config.progress)
        progress_end(c->config.progress);
    if (sink_write(&c->out, &done)) {
        if (!c->out.reported) {
            console_restore(c);
            complain("cannot write standard output: %s", strerror(c->out.error));
        }
        c->out.reported = true;
        finish(c, CONSOLE_OUTPUT);
    }
    sink_write(&c->err, &done); /* nowhere to say that standard error fails */
    sink_write(&c->debug_out, &debug_done);
    if (c->line) {
        work_on_line(c);
        if (!console_line_full(c->line)) {
            done += c->line_done;
            c->line_done = 0;
        }
        c->line_waits |= c->line_done > 0;
    }
    if (c->session)
        session_written(c->session, done);
}

/* --- The loop ------------------------------------------------------------------------------ */

static void *wait_for_end(void *opaque)
{
    struct console *c = opaque;

    doppel_wait(c->vm, -1, &c->end);
    atomic_store(&c->vm_ended, true);
    wake(c);
    return NULL;
}

static int timeout(const struct console *c)
{
    int progress = c->config.progress ? progress_timeout(c->config.progress) : -1;

    if (c->line && c->line_waits) /* and clients have taken something since, or lose patience */
        return console_line_full(c->line) ? LINE_PATIENCE_MS / 4 : 0;
    if (!c->session && !c->config.raw && !c->no_input && (c->input_size || c->input_ended))
        return 100;
    return progress;
}

/* Waits for something to do and does what came from outside. */
static void wait_and_take(struct console *c)
{
    bool reading = !is_typed(c) && !c->input_ended && c->input_size < sizeof(c->input) / 2 &&
                   (!c->session || session_room(c->session) > 0);
    struct pollfd pfd[] = {
        {c->wake_fd, POLLIN, 0},
        {reading ? STDIN_FILENO : -1, POLLIN, 0},
        {sink_pending(&c->out) ? c->out.fd : -1, POLLOUT, 0},
        {sink_pending(&c->err) ? c->err.fd : -1, POLLOUT, 0},
        {sink_pending(&c->debug_out) ? c->debug_out.fd : -1, POLLOUT, 0},
        {doppel_events_fd(c->events), POLLIN, 0},
        {c->line ? console_line_fd(c->line) : -1, POLLIN, 0},
    };
    uint64_t count;

    if (poll(pfd, ARRAY_SIZE(pfd), timeout(c)) < 0)
        return;
    if (pfd[0].revents && read(c->wake_fd, &count, sizeof(count)) < 0)
        return;
    heed_user(c);
    if (pfd[1].revents)
        read_input(c);
    c->out.ready = pfd[2].revents != 0;
    c->err.ready = pfd[3].revents != 0;
    c->debug_out.ready = pfd[4].revents != 0;
    if (pfd[5].revents)
        take_events(c);
    if (c->line)
        work_on_line(c);
}

static void talk(struct console *c)
{
    while (!c->over) {
        bool ended = atomic_load(&c->vm_ended); /* then what it wrote is in the outboxes */

        if (!ended)
            wait_and_take(c);
        take_session(c);
        take_console(c);
        take_debug(c);
        write_sinks(c);
        if (ended)
            finish(c, CONSOLE_VM_ENDED);
        if (!c->over)
            pass_input(c);
        if (c->config.progress) {
            if (c->session && session_state(c->session) != SESSION_WAITING)
                progress_end(c->config.progress);
            progress_tick(c->config.progress, NULL, -1);
        }
    }
}

/* The rest for the debug console, as far as its file takes it at once. */
static void write_rest_of_debug(struct console *c)
{
    struct pollfd pfd = {c->debug_out.fd, POLLOUT, 0};
    size_t done = 0;

    do {
        take_debug(c);
        c->debug_out.ready = true;
    } while (sink_pending(&c->debug_out) && poll(&pfd, 1, 0) > 0 &&
             !sink_write(&c->debug_out, &done));
}

/* The rest of the output, unless it is no longer wanted. */
static void write_rest(struct console *c)
{
    if (c->how == CONSOLE_OUTPUT || c->how == CONSOLE_SIGNAL || c->how == CONSOLE_QUIT ||
        c->how == CONSOLE_UNHEEDED) {
        write_rest_of_debug(c);
        return;
    }
    do {
        enum console_end how = c->how;

        take_session(c);
        take_console(c);
        take_debug(c);
        c->over = false;
        while ((sinks_pending(c) || (c->line && console_line_full(c->line))) && !c->over) {
            wait_and_take(c);
            write_sinks(c);
        }
        if (c->over)
            return;
        c->over = true;
        c->how = how;
    } while (!outbox_empty(c->com[0]) || (c->session && !outbox_empty(c->com[1])) ||
             (c->debug && !outbox_empty(c->debug)));
}

/* Opens what the loop listens to beside the serial ports, and starts to wait for the VM's end. */
static bool listen_to(struct console *c, struct doppel_vm *vm)
{
    struct doppel_error why;
    struct error err;

    c->events = doppel_events_open(vm, &why);
    if (!c->events) {
        complain("%s", why.text);
        return false;
    }
    if (thread_start(&c->waiter, "doppel-end", wait_for_end, c, &err) < 0) {
        complain("%s", err.text);
        doppel_events_close(c->events);
        return false;
    }
    return true;
}

enum console_end console_run(struct console *c, struct doppel_vm *vm)
{
    c->vm = vm;
    attendant_watch(c->attendant, vm);
    c->start_ms = c->last_output_ms = c->last_typed_ms = now_ms();
    c->boot_ms = -1;
    report_size(c);
    if (!listen_to(c, vm))
        return CONSOLE_OUTPUT;
    talk(c);
    doppel_stop(vm);
    pthread_join(c->waiter, NULL);
    write_rest(c);
    doppel_events_close(c->events);
    if (c->config.progress)
        progress_end(c->config.progress);
    return c->how;
}

/* --- Making and unmaking ------------------------------------------------------------------- */

/* The supervisor puts the terminal into raw mode. What its settings are is noted down here, too,
 * for when the supervisor does not live to give the terminal back. */
static bool borrow_terminal(struct console *c, struct error *err)
{
    int ret;

    if (!(c->tty = tty_open(STDIN_FILENO, err)))
        return false;
    ret = channel_ask(c->config.channel, REQUEST_LEND);
    if (ret < 0)
        error_set(err, -ret, "cannot use the terminal: %s", strerror(-ret));
    c->borrowed = ret == 0;
    return c->borrowed;
}

static bool create_boxes(struct console *c, struct error *err)
{
    struct outbox **boxes[] = {&c->com[0], &c->com[1], c->config.debug_fd >= 0 ? &c->debug : NULL};

    for (unsigned i = 0; i < ARRAY_SIZE(boxes); i++)
        if (boxes[i] && !(*boxes[i] = outbox_create(OUTBOX_SIZE, OUTBOX_EXCESS, c->wake_fd, err)))
            return false;
    return true;
}

struct console *console_create(const struct console_config *config)
{
    static const struct session_ops ops = {session_send, session_ready, session_output};
    struct console *c = calloc(1, sizeof(*c));
    struct error err = {0};

    if (!c) {
        complain("out of memory");
        return NULL;
    }
    c->config = *config;
    c->out.fd = STDOUT_FILENO;
    c->err.fd = STDERR_FILENO;
    c->debug_out.fd = config->debug_fd;
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->wake_fd < 0) {
        error_set(&err, errno, "cannot make an event file: %s", strerror(errno));
        goto fail;
    }
    if (config->raw && !borrow_terminal(c, &err))
        goto fail;
    c->attendant = attendant_create(config->channel, c->tty, c->wake_fd, &err);
    if (!c->attendant || !create_boxes(c, &err))
        goto fail;
    if (config->line && !(c->line = console_line_open(config->line, &err)))
        goto fail;
    if (config->session && !(c->session = session_create(&ops, c, &err)))
        goto fail;
    c->no_input = !config->session && !config->line && has_no_input();
    return c;
fail:
    console_restore(c);
    complain("%s", err.text);
    console_destroy(c);
    return NULL;
}

void console_restore(struct console *c)
{
    if (c->attendant)
        attendant_leave_terminal(c->attendant);
    if (c->borrowed && channel_ask(c->config.channel, REQUEST_RETURN) < 0)
        tty_cooked(c->tty);
    c->borrowed = false;
}

void console_destroy(struct console *c)
{
    if (!c)
        return;
    console_restore(c);
    attendant_destroy(c->attendant);
    console_line_close(c->line);
    tty_close(c->tty);
    session_destroy(c->session);
    for (unsigned i = 0; i < 2; i++) {
        outbox_destroy(c->com[i]);
        free(c->tx[i].data);
    }
    outbox_destroy(c->debug);
    sink_free(&c->out);
    sink_free(&c->err);
    sink_free(&c->debug_out);
    if (c->wake_fd >= 0)
        close(c->wake_fd);
    free(c);
}

void console_forget(struct console *c)
{
    attendant_watch(c->attendant, NULL);
}

int console_debug_error(const struct console *c)
{
    return c->debug_out.error;
}

const struct doppel_end *console_vm_end(const struct console *c)
{
    return &c->end;
}

int console_signal(const struct console *c)
{
    return c->signal;
}

const struct session *console_session(const struct console *c)
{
    return c->session;
}

long long console_boot_ms(const struct console *c)
{
    return c->boot_ms;
}

const char *console_last_lines(const struct console *c)
{
    const char *start = c->tail + c->tail_size;

    for (unsigned lines = 0; start > c->tail && lines <= LAST_LINES; start--)
        lines += start[-1] == '\n';
    return start;
}
