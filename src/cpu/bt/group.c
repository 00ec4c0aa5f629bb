/*
 * Checks that several accesses share. Accesses through the same base register mostly lie close
 * together. The check of the first one asks the software TLB for the range of all that follow in
 * its straight run of code, as long as the register changes by constants only; the others need no
 * check.
 *
 * A range that was checked may be accessed until control leaves the run. Within it, mappings change
 * only by instructions that are not translated or whose translation calls group_forget; and what
 * other vCPUs change waits for a safe point, of which there is none within a run.
 */
#include "cpu/bt/translate.h"

#include <stdlib.h>
#include <string.h>

#define GROUP_SPAN 256 /* bytes that a check covers at most; more would too often cross pages */
#define GROUP_LOOK 96  /* instructions */

struct access {
    struct address a;
    unsigned size;
    bool write;
};

/* Returns the access of an instruction that pushes or pops a stack slot, with the register BASE as
 * its stack pointer. */
static struct access slot_access(const struct translation *t, unsigned base, bool push)
{
    unsigned size = slot_size(t);

    return (struct access){
        {(uint8_t)base, X86_NONE, 0, X86_DS, false, false, push ? -(int32_t)size : 0}, size, push};
}

/* Fills in LIST with instruction N's accesses to memory, up to two, and returns how many they are.
 * An access that this function does not know of is checked by itself later. */
static unsigned accesses_of(const struct translation *t, unsigned n, struct access list[2])
{
    const struct x86_insn *insn = &t->insn[n];
    int memory = memory_operand(t, insn);
    unsigned count = 0;

    if (memory >= 0 && address_of(t, n, (unsigned)memory, &list[0].a)) {
        list[0].size = insn->op[memory].size / 8;
        list[0].write = insn->op[memory].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        count = insn->z.mnemonic != ZYDIS_MNEMONIC_LEA && insn->z.mnemonic != ZYDIS_MNEMONIC_NOP;
    }
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_CALL: list[count++] = slot_access(t, X86_RSP, true); break;
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_RET: list[count++] = slot_access(t, X86_RSP, false); break;
    case ZYDIS_MNEMONIC_LEAVE: list[count++] = slot_access(t, X86_RBP, false); break;
    default: break;
    }
    return count;
}

/* Sets *CHANGE to the constant that INSN adds to REG. Returns false if it changes REG otherwise. */
static bool constant_change(const struct translation *t, const struct x86_insn *insn, unsigned reg,
                            int32_t *change)
{
    const ZydisDecodedOperand *op = insn->op;
    ZydisRegister whole =
        (ZydisRegister)((t->code64 ? ZYDIS_REGISTER_RAX : ZYDIS_REGISTER_EAX) + reg);
    bool to_reg = op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && op[0].reg.value == whole;
    int32_t slot = (int32_t)slot_size(t);
    int64_t amount = op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? op[1].imm.value.s : INT64_MAX;

    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
        *change = -slot;
        return reg == X86_RSP && insn->z.operand_width == slot * 8;
    case ZYDIS_MNEMONIC_POP:
        *change = slot;
        return reg == X86_RSP && !to_reg && insn->z.operand_width == slot * 8;
    case ZYDIS_MNEMONIC_ADD: break;
    case ZYDIS_MNEMONIC_SUB: amount = -amount; break;
    case ZYDIS_MNEMONIC_INC: amount = 1; break;
    case ZYDIS_MNEMONIC_DEC: amount = -1; break;
    case ZYDIS_MNEMONIC_LEA:
        if (op[1].mem.base != op[0].reg.value || op[1].mem.index != ZYDIS_REGISTER_NONE)
            return false;
        amount = op[1].mem.disp.value;
        break;
    default: return false;
    }
    *change = (int32_t)amount;
    return to_reg && amount >= -GROUP_SPAN && amount <= GROUP_SPAN;
}

/* Whether the address A is computed from REG. */
static bool uses(const struct address *a, unsigned reg)
{
    return !a->rip && (a->base == reg || a->index == reg);
}

/* Whether accesses through A must each be checked by themselves: the segment has a limit, or the
 * address is computed at run time. */
static bool is_limited(const struct translation *t, const struct address *a)
{
    return a->computed || (!t->code64 && a->segment != X86_DS);
}

/* Whether A and B differ by a constant only. */
static bool same_registers(const struct address *a, const struct address *b)
{
    return a->base == b->base && a->index == b->index && a->scale == b->scale &&
           a->segment == b->segment && a->rip == b->rip && a->computed == b->computed;
}

