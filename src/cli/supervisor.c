/*
 * The supervisor.
 */
#include "cli/supervisor.h"

#include "base/time.h"
#include "base/util.h"
#include "cli/background.h"
#include "cli/cli.h"
#include "cli/control_desk.h"
#include "cli/crash.h"
#include "cli/kept_process.h"
#include "cli/report.h"
#include "con/tty.h"
#include "ctl/doppel.h"
#include "ctl/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* For the VM process to come to its end, after the first wish, after the plug was pulled, and after
 * a second wish; for its report; and to be gone once it is killed. The last three together are
 * below 3 s. */
#define FIRST_GRACE_NS  (10 * NS_PER_S)
#define PLUG_GRACE_NS   (5 * NS_PER_S)
#define SECOND_GRACE_NS (1500 * NS_PER_MS)
#define REPORT_NS       (900 * NS_PER_MS)
#define KILL_NS         (300 * NS_PER_MS)

/* Notes that are taken at once: a VM process that never stops sending must not keep the supervisor
 * from signals. */
#define NOTES_AT_ONCE 64
#define LAST_NOTES    4096 /* when it is gone: more than a socket holds */

enum stage {
    RUNNING,
    REPORTING, /* asked to say where its threads are */
    KILLED,    /* sent SIGKILL by the supervisor */
};

struct supervisor {
    pid_t vm;
    struct channel channel;
    int signal_fd;
    struct tty *tty; /* NULL: the terminal is not lent */
    struct kept_processes *kept;
    struct control_desk *desk;
    struct background *background;
    struct report report;
    uint64_t start;

    bool listens; /* the VM process heeds orders */
    int wish;     /* the last one: a signal, or negative (attendant.h); 0: none */
    unsigned wishes;
    enum stage stage;
    uint64_t deadline; /* for the present stage; 0: none */
    bool answered;     /* it has said where at least one thread is */
    bool stopped;      /* the VM process stands still, whoever has stopped it */
    bool stopping;     /* the VM process is about to stop, and then the supervisor */

    bool crashed;
    struct message crash;
    bool ended; /* the VM process has said how: OUTCOME */
    int outcome;
    bool gone; /* the VM process: how and with what says waitid(2) */
    int how, status;
};

/* ---- The end, by wish and by force ---- */

static void kill_vm(struct supervisor *s)
{
    if (s->gone) /* its number may be another process's by now */
        return;
    s->stage = KILLED;
    s->deadline = time_now_ns() + KILL_NS;
    kill(s->vm, SIGKILL);
}

static void give_terminal_back(struct supervisor *s)
{
    if (s->tty && tty_foreground(s->tty))
        tty_cooked(s->tty);
    tty_close(s->tty);
    s->tty = NULL;
}

static void force(struct supervisor *s)
{
    if (s->stage == REPORTING) {
        report_line(&s->report, "  the VM process does not answer%s",
                    s->answered ? " any more" : "");
        kill_vm(s);
        return;
    }
    give_terminal_back(s);
    s->stage = REPORTING;
    s->deadline = time_now_ns() + REPORT_NS;
    report_line(&s->report, "ended by force; its threads were here (innermost first):");
    channel_send(s->channel.notes, false, ORDER_REPORT, 0, NULL);
}

/* COUNTS: the user wished it again. Not so if the VM process got the same signal as the supervisor,
 * as both do what is sent to their process group. */
static void want_end(struct supervisor *s, int wish, bool counts)
{
    uint64_t now = time_now_ns();

    if (s->stage != RUNNING || (s->wish && !counts))
        return;
    if (!s->wish)
        s->deadline = now + FIRST_GRACE_NS;
    s->wish = wish;
    if (counts && ++s->wishes > 1)
        s->deadline = MIN(s->deadline, now + SECOND_GRACE_NS);
    /* Before it listens, it has done nothing that must be brought to an end. */
    if (!s->listens)
        kill_vm(s);
}

