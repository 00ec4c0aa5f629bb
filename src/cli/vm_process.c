/*
 * The VM process of `doppel run`: boots a guest and lends it the terminal, or runs one command in
 * the default guest.
 */
#include "cli/vm_process.h"

#include "cli/cli.h"
#include "cli/console.h"
#include "cli/guest.h"
#include "cli/orders.h"
#include "cli/stats.h"
#include "cli/trace.h"

#include "base/log.h"
#include "base/util.h"
#include "con/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct run {
    const struct run_options *options;
    struct doppel_config config;
    enum doppel_engine meant; /* config.engine, or what auto means */
    const struct channel *channel;
    struct log log;
    struct guest_files files;
    struct guest_kernel kernel;
    bool init;    /* the guest has our init */
    bool session; /* which takes a session */
    char *command_line;
    void *archive;
    int debug_fd;
    struct trace *trace;
    struct engine_turns *turns;
    struct orders *orders;
    struct console *console;
    struct progress progress;
    _Atomic bool made; /* the VM is; what it warns of from now on goes to the log only */
};

/* --- What to boot -------------------------------------------------------------------------- */

/* Complains, and puts it into the log. */
__attribute__((format(printf, 2, 3))) static void fail(const struct run *run, const char *format,
                                                       ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    complain("%s", text);
    log_line(&run->log, LOG_LEVEL_ERROR, "%s", text);
}

/* Fills in the default guest where no files were given, and decides whether the guest has our init
 * and so takes a session. */
static bool choose_guest(struct run *run)
{
    bool own_kernel = run->config.kernel != NULL;
    const char *initrd;

    guest_find(&run->files);
    if (!own_kernel)
        run->config.kernel = run->files.kernel;
    if (!own_kernel && access(run->files.kernel, R_OK) != 0) {
        fail(run, "the default guest is not there yet (%s); make it with: %s", run->files.kernel,
             run->files.remedy);
        return false;
    }
    if (access(run->config.kernel, R_OK) != 0) {
        fail(run, "%s: cannot open the kernel: %m", run->config.kernel);
        return false;
    }
    guest_inspect(run->config.kernel, &run->kernel);
    initrd =
        run->kernel.linux_image && !run->kernel.bits64 ? run->files.initrd32 : run->files.initrd;
    if (run->options->initrd_option) {
        run->config.initrd = *run->options->initrd_option ? run->options->initrd_option : NULL;
        run->session = run->options->command != NULL;
    } else if (run->kernel.linux_image &&
               (access(initrd, R_OK) == 0 || !own_kernel || run->options->command)) {
        if (access(initrd, R_OK) != 0) {
            fail(run, "the default guest's initramfs is not there yet (%s); make it with: %s%s",
                 initrd, run->files.remedy, initrd == run->files.initrd32 ? " initrd-i386" : "");
            return false;
        }
        run->config.initrd = initrd;
        run->init = true;
        /* In the background, it has a shell on the console instead. */
        run->session = run->options->command || !run->options->background;
    }
    if (run->options->command && !(run->session && run->kernel.linux_image && run->config.initrd)) {
        fail(run, "a command needs a Linux kernel and the default guest's initramfs");
        return false;
    }
    return true;
}

/* Linux is told where its console is; in the default guest it also skips the self-tests of its
 * cryptography, which take longer than the rest of the boot. Other kernels get exactly what
 * --append says. */
static bool make_command_line(struct run *run)
{
    const char *ours = "";

    if (run->kernel.linux_image && (run->session || run->init))
        ours = run->options->verbose ? "console=ttyS0 cryptomgr.notests"
                                     : "console=ttyS0 quiet cryptomgr.notests";
    else if (run->kernel.linux_image)
        ours = "console=ttyS0";
    if (asprintf(&run->command_line, "%s%s%s", ours, *ours && run->options->append ? " " : "",
                 run->options->append ? run->options->append : "") < 0) {
        run->command_line = NULL;
        fail(run, "out of memory");
        return false;
    }
    run->config.command_line = run->command_line;
    return true;
}

