/*
 * Networks: `bench net ...`, a program of its own within the benchmark's.
 */
#ifndef DOPPEL_BENCH_NET_H
#define DOPPEL_BENCH_NET_H

/* ARGV begins behind the word "net". Returns the exit status. */
int net_main(int argc, char **argv);

#endif
