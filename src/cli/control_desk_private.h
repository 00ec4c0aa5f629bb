/*
 * What the files of the control desk share (control_desk.h). Each uses those in front of it only:
 *
 *      control_state.c      what is known, and telling it
 *      control_requests.c   what clients ask for
 *      control_desk.c       for the supervisor: what happens
 */
#ifndef DOPPEL_CLI_CONTROL_DESK_PRIVATE_H
#define DOPPEL_CLI_CONTROL_DESK_PRIVATE_H

#include "cli/control_desk.h"
#include "ctl/control_server.h"

#define WAITING_MOST 128 /* requests that wait for the end */
#define WORKS_MOST   64  /* that the VM process has been given */

struct waiting {
    uint64_t client;
    int64_t id;
    bool start; /* for the next start, and not for the end */
};

/* What the VM process has been given to do, and for whom. */
struct given {
    uint32_t number; /* 0: nothing */
    enum work what;
    struct waiting who;
};

struct control_desk {
    struct control_server *server;
    struct control_desk_ops ops;
    char *log;
    bool background;
    enum restart restart;

    /* How the last VM process has ended, and whether another one is started. */
    enum machine_end how;
    int status;
    bool anew, wished, ever_started; /* ANEW: somebody asked for a restart. WISHED: for the end */
    uint64_t next, delay;            /* NEXT: control_desk_next, 0: never */

    pid_t vm; /* 0: there is none */
    bool running, paused, held, frozen, ending;
    struct machine_facts facts;
    uint64_t started, started_real; /* when the guest began to run; 0: it has not */

    /* Processor time of the VM process at two moments: the load is what was used since the first.
     */
    struct {
        uint64_t at, used;
    } look[2];

    uint64_t plug_at; /* when the plug is pulled; 0: never */
    struct waiting waiting[WAITING_MOST];
    unsigned waiting_count;
    struct given given[WORKS_MOST];
    uint32_t last_work; /* the last number */
};

/* Tells of EVENT, which has the members of MORE, too. MORE is taken; it may be NULL. */
void control_desk_tell(struct control_desk *desk, const char *event, json_t *more);
/* NS as JSON has it. */
double control_desk_seconds(uint64_t ns);
/* Looks at the processor time of the VM process. */
void control_desk_look(struct control_desk *desk, uint64_t now);
/* The result of the request `state`. */
json_t *control_desk_describe(const struct control_desk *desk);

/* Serves a request: control_ops. DESK is the desk. */
void control_desk_serve(void *desk, uint64_t client, const struct control_request *request);

#endif
