/*
 * Fuzz target: the ring that a vhost-user disk shares with its back end, which writes into it what
 * the input says. Whatever that is, the ring gives each chain back once at most, to its owner, and
 * knows which descriptors are free.
 */
#include "input.h"

#include "base/util.h"
#include "dev/vhost/ring.h"

#include <string.h>

#define CHAINS 512u

static _Alignas(4096) uint8_t memory[VHOST_RING_BYTES];

struct chain {
    uint64_t writable;
    unsigned descriptors;
    bool out;
};

struct model {
    struct vhost_ring ring;
    struct chain chain[CHAINS];
    unsigned made, free;
    bool indirect;
};

static void add(struct model *m, struct input *in)
{
    uint8_t how = (uint8_t)take(in, 1);
    unsigned readable = how & 3, writable = how >> 2 & 7, needed;
    struct virtqueue_buffer buffers[10];
    struct chain *c = &m->chain[m->made];
    int ret;

    if (m->made == CHAINS || !(readable + writable))
        return;
    *c = (struct chain){.writable = 0};
    for (unsigned i = 0; i < readable + writable; i++) {
        buffers[i] = (struct virtqueue_buffer){.gpa = i, .size = 1u + i * how};
        c->writable += i < readable ? 0 : buffers[i].size;
    }
    needed = m->indirect ? 1 : readable + writable;
    ret = vhost_ring_add(&m->ring, buffers, readable, writable, c);
    check((ret == 0) == (needed <= m->free));
    if (ret < 0)
        return;
    c->descriptors = needed;
    c->out = true;
    m->free -= needed;
    m->made++;
}

static void reap(struct model *m)
{
    void *owner = NULL;
    uint32_t written = 0;
    int got = vhost_ring_take(&m->ring, &owner, &written);
    struct chain *c = owner;

    if (got <= 0)
        return;
    check(c >= m->chain && c < m->chain + m->made && c->out && written <= c->writable);
    c->out = false;
    m->free += c->descriptors;
}

/* The back end gives back a chain that it may have, or writes anywhere. */
static void scribble(struct model *m, struct input *in)
{
    uint8_t how = (uint8_t)take(in, 1);
    uint32_t at = how & 1 ? (uint32_t)take(in, 3) % VHOST_RING_BYTES
                          : VHOST_RING_USED + 4 + 8 * (m->ring.used % VHOST_RING_SIZE);
    uint16_t index = (uint16_t)(m->ring.used + (how >> 4));

    for (unsigned i = 0; i < (how & 6u) + 1 && at + i < VHOST_RING_BYTES; i++)
        memory[at + i] = (uint8_t)take(in, 1);
    if (how & 8)
        memcpy(memory + VHOST_RING_USED + 2, &index, sizeof(index));
}

static void start(struct model *m, uint8_t how)
{
    struct chain *c;

    while ((c = vhost_ring_revoke(&m->ring))) {
        check(c->out);
        c->out = false;
    }
    for (unsigned i = 0; i < m->made; i++)
        check(!m->chain[i].out);
    memset(memory, 0, sizeof(memory));
    m->indirect = how & 1;
    m->made = 0;
    m->free = VHOST_RING_SIZE;
    vhost_ring_start(&m->ring, memory, 1ull << 46, how & 2, how & 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct model m;
    struct input in = {data, size};

    memset(&m, 0, sizeof(m));
    check(vhost_ring_init(&m.ring, NULL) == 0);
    m.ring.memory = memory;
    start(&m, (uint8_t)take(&in, 1));
    while (in.left) {
        uint8_t what = (uint8_t)take(&in, 1);

        switch (what % 8) {
        case 0:
        case 1:
        case 2: add(&m, &in); break;
        case 3:
        case 4: scribble(&m, &in); break;
        case 5: reap(&m); break;
        case 6: vhost_ring_wants_kick(&m.ring); break;
        default:
            if (what & 128)
                start(&m, what >> 3);
            else
                vhost_ring_await(&m.ring);
            break;
        }
    }
    start(&m, 0);
    vhost_ring_free(&m.ring);
    return 0;
}
