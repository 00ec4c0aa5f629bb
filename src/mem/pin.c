/*
 * Pins. Each page counts how often it is pinned; who takes pages away looks there.
 */
#include "mem/pin.h"

#include "base/util.h"
#include "mem/mem_private.h"

#include <errno.h>

#define PINS_MAX 60000u /* on a page; kept pages have room above */

/* ---- Waiting for pins ---- */

void mem_pin_await(struct mem *mem, struct mem_pin_waiter *waiter)
{
    pthread_mutex_lock(&mem->lock);
    fifo_put(&mem->pin_waiters, &waiter->link);
    pthread_mutex_unlock(&mem->lock);
}

void mem_pin_forget(struct mem *mem, struct mem_pin_waiter *waiter)
{
    pthread_mutex_lock(&mem->lock);
    fifo_remove(&mem->pin_waiters, &waiter->link);
    while (waiter->running)
        pthread_cond_wait(&mem->changed, &mem->lock);
    pthread_mutex_unlock(&mem->lock);
}

/* Tells those who wait now; one that waits again meanwhile is told by the next unpin. With the
 * lock, which is released while a waiter's function runs. */
static void tell_waiters(struct mem *mem)
{
    for (unsigned left = mem->pin_waiters.length; left && mem->pin_waiters.first; left--) {
        struct mem_pin_waiter *waiter =
            container_of(mem->pin_waiters.first, struct mem_pin_waiter, link);

        fifo_remove(&mem->pin_waiters, &waiter->link);
        waiter->running++;
        pthread_mutex_unlock(&mem->lock);
        waiter->run(waiter->opaque);
        pthread_mutex_lock(&mem->lock);
        if (!--waiter->running)
            pthread_cond_broadcast(&mem->changed);
    }
}

void mem_set_pin_limit(struct mem *mem, uint64_t bytes)
{
    pthread_mutex_lock(&mem->lock);
    mem->pin_limit = bytes;
    tell_waiters(mem);
    pthread_mutex_unlock(&mem->lock);
}

/* ---- Pins ---- */

/* How many pages [GPA, GPA + SIZE) meets. */
static uint64_t page_count(uint64_t gpa, uint64_t size)
{
    return size ? ((gpa + size - 1) >> MEM_PAGE_SHIFT) - (gpa >> MEM_PAGE_SHIFT) + 1 : 0;
}

/* Whether PIN may have one more page. With the lock. */
static bool within_limit(const struct mem *mem, const struct mem_pin *pin)
{
    return pin->uncounted || mem->pinned + MEM_PAGE_SIZE <= mem->pin_limit;
}

/* Makes the page at GPA present and pins it for PIN. With the lock. Stores where it is. */
static int pin_page(struct mem *mem, uint64_t gpa, const struct mem_pin *pin, uint8_t **host)
{
    struct mem_region *r;
    uint64_t page;
    int ret;

    if (!within_limit(mem, pin))
        return -EAGAIN;
    ret = mem_fault_locked(mem, gpa >> MEM_PAGE_SHIFT, pin->access, true, &r, &page);
    if (ret < 0)
        return ret;
    if (r->kind != MEM_RAM)
        return -EFAULT;
    if (r->pins[page] >= PINS_MAX || !within_limit(mem, pin))
        return -EAGAIN;
    r->pins[page]++;
    r->pinned++;
    mem->pinned += pin->uncounted ? 0 : MEM_PAGE_SIZE;
    *host = mem_region_page(r, page);
    return 0;
}

static void unpin_page(struct mem *mem, const struct mem_pin *pin, uint64_t gpn)
{
    uint64_t page;
    struct mem_region *r = mem_region_at(mem, gpn, &page);

    r->pins[page]--;
    mem->pinned -= pin->uncounted ? 0 : MEM_PAGE_SIZE;
    if (!--r->pinned)
        pthread_cond_broadcast(&mem->changed);
}

