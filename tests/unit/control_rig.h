/*
 * The other side of control sockets, for a test that sees the library from outside: a run folder,
 * in which a machine called "web" runs, and a server of its socket.
 */
#ifndef DOPPEL_TESTS_UNIT_CONTROL_RIG_H
#define DOPPEL_TESTS_UNIT_CONTROL_RIG_H

#include <stdbool.h>

/* Where the machine's control socket is. NULL: the run folder cannot be made. */
const char *rig_take_folder(void);
bool rig_leave_folder(void);

/* Serves it, on a thread of its own, until rig_end:
 *      echo      gives the arguments back
 *      events    subscribes, and then there are 100 events, "tick"
 *      silence   gets no answer
 * Any other request fails with EBUSY. */
struct rig *rig_begin(void);
void rig_end(struct rig *rig);

/* Listens there for a server that the test plays. */
int rig_listen(void);

#endif
