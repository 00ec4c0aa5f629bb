/*
 * The network of the default guest: its cards get their addresses before the first command runs, if
 * somebody gives them any.
 */
#ifndef DOPPEL_GUESTS_NETWORK_H
#define DOPPEL_GUESTS_NETWORK_H

/* Turns all network cards on and asks for their addresses (DHCP). Waits for the answers, but not
 * long. */
void network_begin(void);

/* In the process that the DHCP client starts when something has happened, which EVENT names and the
 * environment describes. */
void network_event(const char *event);

#endif
