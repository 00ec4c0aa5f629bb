/*
 * Dumping the architectural state.
 */
#include "x86/dump.h"

#include "base/util.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct text {
    char *buf;
    size_t size, length;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(t->buf + t->length, t->size - t->length, fmt, ap);
    va_end(ap);
    if (n > 0)
        t->length = MIN(t->length + (size_t)n, t->size - 1);
}

static const char *mode_name(const struct x86_cpu *cpu)
{
    uint16_t cs = cpu->seg[X86_CS].attr;

    if (!(cpu->cr0 & X86_CR0_PE))
        return "real";
    if (cpu->rflags & X86_FLAG_VM)
        return "virtual-8086";
    if (cpu->efer & X86_EFER_LMA)
        return cs & X86_ATTR_L    ? "64-bit"
               : cs & X86_ATTR_DB ? "32-bit compatibility"
                                  : "16-bit compatibility";
    return cs & X86_ATTR_DB ? "32-bit protected" : "16-bit protected";
}

static void put_flags(struct text *t, uint64_t rflags)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = {
        {X86_FLAG_CF, "CF"}, {X86_FLAG_PF, "PF"},   {X86_FLAG_AF, "AF"},   {X86_FLAG_ZF, "ZF"},
        {X86_FLAG_SF, "SF"}, {X86_FLAG_TF, "TF"},   {X86_FLAG_IF, "IF"},   {X86_FLAG_DF, "DF"},
        {X86_FLAG_OF, "OF"}, {X86_FLAG_NT, "NT"},   {X86_FLAG_RF, "RF"},   {X86_FLAG_VM, "VM"},
        {X86_FLAG_AC, "AC"}, {X86_FLAG_VIF, "VIF"}, {X86_FLAG_VIP, "VIP"}, {X86_FLAG_ID, "ID"},
    };

    put(t, "RFLAGS %08" PRIx64 " [IOPL=%u", rflags, (unsigned)(rflags & X86_FLAG_IOPL) >> 12);
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        if (rflags & names[i].bit)
            put(t, " %s", names[i].name);
    put(t, "]\n");
}

static void put_segment(struct text *t, const char *name, const struct x86_seg *seg)
{
    put(t, "%-4s %04x base %016" PRIx64 " limit %08x attr %04x", name, seg->selector, seg->base,
        seg->limit, seg->attr);
    if (seg->attr & X86_ATTR_UNUSABLE)
        put(t, " unusable");
    else if (!(seg->attr & X86_ATTR_P))
        put(t, " not present");
    else if (!(seg->attr & X86_ATTR_S))
        put(t, " system type %x", seg->attr & X86_ATTR_TYPE);
    else
        put(t, " %s DPL %u",
            !(seg->attr & X86_ATTR_CODE) ? "data"
            : seg->attr & X86_ATTR_L     ? "code64"
            : seg->attr & X86_ATTR_DB    ? "code32"
                                         : "code16",
            (seg->attr & X86_ATTR_DPL) >> X86_ATTR_DPL_SHIFT);
    put(t, "\n");
}

size_t x86_dump(const struct x86_cpu *cpu, char *buf, size_t size)
{
    static const char *const gpr[X86_GPRS] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP",
                                              "RSI", "RDI", "R8",  "R9",  "R10", "R11",
                                              "R12", "R13", "R14", "R15"};
    static const char *const segment[X86_SEGMENTS] = {"ES", "CS", "SS", "DS", "FS", "GS"};
    static const char *const activity[] = {"running", "halted", "waiting for SIPI", "shut down"};
    struct text t = {.buf = buf, .size = size};

    if (size == 0)
        return 0;
    buf[0] = '\0';
    put(&t, "%s, %s mode, CPL %u%s%s%s", activity[cpu->activity & 3], mode_name(cpu), x86_cpl(cpu),
        cpu->interrupt_shadow ? ", interrupt shadow" : "", cpu->nmi_blocked ? ", in NMI" : "",
        cpu->nmis_pending ? ", NMI pending" : "");
    if (cpu->exception.pending)
        put(&t, ", exception %u (%" PRIx32 ") not yet delivered", cpu->exception.vector,
            cpu->exception.error);
    put(&t, "\n");
    put(&t, "RIP %016" PRIx64 " ", cpu->reg[X86_RIP]);
    put_flags(&t, cpu->rflags);
    for (unsigned i = 0; i < X86_GPRS; i++)
        put(&t, "%-3s %016" PRIx64 "%s", gpr[i], cpu->reg[i], i % 4 == 3 ? "\n" : "  ");
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        put_segment(&t, segment[i], &cpu->seg[i]);
    put_segment(&t, "LDTR", &cpu->ldtr);
    put_segment(&t, "TR", &cpu->tr);
    put(&t, "GDTR base %016" PRIx64 " limit %04x\n", cpu->gdtr.base, cpu->gdtr.limit);
    put(&t, "IDTR base %016" PRIx64 " limit %04x\n", cpu->idtr.base, cpu->idtr.limit);
    put(&t, "CR0 %08" PRIx64 "  CR2 %016" PRIx64 "  CR3 %016" PRIx64 "  CR4 %08" PRIx64 "\n",
        cpu->cr0, cpu->cr2, cpu->cr3, cpu->cr4);
    put(&t, "EFER %04" PRIx64 "  XCR0 %" PRIx64 "  DR6 %08" PRIx64 "  DR7 %08" PRIx64 "\n",
        cpu->efer, cpu->xcr0, cpu->dr6, cpu->dr7);
    return t.length;
}