/* Tells our init what to run. */
static bool make_session(struct run *run)
{
    static const char *const shell[] = {"-sh", NULL};
    struct session_command command = {.mode = SESSION_PIPE, .path = "/bin/sh", .argv = shell};
    bool in = isatty(STDIN_FILENO), out = isatty(STDOUT_FILENO);
    const char *term = getenv("TERM");
    char term_variable[128];
    const char *env[RUN_MAX_ENV + 2];
    unsigned count = 0;

    if (!run->session) {
        for (unsigned i = 0; i < run->options->mount_count; i++)
            log_line(&run->log, LOG_LEVEL_INFO, "the guest must mount the shared folder itself: %s",
                     run->options->mounts[i]);
        return true;
    }
    if (run->options->command) {
        command.path = run->options->command[0];
        command.argv = (const char *const *)run->options->command;
        command.mode = in && out ? SESSION_TTY : SESSION_PIPE;
    } else {
        command.mode = in ? SESSION_TTY : SESSION_TYPED;
    }
    command.crlf = in && out;
    if (command.mode != SESSION_PIPE) {
        snprintf(term_variable, sizeof(term_variable), "TERM=%s",
                 in && out && term ? term : "dumb");
        env[count++] = term_variable;
    }
    for (unsigned i = 0; i < run->options->env_count; i++)
        env[count++] = run->options->env[i];
    env[count] = NULL;
    command.env = env;
    command.mounts = (const char *const *)run->options->mounts;
    run->archive = session_archive(&command, &run->config.initrd_extra_size);
    run->config.initrd_extra = run->archive;
    if (!run->archive)
        fail(run, "out of memory");
    return run->archive != NULL;
}

