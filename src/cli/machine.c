/*
 * Running a machine.
 */
#include "cli/machine.h"

#include "cli/background.h"
#include "cli/cli.h"
#include "cli/control_desk.h"
#include "cli/disk_process.h"
#include "cli/kept_process.h"
#include "cli/net_process.h"
#include "cli/run_options.h"
#include "cli/share_process.h"
#include "cli/supervisor.h"

#include "base/time.h"
#include "base/util.h"
#include "ctl/journal.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* The socket of a disk's process, or of a folder's. */
static int isolated_link(void *kept, const char *file)
{
    int link = disk_processes_link(kept, file);

    return link == -ENOENT ? share_processes_link(kept, file) : link;
}

/* What becomes the supervisor of a machine. */
struct machine {
    char **argv;
    struct background *background; /* or NULL */
    pid_t owner;                   /* the supervisor: the VM process has all this, too */
    struct run_options run;
    struct named named;
    struct control_desk *desk;
    char log[PATH_MAX], console[PATH_MAX];
};

static bool parse_restart(const struct machine *m, enum restart *restart, struct error *err)
{
    static const char *const names[] = {
        [RESTART_NEVER] = "no", [RESTART_ON_FAILURE] = "on-failure", [RESTART_ALWAYS] = "always"};
    const char *given = m->run.restart ? m->run.restart : names[RESTART_NEVER];

    if (!m->run.restart && m->background && m->named.definition.restart)
        given = m->named.definition.restart;

    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcmp(names[i], given) != 0)
            continue;
        *restart = (enum restart)i;
        if (i == RESTART_NEVER || m->background)
            return true;
        error_set(err, EINVAL, "--restart: only doppel start starts a machine anew");
        return false;
    }
    error_set(err, EINVAL, "--restart: '%s' is not one of no, on-failure and always", given);
    return false;
}

/* Opens what only machines with a name have: a control socket, and a log that is kept. */
static int open_named(struct machine *m, struct error *err)
{
    struct control_desk_config config = {.background = m->background != NULL};
    int ret;

    if (!parse_restart(m, &config.restart, err))
        return -err->code;
    if (!named_is_open(&m->named))
        return 0;
    ret = named_log(&m->named, m->log, err);
    if (!ret)
        ret = registry_file(m->named.folder.path, RUN_CONSOLE, m->console, err);
    if (ret || m->desk)
        return ret;
    config.folder = m->named.folder.path;
    config.name = m->named.name;
    config.log = m->run.log_path ? m->run.log_path : m->log;
    m->desk = control_desk_open(&config, err);
    return m->desk ? 0 : -err->code;
}

/* Prepares the processes that stand behind the VM process. */
static struct kept_processes *prepare_kept(struct run_options *run, struct error *err)
{
    struct kept_processes *kept = kept_processes_create(err);

    if (!kept)
        return NULL;
    if (disk_processes_add(kept, run->devices, err) < 0 ||
        net_processes_add(kept, run->devices, err) < 0 ||
        share_processes_add(kept, run->devices, err) < 0) {
        kept_processes_free(kept);
        return NULL;
    }
    run->config.isolate = isolated_link;
    run->config.remote = net_processes_link;
    run->config.isolate_opaque = run->config.remote_opaque = kept;
    return kept;
}

/* Runs what was parsed. */
static int run_parsed(struct machine *m)
{
    struct run_options *run = &m->run;
    struct error err = {0};
    struct supervisor_config config;
    int status = STATUS_ERROR;

    run->background = m->background != NULL;
    if (run->turns.count)
        run->config.engine = engine_turns_maker(&run->turns);
    config = (struct supervisor_config){.background = m->background, .usr1 = run->stats};
    if (open_named(m, &err) == 0)
        config.kept = prepare_kept(run, &err);
    if (!config.kept) {
        complain("%s", err.text);
        return status;
    }
    config.desk = m->desk;
    config.log_path = run->log_path ? run->log_path : *m->log ? m->log : NULL;
    run->console_path = run->background && *m->console ? m->console : NULL;
    status = supervise(&config, vm_process, run);
    kept_processes_free(config.kept);
    return status;
}

/* Puts into the log what was complained of while there was no VM process. */
static void relay_rest(const struct machine *m)
{
    const char *path = m->run.log_path ? m->run.log_path : m->log;
    struct journal *journal;

    if (!m->background || m->background->lines < 0)
        return;
    journal = journal_create(path, JOURNAL_LIMIT, NULL);
    if (journal)
        background_relay(m->background, journal);
    journal_destroy(journal);
}

/* Reads the command line and the definition, and runs the machine until its end. */
static int live_once(struct machine *m)
{
    int status = STATUS_ERROR;

    if (run_options_parse(&m->run, &m->named, m->argv))
        status = run_parsed(m);
    if (getpid() == m->owner)
        relay_rest(m);
    return status;
}

/* Waits until the machine is to be started anew. False: it is not. */
static bool wait_for_next(const struct machine *m)
{
    static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    uint64_t at = control_desk_next(m->desk), now;
    sigset_t set;
    int fd;

    if (at == UINT64_MAX)
        return false;
    sigemptyset(&set);
    for (unsigned i = 0; i < ARRAY_SIZE(ending); i++)
        sigaddset(&set, ending[i]);
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    while (at != UINT64_MAX && (now = time_now_ns()) < at) {
        struct pollfd pfd[] = {{fd, POLLIN, 0}, {control_desk_fd(m->desk), POLLIN, 0}};

        poll(pfd, ARRAY_SIZE(pfd), (int)((at - now) / NS_PER_MS) + 1);
        control_desk_work(m->desk);
        at = pfd[0].revents ? UINT64_MAX : control_desk_next(m->desk);
    }
    if (fd >= 0)
        close(fd);
    return at != UINT64_MAX;
}

/* Has the machine go, if that was wished, or its log stay. */
static void leave(struct machine *m, int status)
{
    struct error err = {0};

    if (m->run.remove && m->named.machine.held) {
        run_folder_remove(&m->named.folder);
        if (registry_remove(&m->named.machine, &err) < 0)
            complain("%s", err.text);
    } else if (m->background && m->background->ready < 0 && status) {
        named_leave_log(&m->named);
    }
}

int machine_run(char **argv, struct background *background)
{
    struct machine m = {.argv = argv, .background = background, .owner = getpid()};
    int status;

    for (;;) {
        status = live_once(&m);
        if (getpid() != m.owner || !wait_for_next(&m))
            break;
        control_desk_anew(m.desk);
        run_options_free(&m.run);
    }
    if (getpid() == m.owner) {
        control_desk_over(m.desk);
        leave(&m, status);
    }
    control_desk_close(m.desk);
    named_close(&m.named);
    run_options_free(&m.run);
    return status;
}

static int run_in_background(void *opaque, struct background *background)
{
    return machine_run(opaque, background);
}

int machine_start(char **argv)
{
    return background_start(run_in_background, argv);
}
