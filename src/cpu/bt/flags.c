/*
 * Where the guest's status flags are while a region runs: in RFLAGS, in vcpu.cc, or in both.
 */
#include "cpu/bt/translate.h"

/* Emits LAHF and SETO, and stores their result in vcpu.cc. Clobbers s0. */
static void flags_save(struct translation *t)
{
    static const uint8_t lahf_seto[] = {0x9F, 0x0F, 0x90, 0xC0};

    emit_reg(&t->e, true, OP_LOAD, t->s0, X86_RAX);
    emit_bytes(&t->e, lahf_seto, sizeof(lahf_seto));
    emit_byte(&t->e, PREFIX_16);
    emit_mem(&t->e, false, OP_STORE, X86_RAX, VCPU(c.cc));
    emit_reg(&t->e, true, OP_LOAD, X86_RAX, t->s0);
    t->flags = FLAGS_BOTH;
}

/* Emits the opposite: an addition that sets OF, and SAHF. Clobbers s0. */
static void flags_load(struct translation *t)
{
    static const uint8_t add_sahf[] = {0x04, 0x7F, 0x9E}; /* 1 + 127 overflows: OF */

    emit_reg(&t->e, true, OP_LOAD, t->s0, X86_RAX);
    emit_mem(&t->e, false, OP_LOAD_ZX16, X86_RAX, VCPU(c.cc));
    emit_bytes(&t->e, add_sahf, sizeof(add_sahf));
    emit_reg(&t->e, true, OP_LOAD, X86_RAX, t->s0);
    t->flags = FLAGS_BOTH;
}

void flags_clobber(struct translation *t, uint32_t live)
{
    flags_leave(t, live);
    t->flags = FLAGS_MEMORY;
}

void flags_leave(struct translation *t, uint32_t live)
{
    if (t->flags == FLAGS_HOST && live)
        flags_save(t);
}

void flags_need(struct translation *t)
{
    if (t->flags == FLAGS_MEMORY)
        flags_load(t);
}