static bool open_debug_console(struct run *run)
{
    if (!run->options->debug_path)
        return true;
    run->debug_fd = open(run->options->debug_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (run->debug_fd < 0)
        fail(run, "--debug-console: cannot open %s: %m", run->options->debug_path);
    return run->debug_fd >= 0;
}

static bool close_debug_console(struct run *run)
{
    int error = run->console ? console_debug_error(run->console) : 0;

    if (run->debug_fd >= 0 && close(run->debug_fd) && !error)
        error = errno;
    if (error)
        fail(run, "--debug-console: cannot write %s: %s", run->options->debug_path,
             strerror(error));
    return !error;
}

static bool open_trace(struct run *run)
{
    if (!run->options->traced)
        return true;
    run->trace = trace_create(run->options->trace_path, run->options->trace_lines);
    if (!run->trace)
        return false;
    trace_plug(run->trace, &run->config);
    return true;
}

/* --- Running it ---------------------------------------------------------------------------- */

static void show_progress(void *opaque, const char *what, int percent)
{
    progress_tick(opaque, what, percent);
}

/* Text from the guest, made harmless for a terminal. */
static void print_guest_text(const char *text)
{
    for (; *text; text++)
        if (*text == '\n' || *text == '\t' || (*text >= ' ' && *text <= '~'))
            fputc(*text, stderr);
}

static int session_ended(const struct run *run)
{
    const struct session *session = console_session(run->console);

    switch (session_state(session)) {
    case SESSION_EXITED: return run->options->command ? (int)session_status(session) : 0;
    case SESSION_FAILED:
        fail(run, "cannot run %s", session_failure(session));
        return (int)session_status(session);
    default:
        fail(run, "the guest's init is of another version; renew it with: %s --update initrd",
             run->files.remedy);
        return STATUS_ERROR;
    }
}

static int vm_ended(const struct run *run)
{
    const struct doppel_end *end = console_vm_end(run->console);
    const struct session *session = console_session(run->console);

    switch (end->outcome) {
    case DOPPEL_DEBUG_EXIT: return end->status & 0xff;
    case DOPPEL_CRASHED:
        fail(run, "the guest crashed (triple fault); its registers and last instructions:");
        print_guest_text(end->report);
        return STATUS_ERROR;
    case DOPPEL_FAILED: fail(run, "%s", end->report); return STATUS_ERROR;
    default: break;
    }
    if (run->session && session_state(session) == SESSION_WAITING) {
        fail(run, "the guest ended before its %s began; its last words:",
             run->options->command ? "command" : "shell");
        print_guest_text(console_last_lines(run->console));
        return STATUS_ERROR;
    }
    if (run->options->command) {
        fail(run, "the guest %s before the command ended",
             end->outcome == DOPPEL_RESET ? "reset itself" : "powered off");
        return STATUS_ERROR;
    }
    return 0;
}

/* The guest's last line hardly ended. A terminal that takes nothing does not miss it. */
static void end_line(void)
{
    struct pollfd pfd = {STDERR_FILENO, POLLOUT, 0};

    if (isatty(STDERR_FILENO) && poll(&pfd, 1, 0) > 0)
        fputc('\n', stderr);
}

static int explain(const struct run *run, enum console_end how)
{
    char reason[256];

    switch (how) {
    case CONSOLE_SESSION: return session_ended(run);
    case CONSOLE_VM_ENDED: return vm_ended(run);
    case CONSOLE_SIGNAL: return STATUS_SIGNAL + console_signal(run->console);
    case CONSOLE_PANIC:
        console_panic(run->console, reason, sizeof(reason));
        fail(run, "the guest's kernel panicked: %s", reason);
        return STATUS_ERROR;
    case CONSOLE_UNHEEDED:
        fail(run, "the guest has heeded neither the end of its input nor its power button, so its "
                  "plug was pulled; input from /dev/null leaves a guest alone");
        return STATUS_ERROR;
    case CONSOLE_QUIT: end_line(); return run->options->command ? STATUS_ERROR : 0;
    case CONSOLE_OUTPUT: break;
    }
    return STATUS_ERROR;
}

static void print_stats(void *opaque, struct doppel_vm *vm)
{
    const struct run *run = opaque;
    struct doppel_stats stats = {0};

    doppel_stats(vm, &stats);
    stats_print(&stats, console_boot_ms(run->console), run->options->json);
}

/* The trace of a session is about its command or shell, else about the whole run. */
static void begin_trace(void *opaque, struct doppel_vm *vm)
{
    struct run *run = opaque;

    trace_begin(run->trace, vm);
}

/* A line of the VM's own. */
static void log_vm(void *opaque, enum doppel_log_level level, const char *text)
{
    struct run *run = opaque;

    if (level == DOPPEL_LOG_WARNING && !run->made) {
        progress_end(&run->progress);
        complain("%s", text);
    }
    log_line(&run->log, (enum log_level)level, "%s", text);
}

/* Makes of auto what the user's environment says. Otherwise it stays, so that the machine gets
 * another engine if the one that it means on this host cannot be had, and the log says what it
 * means and why. */
static bool choose_engine(struct run *run)
{
    const char *wanted = getenv("DOPPEL_ENGINE");
    struct doppel_host host = {0};

    if (run->config.engine == DOPPEL_ENGINE_AUTO && wanted && *wanted &&
        !engine_named("DOPPEL_ENGINE", wanted, &run->config.engine))
        return false;
    run->meant = run->config.engine;
    if (run->meant != DOPPEL_ENGINE_AUTO)
        return true;
    doppel_probe(&host);
    run->meant = host.chosen;
    log_line(&run->log, LOG_LEVEL_INFO, "engine auto is %s: %s", doppel_engine_name(host.chosen),
             host.reason);
    return true;
}

static void log_start(const struct run *run)
{
    const struct doppel_config *config = &run->config;
    bool whole = config->memory % MiB == 0;

    log_line(&run->log, LOG_LEVEL_INFO, "engine %s%s, %u vCPU%s, %llu %s, kernel %s, initrd %s",
             doppel_engine_name(run->meant),
             run->options->config.engine == DOPPEL_ENGINE_AUTO ? " (auto)" : "", config->cpus,
             config->cpus == 1 ? "" : "s",
             (unsigned long long)(config->memory / (whole ? MiB : KiB)), whole ? "MiB" : "KiB",
             config->kernel, config->initrd ? config->initrd : "none");
}

static void log_end(const struct run *run, enum console_end how)
{
    static const char *const hows[] = {
        [CONSOLE_VM_ENDED] = "the VM ended",
        [CONSOLE_QUIT] = "the user ended it",
        [CONSOLE_SIGNAL] = "a signal ended it",
        [CONSOLE_SESSION] = "the session ended",
        [CONSOLE_PANIC] = "the guest's kernel panicked",
        [CONSOLE_UNHEEDED] = "the guest did not heed its power button",
        [CONSOLE_OUTPUT] = "standard output cannot be written",
    };

    log_line(&run->log, LOG_LEVEL_INFO, "%s", hows[how]);
}

static void tell_start(const struct run *run, struct doppel_vm *vm)
{
    struct machine_facts facts = {.memory = run->config.memory, .cpus = run->config.cpus};
    struct doppel_stats stats = {0};

    doppel_stats(vm, &stats);
    snprintf(facts.engine, sizeof(facts.engine), "%s", stats.engine);
    channel_send_data(run->channel->notes, true, NOTE_STARTED, 0, &facts, sizeof(facts));
}

static void tell_end(const struct run *run, enum console_end how)
{
    if (how == CONSOLE_VM_ENDED || how == CONSOLE_SESSION)
        channel_send(run->channel->notes, true, NOTE_ENDED,
                     how == CONSOLE_SESSION ? ENDED_SESSION
                                            : (int)console_vm_end(run->console)->outcome,
                     NULL);
}

/* Only a machine with a name can be told anything. */
static bool begin_orders(struct run *run, struct doppel_vm *vm, struct doppel_error *err)
{
    struct error why = {0};

    if (!run->config.name)
        return true;
    run->orders = orders_begin(vm, run->channel, &why);
    if (run->orders)
        return true;
    err->code = why.code;
    snprintf(err->text, sizeof(err->text), "%s", why.text);
    return false;
}

/* Starts the machine, and what changes its engine now and then. */
static bool start_vm(struct run *run, struct doppel_vm *vm, struct doppel_error *err)
{
    const struct engine_turns_plan *turns = &run->options->turns;

    if (turns->count && doppel_switch_engine(vm, turns->engine[0], err) < 0)
        return false;
    if (!begin_orders(run, vm, err) || doppel_start(vm, err) < 0)
        return false;
    log_line(&run->log, LOG_LEVEL_INFO, "the guest runs");
    tell_start(run, vm);
    if (turns->count)
        run->turns = engine_turns_begin(turns, vm, &run->log);
    return true;
}

static int run_vm(struct run *run)
{
    struct doppel_error err = {0};
    struct doppel_vm *vm = doppel_create(&run->config, &err);
    enum console_end how;
    char what[160];
    int status = STATUS_ERROR;

    run->made = true;
    if (vm && !run->session)
        trace_begin(run->trace, vm);
    if (vm && !start_vm(run, vm, &err)) {
        orders_end(run->orders);
        doppel_destroy(vm);
        vm = NULL;
    }
    if (!vm) {
        progress_end(&run->progress);
        console_restore(run->console);
        fail(run, "%s", err.text);
        return STATUS_ERROR;
    }
    snprintf(what, sizeof(what), "booting %s", run->kernel.release[0] ? run->kernel.release : "");
    progress_tick(&run->progress, what, -1);
    how = console_run(run->console, vm);
    console_restore(run->console);
    log_end(run, how);
    tell_end(run, how);
    engine_turns_end(run->turns);
    trace_end(run->trace, vm);
    status = explain(run, how);
    if (run->options->stats)
        print_stats(run, vm);
    /* What hangs hangs here, where the attendant can still say where. */
    doppel_stop(vm);
    doppel_wait(vm, -1, NULL);
    orders_end(run->orders);
    console_forget(run->console);
    doppel_destroy(vm);
    return status;
}

static int prepare_and_run(struct run *run)
{
    struct console_config console = {0};

    if (!choose_guest(run) || !make_command_line(run) || !make_session(run) ||
        !open_debug_console(run) || !open_trace(run) || !choose_engine(run))
        return STATUS_ERROR;
    console.channel = run->channel;
    console.session = run->session;
    console.session_input = !run->options->command;
    console.verbose = run->options->verbose;
    console.raw = isatty(STDIN_FILENO) && (!run->options->command || isatty(STDOUT_FILENO));
    console.crlf = console.raw && isatty(STDOUT_FILENO);
    console.line = run->options->console_path;
    console.debug_fd = run->debug_fd;
    console.progress = &run->progress;
    console.on_session = begin_trace;
    console.on_usr1 = run->options->stats ? print_stats : NULL;
    console.opaque = run;
    log_start(run);
    progress_begin(&run->progress, "preparing the guest");
    run->console = console_create(&console);
    if (!run->console)
        return STATUS_ERROR;
    console_plug(run->console, &run->config);
    run->config.log = log_vm;
    run->config.log_opaque = run;
    run->config.progress = show_progress;
    run->config.progress_opaque = &run->progress;
    return run_vm(run);
}

int vm_process(void *opaque, const struct channel *channel)
{
    const struct run_options *options = opaque;
    struct run run = {.options = options,
                      .config = options->config,
                      .channel = channel,
                      .log = channel_log(channel),
                      .debug_fd = -1};
    int status = prepare_and_run(&run);

    /* The console's attendant hears the user until all that may wait for a file is done. */
    if (!close_debug_console(&run) && status == 0)
        status = STATUS_ERROR;
    if (!trace_destroy(run.trace) && status == 0)
        status = STATUS_ERROR;
    console_destroy(run.console);
    free(run.archive);
    free(run.command_line);
    return status;
}
