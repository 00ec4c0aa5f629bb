/*
 * Guest pages that the host cannot provide.
 */
#include "mem/lost.h"

#include "base/raw_syscall.h"
#include "base/util.h"
#include "mem/mem.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* Puts a page of zeros at PAGE. Returns false if the kernel refuses even that. */
SIGNALS_SAFE static bool replace(struct lost *lost, uint8_t *page)
{
    unsigned n = lost->count++;
    long at;

    if (n < LOST_RESERVE) {
        lost->page[n] = page;
        at = raw_syscall(SYS_mremap, (long)(lost->reserve + n * MEM_PAGE_SIZE), MEM_PAGE_SIZE,
                         MEM_PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, (long)page, 0);
    } else {
        at = raw_syscall(SYS_mmap, (long)page, MEM_PAGE_SIZE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    }
    return at == (long)page;
}

SIGNALS_SAFE static bool is_replaced(const struct lost *lost, const uint8_t *page)
{
    for (unsigned i = 0; i < lost->count && i < LOST_RESERVE; i++)
        if (lost->page[i] == page)
            return true;
    return false;
}

SIGNALS_SAFE static bool on_fault(void *opaque, const struct signals_fault *fault)
{
    struct lost *lost = opaque;
    uint64_t offset = (fault->address - (uintptr_t)lost->base) & -(uint64_t)MEM_PAGE_SIZE;
    uint8_t *page = lost->base + offset;
    uint64_t none = 0;
    bool done;

    if (fault->number != SIGBUS)
        return false;
    while (atomic_flag_test_and_set(&lost->busy))
        ;
    done = is_replaced(lost, page) || replace(lost, page);
    atomic_flag_clear(&lost->busy);
    if (done && atomic_compare_exchange_strong(&lost->first, &none, offset + 1) && lost->on_first)
        lost->on_first(lost->opaque);
    return done;
}

int lost_watch(struct lost *lost, void *base, uint64_t size, struct error *err)
{
    void *reserve = mmap(NULL, LOST_RESERVE * MEM_PAGE_SIZE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (reserve == MAP_FAILED)
        return error_set(err, errno, "cannot map pages in reserve for guest memory: %s",
                         strerror(errno));
    lost->base = base;
    lost->reserve = reserve;
    atomic_flag_clear(&lost->busy);
    lost->watch = signals_watch(SIGNALS_BY_ADDRESS, (uintptr_t)base, (uintptr_t)base + size,
                                on_fault, lost, err);
    return lost->watch ? 0 : -ENOMEM;
}

void lost_unwatch(struct lost *lost)
{
    size_t used = MIN(lost->count, LOST_RESERVE) * (size_t)MEM_PAGE_SIZE;

    signals_unwatch(lost->watch);
    /* Where the pages that were used lay, other things may be mapped now. */
    if (lost->reserve && used < LOST_RESERVE * MEM_PAGE_SIZE)
        munmap(lost->reserve + used, LOST_RESERVE * MEM_PAGE_SIZE - used);
}