/* ---- For the control desk ---- */

static void press_button(void *opaque)
{
    const struct supervisor *s = opaque;

    if (!s->gone)
        kill(s->vm, SIGCONT); /* one that stands still would not press it */
    channel_send(s->channel.notes, false, ORDER_BUTTON, 0, NULL);
}

static void pull_plug(void *opaque)
{
    struct supervisor *s = opaque;

    want_end(s, SIGTERM, false);
    if (s->stage == RUNNING)
        s->deadline = MIN(s->deadline, time_now_ns() + PLUG_GRACE_NS);
    channel_send(s->channel.notes, false, ORDER_END, SIGTERM, NULL);
}

static void kill_at_once(void *opaque)
{
    struct supervisor *s = opaque;

    s->wish = s->wish ? s->wish : SIGKILL;
    kill_vm(s);
}

static bool give_work(void *opaque, enum work what, const struct work_order *order)
{
    const struct supervisor *s = opaque;

    return channel_send_data(s->channel.work, false, WORK, (int)what, order, sizeof(*order));
}

/* ---- Signals ---- */

static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

static void stop(struct supervisor *s)
{
    if (s->tty && tty_foreground(s->tty))
        tty_cooked(s->tty);
    kill(s->vm, SIGSTOP);
    s->stopping = true;
}

static void go_on(struct supervisor *s)
{
    if (s->tty && tty_foreground(s->tty))
        tty_raw(s->tty);
    kill(s->vm, SIGCONT);
    s->stopping = false;
}

