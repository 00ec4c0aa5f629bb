/*
 * One connection of the agent's: a command, or a question, from its request to its end.
 */
#ifndef DOPPEL_GUESTS_AGENT_SESSION_H
#define DOPPEL_GUESTS_AGENT_SESSION_H

/* Serves the connection LINK, which blocks, in a process of its own, and ends that. */
__attribute__((noreturn)) void agent_session_serve(int link);

#endif
