/*
 * What `auto` means on this host.
 */
#ifndef DOPPEL_CTL_HOST_H
#define DOPPEL_CTL_HOST_H

#include "ctl/doppel.h"

enum doppel_engine host_engine(void);
/* The same on this host if it had no KVM. */
enum doppel_engine host_engine_without_kvm(void);

#endif
