/*
 * The agent as a program of its own, for guests with an init of their own. The default guest's has
 * it in itself (init.c).
 */
#include "agent/agent.h"

#include <stdio.h>
#include <string.h>

int main(void)
{
    int result = agent_serve();

    fprintf(stderr, "doppel-agent: cannot listen on vsock: %s\n", strerror(-result));
    return 1;
}