static bool is_ignored(int number)
{
    struct sigaction action;

    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

/* A hangup that is ignored from the start stays so, as nohup(1) wants. Blocked, it would be read
 * from the file all the same. SIGCHLD that is ignored would have the kernel reap the child. */
static int signals_to_fd(bool usr1)
{
    static const int handled[] = {SIGCHLD, SIGTSTP, SIGCONT, SIGWINCH};
    sigset_t set;

    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&set);
    for (unsigned i = 0; i < ARRAY_SIZE(handled); i++)
        sigaddset(&set, handled[i]);
    for (unsigned i = 0; i < ARRAY_SIZE(ending); i++)
        if (ending[i] != SIGHUP || !is_ignored(SIGHUP))
            sigaddset(&set, ending[i]);
    if (usr1)
        sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* ---- The VM process ---- */

/* Sees whether the VM process is gone, or stands still: if it is to stop, the supervisor then stops
 * as well, for the shell to see. */
static void look_after(struct supervisor *s)
{
    const int changes = WEXITED | WSTOPPED | WCONTINUED | WNOHANG;
    siginfo_t info = {0};

    while (!s->gone && waitid(P_PID, (id_t)s->vm, &info, changes) == 0 && info.si_pid) {
        switch (info.si_code) {
        case CLD_STOPPED:
        case CLD_TRAPPED: s->stopped = true; break;
        case CLD_CONTINUED: s->stopped = false; break;
        default:
            s->gone = true;
            s->how = info.si_code;
            s->status = info.si_status;
            break;
        }
        info.si_pid = 0;
    }
    control_desk_frozen(s->desk, s->stopped && !s->gone);
    /* One that stood still already is not reported again. */
    if (!s->gone && s->stopping && s->stopped) {
        s->stopping = false;
        raise(SIGSTOP);
    }
}

static void has_started(struct supervisor *s, const struct machine_facts *facts)
{
    control_desk_started(s->desk, facts);
    if (s->background)
        background_ready(s->background);
}

static void take_note(struct supervisor *s, const struct message *note)
{
    int level = MIN(MAX(note->value, (int)LOG_LEVEL_ERROR), (int)LOG_LEVEL_DEBUG);

    switch (note->kind) {
    case NOTE_LISTENS: s->listens = true; break;
    case NOTE_WISH: want_end(s, MIN(note->value, -1), true); break;
    case NOTE_SIGNAL:
        for (unsigned i = 0; i < ARRAY_SIZE(ending); i++)
            if (ending[i] == note->value)
                want_end(s, note->value, false);
        break;
    case NOTE_LOG: journal_line(s->report.journal, (enum log_level)level, note->text); break;
    case NOTE_WHERE:
        if (s->stage != REPORTING)
            break;
        s->answered = true;
        report_line(&s->report, "  %s", note->text);
        break;
    case NOTE_REPORTED:
        if (s->stage == REPORTING)
            kill_vm(s);
        break;
    case NOTE_CRASH:
        if (!s->crashed)
            s->crash = *note;
        s->crashed = true;
        break;
    case NOTE_STARTED: has_started(s, &note->facts); break;
    case NOTE_ENDED:
        s->ended = true;
        s->outcome = note->value;
        break;
    default: break;
    }
}

/* Takes a message from *FD. If the VM process has closed its end, so does the supervisor. */
static bool receive(int *fd, struct message *message)
{
    bool gone = false;

    if (channel_receive(*fd, message, &gone))
        return true;
    if (gone && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    return false;
}

/* Takes at most MOST notes. False: there is none any more. */
static bool take_notes(struct supervisor *s, unsigned most)
{
    struct message note;

    while (most-- > 0) {
        if (!receive(&s->channel.notes, &note))
            return false;
        take_note(s, &note);
    }
    return true;
}

/* What the VM process has done, and what has happened to the machine. */
static void take_done(struct supervisor *s)
{
    struct message message;

    for (unsigned i = 0; i < NOTES_AT_ONCE && receive(&s->channel.work, &message); i++) {
        if (message.kind == DONE)
            control_desk_done(s->desk, message.value, &message.done);
        else if (message.kind == EVENT)
            control_desk_event(s->desk, message.value, message.text);
    }
}

static void log_signal(struct supervisor *s, const struct signalfd_siginfo *info)
{
    char text[LOG_TEXT];

    snprintf(text, sizeof(text), "SIG%s from process %u", sigabbrev_np((int)info->ssi_signo),
             info->ssi_pid);
    journal_line(s->report.journal, LOG_LEVEL_INFO, text);
}

static void take_signal(struct supervisor *s, const struct signalfd_siginfo *info)
{
    int number = (int)info->ssi_signo;

    switch (number) {
    case SIGCHLD: break; /* look_after() comes anyway */
    case SIGTSTP: stop(s); break;
    case SIGCONT: go_on(s); break;
    case SIGWINCH:
    case SIGUSR1: channel_send(s->channel.notes, false, ORDER_SIGNAL, number, NULL); break;
    default:
        log_signal(s, info);
        take_notes(s, NOTES_AT_ONCE); /* sent before the signal: that it listens, perhaps */
        want_end(s, number, true);
        channel_send(s->channel.notes, false, ORDER_END, number, NULL);
        break;
    }
}

static void take_signals(struct supervisor *s)
{
    struct signalfd_siginfo info;

    while (!s->gone && read(s->signal_fd, &info, sizeof(info)) == sizeof(info))
        take_signal(s, &info);
}

static int lend_terminal(struct supervisor *s)
{
    struct error err = {0};

    if (!s->tty)
        s->tty = tty_open(STDIN_FILENO, &err);
    if (!s->tty)
        return -err.code;
    tty_raw(s->tty);
    return 0;
}

static void take_request(struct supervisor *s)
{
    struct message request;
    int answer = -ENOSYS;

    if (!receive(&s->channel.requests, &request))
        return;
    if (request.kind == REQUEST_LEND)
        answer = lend_terminal(s);
    if (request.kind == REQUEST_RETURN) {
        give_terminal_back(s);
        answer = 0;
    }
    channel_send(s->channel.requests, false, ANSWER, answer, NULL);
}

static int time_left_ms(const struct supervisor *s)
{
    uint64_t now = time_now_ns(), at = kept_processes_deadline(s->kept);

    at = MIN(at, control_desk_deadline(s->desk));
    if (s->deadline)
        at = MIN(at, s->deadline);
    if (at == UINT64_MAX)
        return -1;
    return now < at ? (int)((at - now) / NS_PER_MS) + 1 : 0;
}

static void look_at_background(struct supervisor *s)
{
    background_relay(s->background, s->report.journal);
    if (s->stage == RUNNING && background_left(s->background))
        kill_at_once(s);
}

/* Until the VM process is gone, or does not go although it was killed. */
static void stand_behind(struct supervisor *s)
{
    while (!s->gone) {
        struct pollfd pfd[] = {{s->signal_fd, POLLIN, 0},
                               {s->channel.notes, POLLIN, 0},
                               {s->channel.requests, POLLIN, 0},
                               {s->channel.work, POLLIN, 0},
                               {control_desk_fd(s->desk), POLLIN, 0},
                               {s->background ? s->background->lines : -1, POLLIN, 0},
                               {s->background ? s->background->ready : -1, 0, 0}};

        if (poll(pfd, ARRAY_SIZE(pfd), time_left_ms(s)) < 0)
            continue;
        take_signals(s);
        take_notes(s, NOTES_AT_ONCE);
        if (pfd[2].revents)
            take_request(s);
        if (pfd[3].revents)
            take_done(s);
        control_desk_work(s->desk);
        if (s->background)
            look_at_background(s);
        look_after(s);
        if (!s->gone)
            kept_processes_look_after(s->kept);
        if (s->gone || !s->deadline || time_now_ns() < s->deadline)
            continue;
        if (s->stage == KILLED)
            return;
        force(s);
    }
}

/* ---- Afterwards ---- */

static void log_end(struct supervisor *s)
{
    char text[LOG_TEXT];

    snprintf(text, sizeof(text), "the VM process ended with status %d", s->status);
    journal_line(s->report.journal, LOG_LEVEL_INFO, text);
}

/* How the VM process has ended. */
static enum machine_end end_of(const struct supervisor *s)
{
    if (s->stage != RUNNING)
        return MACHINE_KILLED;
    if (s->how != CLD_EXITED)
        return MACHINE_DIED;
    if (!s->ended)
        return s->wish ? MACHINE_UNPLUGGED : MACHINE_FAILED;
    switch (s->outcome) {
    case ENDED_SESSION: return MACHINE_COMMAND_ENDED;
    case DOPPEL_POWEROFF: return MACHINE_POWERED_OFF;
    case DOPPEL_RESET: return MACHINE_RESET;
    case DOPPEL_DEBUG_EXIT: return MACHINE_DEBUG_EXIT;
    case DOPPEL_CRASHED: return MACHINE_CRASHED;
    case DOPPEL_STOPPED: return MACHINE_UNPLUGGED;
    default: return MACHINE_FAILED;
    }
}

/* Tells the end, and what the supervisor's exit status is for it. */
static int tell_end(struct supervisor *s, const struct supervisor_config *config)
{
    struct report_death death = {
        .vm = s->vm,
        .signal = s->status,
        .core = s->how == CLD_DUMPED,
        .seconds = (double)(time_now_ns() - s->start) / 1e9,
        .note = s->crashed ? &s->crash : NULL,
        .log_path = config->log_path,
        .in_line = s->tty && isatty(STDERR_FILENO),
    };
    int status;

    give_terminal_back(s);
    if (s->stage != RUNNING) {
        if (!s->gone)
            report_line(&s->report, "  the VM process (%d) was killed but is not gone yet", s->vm);
        status = s->wish > 0 ? STATUS_SIGNAL + s->wish : STATUS_ERROR;
    } else if (s->how == CLD_EXITED) {
        log_end(s);
        status = s->status;
    } else {
        report_death(&s->report, &death);
        status = STATUS_SIGNAL + s->status;
    }
    if (journal_error(s->report.journal)) {
        report_line(&s->report, "--log: cannot write %s: %s", config->log_path,
                    strerror(journal_error(s->report.journal)));
        status = status ? status : STATUS_ERROR;
    }
    return status;
}

/* ---- The two processes ---- */

static int be_vm(const struct channel *channel, int (*run)(void *, const struct channel *),
                 void *opaque)
{
    channel_tie(channel);
    prctl(PR_SET_NAME, "doppel-vm");
    crash_watch(channel);
    return run(opaque, channel);
}

/* The VM process has the standard streams. Were they open here too, whoever is at a pipe's other
 * end would wait for this process as well. */
static void let_go_of_streams(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0)
        return;
    if (!isatty(STDIN_FILENO))
        dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    close(null);
}

static void attend_to_others(void *opaque)
{
    struct supervisor *s = opaque;

    control_desk_work(s->desk);
    if (s->background)
        background_relay(s->background, s->report.journal);
}

static int be_supervisor(struct supervisor *s, const struct supervisor_config *config)
{
    const struct control_desk_ops ops = {press_button, pull_plug, kill_at_once, give_work, s};
    char text[LOG_TEXT];
    int status;

    if (!s->background)
        let_go_of_streams();
    snprintf(text, sizeof(text), "doppel %s: the VM process is %d", doppel_version(), s->vm);
    journal_line(s->report.journal, LOG_LEVEL_INFO, text);
    s->kept = config->kept;
    kept_processes_start(s->kept, s->report.journal);
    control_desk_begin(s->desk, s->vm, &ops);
    stand_behind(s);
    if (s->gone)
        take_notes(s, LAST_NOTES);
    take_done(s);
    status = tell_end(s, config);
    kept_processes_end(s->kept, attend_to_others, s);
    attend_to_others(s);
    control_desk_ended(s->desk, end_of(s), status);
    return status;
}

static void clean_up(struct supervisor *s)
{
    channel_close(&s->channel);
    tty_close(s->tty);
    journal_destroy(s->report.journal);
    if (s->signal_fd >= 0)
        close(s->signal_fd);
    free(s);
}

static struct supervisor *prepare(const struct supervisor_config *config, struct channel *vm,
                                  struct error *err)
{
    struct supervisor *s = calloc(1, sizeof(*s));

    *vm = (struct channel){-1, -1, -1, 0};
    if (!s) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    s->channel = *vm;
    s->start = time_now_ns();
    s->signal_fd = -1;
    s->desk = config->desk;
    s->background = config->background;
    s->report.relayed = s->background != NULL;
    s->report.journal = journal_create(config->log_path, JOURNAL_LIMIT, err);
    if (!s->report.journal || channel_open(&s->channel, vm, err) < 0 ||
        (s->background && background_begin(s->background, err) < 0)) {
        clean_up(s);
        return NULL;
    }
    s->signal_fd = signals_to_fd(config->usr1);
    if (s->signal_fd < 0) {
        error_set(err, errno, "cannot make an event file: %s", strerror(errno));
        clean_up(s);
        return NULL;
    }
    return s;
}

int supervise(const struct supervisor_config *config,
              int (*run)(void *opaque, const struct channel *channel), void *opaque)
{
    struct error err = {0};
    struct channel vm;
    struct supervisor *s = prepare(config, &vm, &err);
    int status = STATUS_ERROR;

    if (!s) {
        complain("%s", err.text);
        channel_close(&vm);
        return status;
    }
    s->vm = fork();
    if (s->vm == 0) {
        control_desk_forget(config->desk);
        if (config->background)
            background_forget(config->background);
        clean_up(s);
        status = be_vm(&vm, run, opaque);
        channel_close(&vm);
        return status;
    }
    channel_close(&vm);
    if (s->vm < 0)
        complain("cannot start a process: %s", strerror(errno));
    else
        status = be_supervisor(s, config);
    clean_up(s);
    return status;
}
