/*
 * The last instructions that a vCPU has executed, for the report of a guest that died.
 */
#include "cpu/core/core.h"
#include "cpu/core/vcpu.h"
#include "cpu/core/executor.h"

#include <Zydis/Zydis.h>
#include <stdio.h>

/* Writes a line about the instruction at RIP, as it is in memory now. Returns its length, or 0. */
static unsigned describe(struct vcpu *c, uint64_t rip, char *line, unsigned size)
{
    static const enum x86_code_size code_size[] = {X86_CODE16, X86_CODE32, X86_CODE64};
    uint64_t linear = in_64(c) ? rip : (uint32_t)(rip + c->x.seg[X86_CS].base), gpa;
    uint8_t bytes[15];
    struct x86_insn insn;
    unsigned available = 0, at;
    ZydisFormatter formatter;
    int length;

    while (available < sizeof(bytes) && mmu_peek(c->mem, &c->x, linear + available, &gpa) == 0 &&
           mem_read(c->mem, gpa, bytes + available, 1) == 0)
        available++;
    length = x86_decode_for(c->core->machine.model.feature, code_size[c->mode & MODE_SIZE],
                            c->mode & MODE_REAL, bytes, available, &insn);
    at = (unsigned)snprintf(line, size, "%016llx ", (unsigned long long)rip);
    if (length <= 0) {
        snprintf(line + at, size - at, available ? " (not an instruction)" : " (not mapped)");
        return 0;
    }
    for (int i = 0; i < length; i++)
        at += (unsigned)snprintf(line + at, size - at, " %02x", bytes[i]);
    at += (unsigned)snprintf(line + at, size - at, "%*s", 3 * (12 - MIN(length, 11)), "");
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&formatter, &insn.z, insn.op, insn.z.operand_count_visible,
                                    line + at, size - at, rip, NULL);
    return (unsigned)length;
}

/* Describes the first instruction of each of the last blocks, then all of the last block up to RIP.
 * */
void core_history(struct vcpu *c, char *buf, unsigned size)
{
    unsigned blocks = MIN(c->history_at, 12u), at = 0;
    uint64_t rip = 0;
    char line[200];

    buf[0] = 0;
    for (unsigned i = blocks; i > 0; i--) {
        rip = c->history[(c->history_at - i) % HISTORY];
        describe(c, rip, line, sizeof(line));
        at += (unsigned)snprintf(buf + at, size - at, "%s\n", line);
        if (at >= size)
            return;
    }
    for (unsigned i = 0; i < BLOCK_MAX && rip < c->x.reg[X86_RIP]; i++) {
        unsigned length = describe(c, rip, line, sizeof(line));

        if (i > 0)
            at += (unsigned)snprintf(buf + at, size - at, "%s\n", line);
        if (at >= size || !length)
            return;
        rip += length;
    }
}
