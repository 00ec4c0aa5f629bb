/*
 * Both ends of the tests of networks: the benchmark's server and clients alone.
 */
#include "../../bench/guest/net.h"

int main(int argc, char **argv)
{
    return net_main(argc - 1, argv + 1);
}