/* Sets *BY to how many bytes instruction N adds to the address A. Returns false if the translator
 * cannot tell. */
static bool moves(const struct translation *t, unsigned n, const struct address *a, int32_t *by)
{
    uint16_t written = t->flow[n].written;
    int32_t change;

    *by = 0;
    for (unsigned reg = 0; reg < X86_GPRS; reg++) {
        if (!(written >> reg & 1) || !uses(a, reg))
            continue;
        if (a->index == reg || !constant_change(t, &t->insn[n], reg, &change))
            return false;
        *by += change;
    }
    return true;
}

/* --- Ranges that have been checked ------------------------------------------------------------ */

void group_forget(struct translation *t)
{
    memset(t->range, 0, sizeof(t->range));
    t->in_s1 = NULL;
}

const struct range *group_find(const struct translation *t, const struct address *a, unsigned size,
                               bool write)
{
    for (unsigned i = 0; i < RANGES_MAX && !is_limited(t, a); i++) {
        const struct range *k = &t->range[i];

        if (k->high > k->low && k->write >= write && (!t->code64 || k->saved || k == t->in_s1) &&
            same_registers(&k->a, a) && k->low <= a->disp && a->disp + (int64_t)size <= k->high)
            return k;
    }
    return NULL;
}

void group_after(struct translation *t, bool s1_intact)
{
    if (!s1_intact)
        t->in_s1 = NULL;
    for (unsigned i = 0; i < RANGES_MAX; i++) {
        struct range *k = &t->range[i];
        int32_t by;

        if (k->high <= k->low)
            continue;
        if (moves(t, t->i, &k->a, &by)) {
            k->low -= by;
            k->high -= by;
        } else {
            k->high = k->low;
        }
    }
}

/* --- Planning --------------------------------------------------------------------------------- */

bool group_breaks(const struct translation *t, unsigned n)
{
    enum x86_class class = t->insn[n].info->class;

    return class == X86_CLASS_SYSTEM || class == X86_CLASS_FAR || scope_excludes(t, &t->insn[n]);
}

/* Returns the instruction at which the straight run of code from the present instruction on ends.
 */
static unsigned run_end(const struct translation *t)
{
    const struct part *p = t->now, *end = t->part + t->parts;

    while (p + 1 < end && p[1].only_from_before)
        p++;
    return MIN((unsigned)p->first + p->count, t->i + GROUP_LOOK);
}

/* Whether the sum of A's displacement and a move may need more than 32 bits. */
static bool is_far(const struct address *a)
{
    return a->disp > INT32_MAX / 2 || a->disp < INT32_MIN / 2;
}

/* Extends range K to one more access; returns false if it would get too large. MOVED: what has been
 * added to the register since K's own access. */
static bool extend(struct range *k, const struct access *access, int32_t moved)
{
    int64_t low = (int64_t)access->a.disp + moved, high = low + access->size;

    low = MIN(low, k->low);
    high = MAX(high, k->high);
    if (high - low > GROUP_SPAN)
        return false;
    k->low = low;
    k->high = high;
    return true;
}

/* Extends range K to accesses of later instructions that its check can serve, too. */
static void plan(const struct translation *t, struct range *k)
{
    unsigned end = run_end(t), others = 0;
    int32_t moved = 0, by;

    if (is_far(&k->a))
        return;
    for (unsigned n = t->i; n < end; n++) {
        struct access list[2];
        unsigned count = n > t->i ? accesses_of(t, n, list) : 0;

        if (n > t->i && group_breaks(t, n))
            return;
        for (unsigned i = 0; i < count; i++) {
            if (!same_registers(&list[i].a, &k->a) || is_far(&list[i].a)) {
                others++;
                continue;
            }
            if (list[i].write && !k->write)
                return; /* its own check, for writing, will serve more */
            if (!extend(k, &list[i], moved))
                return;
            k->saved |= others > 0;
        }
        if (!moves(t, n, &k->a, &by) || abs(moved + by) > 4 * GROUP_SPAN)
            return;
        moved += by;
    }
}

struct range *group_start(struct translation *t, const struct address *a, unsigned size, bool write)
{
    struct range *k = &t->range[t->next_range++ % (t->code64 ? RANGES_MAX : RANGE_REGISTERS)];

    *k = (struct range){*a, a->disp, a->disp + (int64_t)size, write, false};
    if (!t->single_checks && !is_limited(t, a))
        plan(t, k);
    t->in_s1 = k;
    return k;
}