/* Appends SIZE bytes at HOST to IOV. False: there is no room. */
static bool append(struct iovec *iov, unsigned *used, unsigned room, uint8_t *host, uint64_t size)
{
    struct iovec *last = *used ? &iov[*used - 1] : NULL;

    if (last && (uint8_t *)last->iov_base + last->iov_len == host) {
        last->iov_len += size;
        return true;
    }
    if (*used == room)
        return false;
    iov[(*used)++] = (struct iovec){.iov_base = host, .iov_len = size};
    return true;
}

/* Pins pages of what PIN says, as far as it goes. With the lock. */
static int pin_pages(struct mem *mem, uint64_t size, struct mem_pin *pin, struct iovec *iov,
                     unsigned *used, unsigned room)
{
    while (pin->size < size) {
        uint64_t gpa = pin->gpa + pin->size, offset = gpa & (MEM_PAGE_SIZE - 1);
        uint64_t part = MIN(size - pin->size, MEM_PAGE_SIZE - offset);
        uint8_t *host;
        int ret = pin_page(mem, gpa, pin, &host);

        if (ret < 0)
            return ret;
        if (!append(iov, used, room, host + offset, part)) {
            unpin_page(mem, pin, gpa >> MEM_PAGE_SHIFT);
            return 0;
        }
        pin->size += part;
    }
    return 0;
}

/* Releases what is pinned. With the lock. */
static void release(struct mem *mem, struct mem_pin *pin)
{
    for (uint64_t i = 0; i < page_count(pin->gpa, pin->size); i++)
        unpin_page(mem, pin, (pin->gpa >> MEM_PAGE_SHIFT) + i);
    pin->size = 0;
}

/* Pins what PIN says: SIZE bytes of RAM, of which it takes MOST at most. What does not count is
 * pinned as a whole or not at all. */
static int pin_range(struct mem *mem, uint64_t size, uint64_t most, struct mem_pin *pin,
                     struct iovec *iov, unsigned *count)
{
    unsigned used = 0, room = *count;
    int ret;

    *count = 0;
    if (!mem_is_ram(mem, pin->gpa, size))
        return -EFAULT;
    pthread_mutex_lock(&mem->lock);
    ret = pin_pages(mem, most, pin, iov, &used, room);
    if (pin->uncounted && ret == 0 && pin->size < most)
        ret = -EINVAL;
    else if (!pin->uncounted && ret == -EAGAIN && pin->size) /* a smaller window */
        ret = 0;
    if (ret < 0 && pin->size) {
        release(mem, pin);
        tell_waiters(mem);
    }
    pthread_mutex_unlock(&mem->lock);
    if (ret == 0)
        *count = used;
    return ret;
}

int mem_pin(struct mem *mem, uint64_t gpa, uint64_t size, enum mem_access access,
            struct mem_pin *pin, struct iovec *iov, unsigned *count)
{
    *pin = (struct mem_pin){.gpa = gpa, .access = access};
    return pin_range(mem, size, MIN(size, MEM_PIN_WINDOW), pin, iov, count);
}

int mem_pin_uncounted(struct mem *mem, uint64_t gpa, uint64_t size, enum mem_access access,
                      struct mem_pin *pin, struct iovec *iov, unsigned *count)
{
    *pin = (struct mem_pin){.gpa = gpa, .access = access, .uncounted = true};
    return pin_range(mem, size, size, pin, iov, count);
}

/* Marks what the pin's owner may have written. */
static void mark(struct mem *mem, const struct mem_pin *pin)
{
    for (uint64_t i = 0; i < page_count(pin->gpa, pin->size); i++) {
        uint64_t page;
        struct mem_region *r = mem_region_at(mem, (pin->gpa >> MEM_PAGE_SHIFT) + i, &page);

        mem_mark(r, page);
    }
}

void mem_unpin(struct mem *mem, struct mem_pin *pin)
{
    uint64_t size = pin->size;

    pthread_mutex_lock(&mem->lock);
    if (pin->access == MEM_WRITE)
        mark(mem, pin);
    release(mem, pin);
    if (size && !pin->uncounted)
        tell_waiters(mem);
    pthread_mutex_unlock(&mem->lock);
    if (pin->access == MEM_WRITE && size)
        mem_tell_written(mem, pin->gpa, size);
}
