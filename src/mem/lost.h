/*
 * Guest pages that the host cannot provide: it is out of memory, a limit of its own is reached (a
 * memory cgroup, strict overcommit), or the memory is broken. The kernel then sends SIGBUS to the
 * thread that touches such a page, be it in the interpreter, in translated code, or in a device.
 *
 * The page is replaced by a page of zeros which only this process sees, so that the thread can go
 * on and leave its locks as usual; the virtual machine ends soon after. For a page that was never
 * touched before, zeros are what it held. (A system call that touches such a page fails with EFAULT
 * instead, and no signal is sent.)
 */
#ifndef DOPPEL_MEM_LOST_H
#define DOPPEL_MEM_LOST_H

#include "base/error.h"
#include "base/signals.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Pages set aside to replace lost ones. They take no memory until they are used, but are paid for
 * where the host counts what it has promised. */
#define LOST_RESERVE 64

struct lost {
    uint8_t *base, *reserve;
    struct signals_watch *watch;
    void (*on_first)(void *opaque);
    void *opaque;

    atomic_flag busy;            /* guards what follows, in signal handlers */
    unsigned count;              /* pages that were replaced, of which only the first are noted: */
    uint8_t *page[LOST_RESERVE]; /* a second thread may have touched the same page */
    _Atomic uint64_t first;      /* the first one's distance from BASE plus 1; 0: none */
};

/* Watches over the SIZE bytes of guest memory that are mapped at BASE. LOST is zeroed. */
int lost_watch(struct lost *lost, void *base, uint64_t size, struct error *err);
/* No thread touches the memory any more. */
void lost_unwatch(struct lost *lost);

#endif
