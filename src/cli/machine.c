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

#include <errno.h>
#include <limits.h>
#include <stdio.h>

/* The socket of a disk's process, or of a folder's. */
static int isolated_link(void *kept, const char *file)
{
    int link = disk_processes_link(kept, file);

    return link == -ENOENT ? share_processes_link(kept, file) : link;
}

/* What becomes the supervisor of a machine. */
struct machine {
    struct run_options run;
    struct named named;
    struct supervisor_config config;
    char log[PATH_MAX], console[PATH_MAX];
};

/* Opens what only machines with a name have: a control socket, and a log that is kept. */
static int open_named(struct machine *m, struct error *err)
{
    int ret;

    if (!named_is_open(&m->named))
        return 0;
    ret = named_log(&m->named, m->log, err);
    if (!ret)
        ret = registry_file(m->named.folder.path, RUN_CONSOLE, m->console, err);
    if (ret)
        return ret;
    if (m->run.background)
        m->run.console_path = m->console;
    if (!m->config.log_path)
        m->config.log_path = m->log;
    m->config.desk =
        control_desk_open(m->named.folder.path, m->named.name, m->config.log_path, err);
    return m->config.desk ? 0 : -err->code;
}

/* Prepares the processes that stand behind the VM process. */
static int prepare_kept(struct machine *m, struct error *err)
{
    struct run_options *run = &m->run;
    struct kept_processes *kept = kept_processes_create(err);
    int ret = kept ? 0 : -err->code;

    m->config.kept = kept;
    if (!ret)
        ret = disk_processes_add(kept, run->devices, err);
    if (!ret)
        ret = net_processes_add(kept, run->devices, err);
    if (!ret)
        ret = share_processes_add(kept, run->devices, err);
    run->config.isolate = isolated_link;
    run->config.remote = net_processes_link;
    run->config.isolate_opaque = run->config.remote_opaque = kept;
    return ret;
}

/* Runs what was parsed. */
static int run_parsed(struct machine *m, struct background *background)
{
    struct run_options *run = &m->run;
    struct error err = {0};
    int status = STATUS_ERROR;

    m->config = (struct supervisor_config){
        .background = background, .log_path = run->log_path, .usr1 = run->stats};
    run->background = background != NULL;
    if (run->turns.count)
        run->config.engine = engine_turns_maker(&run->turns);
    if (open_named(m, &err) < 0 || prepare_kept(m, &err) < 0)
        complain("%s", err.text);
    else
        status = supervise(&m->config, vm_process, run);
    kept_processes_free(m->config.kept);
    return status;
}

int machine_run(char **argv, struct background *background)
{
    struct machine m = {.named = {.count = 0}};
    int status = STATUS_ERROR;

    if (run_options_parse(&m.run, &m.named, argv))
        status = run_parsed(&m, background);
    control_desk_close(m.config.desk);
    if (background && background->ready < 0 && status)
        named_leave_log(&m.named);
    named_close(&m.named);
    run_options_free(&m.run);
    return status;
}
