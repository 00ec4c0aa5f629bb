/*
 * Compares everything a program can see: exception, registers, flags, segment registers, x87, SSE
 * and AVX state, memory.
 */
#include "compare.h"

#include "cpu/bt/bt.h"

#include "base/util.h"

#include <inttypes.h>
#include <string.h>

static const char *const gpr_name[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                       "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
static const char *const code_name[] = {
    [X86_CODE16] = "16", [X86_CODE32] = "32", [X86_CODE64] = "64"};
static const char *const segment_name[] = {"es", "cs", "ss", "ds", "fs", "gs"};

/* Collects the differences of one case. */
struct report {
    FILE *out;
    bool brief; /* only the names */
    unsigned count;
};

static void check(struct report *r, const char *what, int index, uint64_t native, uint64_t engine)
{
    char name[32];

    if (native == engine)
        return;
    r->count++;
    if (!r->out)
        return;
    if (r->brief) {
        fprintf(r->out, " %s", what);
        return;
    }
    if (index < 0)
        snprintf(name, sizeof(name), "%s", what);
    else
        snprintf(name, sizeof(name), "%s%d", what, index);
    fprintf(r->out, "  %-12s native %016" PRIx64 "  engine %016" PRIx64 "\n", name, native, engine);
}

static void check_bytes(struct report *r, const char *what, unsigned index, const uint8_t *native,
                        const uint8_t *engine, unsigned size)
{
    if (!memcmp(native, engine, size))
        return;
    r->count++;
    if (!r->out)
        return;
    if (r->brief) {
        fprintf(r->out, " %s%u", what, index);
        return;
    }
    fprintf(r->out, "  %s%u\n    native", what, index);
    for (unsigned i = size; i-- > 0;)
        fprintf(r->out, " %02x", native[i]);
    fprintf(r->out, "\n    engine");
    for (unsigned i = size; i-- > 0;)
        fprintf(r->out, " %02x", engine[i]);
    fputc('\n', r->out);
}

static uint64_t field(const uint8_t *p, unsigned offset, unsigned size)
{
    uint64_t v = 0;

    memcpy(&v, p + offset, size);
    return v;
}

/* The x87's registers, of which the image has those from the top of the stack on; if TOP is masked,
 * by their numbers. */
static void compare_x87_registers(struct report *r, const uint8_t *native, const uint8_t *engine,
                                  const struct mask *mask)
{
    unsigned native_top = native[3] >> 3 & 7, engine_top = engine[3] >> 3 & 7;

    for (unsigned i = 0; i < 8; i++) {
        unsigned n = mask->mmx ? (i - native_top) & 7 : i, e = mask->mmx ? (i - engine_top) & 7 : i;

        check_bytes(r, "st", i, native + 32 + n * 16, engine + 32 + e * 16, 10);
    }
}

/* SDM volume 1, table 10-2 and 13.4. */
static void compare_xsave(struct report *r, const uint8_t *native, const uint8_t *engine,
                          const struct mask *mask)
{
    static const struct {
        const char *name;
        uint8_t offset, size;
        bool pointer;
    } fields[] = {
        {"fcw", 0, 2, false}, {"fsw", 2, 2, false}, {"ftw", 4, 1, false},    {"fop", 6, 2, true},
        {"fip", 8, 8, true},  {"fdp", 16, 8, true}, {"mxcsr", 24, 4, false},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
        uint64_t ignored = fields[i].offset == X86_XSAVE_MXCSR ? mask->mxcsr
                           : !mask->mmx                        ? 0
                           : fields[i].offset == 2             ? 0x3800
                           : fields[i].offset == 4             ? 0xFF
                                                               : 0;

        if (!fields[i].pointer || !mask->x87_pointers)
            check(r, fields[i].name, -1, field(native, fields[i].offset, fields[i].size) & ~ignored,
                  field(engine, fields[i].offset, fields[i].size) & ~ignored);
    }
    compare_x87_registers(r, native, engine, mask);
    for (unsigned i = 0; i < 16; i++) {
        if (mask->vector_registers >> i & 1)
            continue;
        check_bytes(r, "xmm", i, native + X86_XSAVE_XMM + i * 16, engine + X86_XSAVE_XMM + i * 16,
                    16);
        check_bytes(r, "ymm_high", i, native + X86_XSAVE_YMMH + i * 16,
                    engine + X86_XSAVE_YMMH + i * 16, 16);
    }
}

static bool is_masked(const struct mask *mask, unsigned offset)
{
    for (unsigned i = 0; i < mask->ranges; i++)
        if (offset - mask->range[i].start < mask->range[i].size)
            return true;
    return false;
}

static void compare_memory(struct report *r, const struct diff_result *native,
                           const struct diff_result *engine, const struct mask *mask)
{
    unsigned shown = 0;

    for (unsigned page = 0; page < DIFF_PAGES; page++) {
        if (!diff_page_access(page) ||
            !memcmp(native->image + page * 4096, engine->image + page * 4096, 4096))
            continue;
        for (unsigned i = page * 4096; i < (page + 1) * 4096; i++) {
            if (native->image[i] == engine->image[i] || is_masked(mask, i))
                continue;
            r->count++;
            if (r->brief && shown++ == 0)
                fprintf(r->out, " memory");
            if (r->out && !r->brief && shown++ < 32)
                fprintf(r->out, "  memory +%04x native %02x  engine %02x\n", i, native->image[i],
                        engine->image[i]);
        }
    }
}

/* The translator relies on the decoder for which registers an instruction writes: the processor
 * must have changed no others. */
static void check_written(struct report *r, const struct diff_case *c,
                          const struct diff_result *native)
{
    uint64_t width = c->code_size == X86_CODE64 ? UINT64_MAX : UINT32_MAX;
    struct flow flow;
    uint16_t changed = 0;

    if (!c->single || c->code_size == X86_CODE16 || c->insn.info->class == X86_CLASS_BRANCH ||
        c->insn.info->class == X86_CLASS_FAR)
        return;
    flow_of(&c->insn, &flow);
    for (unsigned i = 0; i < (width == UINT64_MAX ? 16u : 8u); i++)
        if ((c->in.gpr[i] ^ native->out.gpr[i]) & width)
            changed |= (uint16_t)(1u << i);
    check(r, "written", -1, changed, changed & flow.written);
}

/* Whether an operand can be the reason of exception VECTOR, in one class of priority (SDM volume 3,
 * table 6-2). */
static bool is_operand_fault(int vector)
{
    return (vector >= X86_TS && vector <= X86_PF) || vector == X86_AC || vector == X86_XM;
}

static void compare_exception(struct report *r, const struct diff_result *native,
                              const struct diff_result *engine, const struct mask *mask)
{
    check(r, "timeout", -1, native->timeout, engine->timeout);
    if (mask->which_fault && is_operand_fault(native->vector) && is_operand_fault(engine->vector))
        return;
    check(r, "vector", -1, (uint64_t)native->vector, (uint64_t)engine->vector);
    check(r, "error", -1, native->error | mask->error, engine->error | mask->error);
    check(r, "cr2", -1, native->cr2 | mask->cr2, engine->cr2 | mask->cr2);
}

static unsigned compare_into(struct report *r, const struct diff_case *c,
                             const struct diff_result *native, const struct diff_result *engine)
{
    const struct diff_state *n = &native->out, *e = &engine->out;
    struct mask mask;
    uint64_t width;

    mask_find(c, native, engine, &mask);
    if (mask.skip)
        return 0;
    width = mask.narrow ? UINT32_MAX : UINT64_MAX;
    compare_exception(r, native, engine, &mask);
    check(r, "rip", -1, n->rip, e->rip);
    check(r, "rflags", -1, n->rflags & ~mask.flags, e->rflags & ~mask.flags);
    for (unsigned i = 0; i < (mask.narrow ? 8u : 16u); i++)
        check(r, gpr_name[i], -1, n->gpr[i] & width & ~mask.gpr[i],
              e->gpr[i] & width & ~mask.gpr[i]);
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        check(r, segment_name[i], -1, n->selector[i] & ~(n->selector[i] < 4 ? mask.null_rpl : 0u),
              e->selector[i] & ~(e->selector[i] < 4 ? mask.null_rpl : 0u));
    if (!mask.fs_base)
        check(r, "fs_base", -1, n->fs_base, e->fs_base);
    if (!mask.gs_base)
        check(r, "gs_base", -1, n->gs_base, e->gs_base);
    compare_xsave(r, n->xsave, e->xsave, &mask);
    compare_memory(r, native, engine, &mask);
    check_written(r, c, native);
    return r->count;
}

unsigned compare_results(const struct diff_case *c, const struct diff_result *native,
                         const struct diff_result *engine, FILE *out)
{
    struct report r = {.out = out};

    return compare_into(&r, c, native, engine);
}

static void print_state(FILE *out, const char *what, const struct diff_state *s)
{
    fprintf(out, "%s: rip %016" PRIx64 " rflags %08" PRIx64 " fs %016" PRIx64 " gs %016" PRIx64,
            what, s->rip, s->rflags, s->fs_base, s->gs_base);
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        fprintf(out, " %s %04x", segment_name[i], s->selector[i]);
    for (unsigned i = 0; i < X86_GPRS; i++)
        fprintf(out, "%s%-3s %016" PRIx64, i % 4 ? "  " : "\n  ", gpr_name[i], s->gpr[i]);
    fprintf(out, "\n  fcw %04x fsw %04x ftw %02x mxcsr %08x\n", (unsigned)field(s->xsave, 0, 2),
            (unsigned)field(s->xsave, 2, 2), s->xsave[4],
            (unsigned)field(s->xsave, X86_XSAVE_MXCSR, 4));
}

static void print_registers(FILE *out, const struct diff_state *s)
{
    for (unsigned i = 0; i < 8; i++)
        fprintf(out, "  st%u %04x %016" PRIx64 "%s", i, (unsigned)field(s->xsave, 40 + i * 16, 2),
                field(s->xsave, 32 + i * 16, 8), i % 4 == 3 ? "\n" : "");
    for (unsigned i = 0; i < 16; i++)
        fprintf(out, "  ymm%-2u %016" PRIx64 " %016" PRIx64 " %016" PRIx64 " %016" PRIx64 "\n", i,
                field(s->xsave, X86_XSAVE_YMMH + i * 16 + 8, 8),
                field(s->xsave, X86_XSAVE_YMMH + i * 16, 8),
                field(s->xsave, X86_XSAVE_XMM + i * 16 + 8, 8),
                field(s->xsave, X86_XSAVE_XMM + i * 16, 8));
}

/* Disassembles the instruction AT bytes into the case's code; returns its length. */
static unsigned disassemble(const struct diff_case *c, unsigned at, char *text, unsigned size)
{
    uint64_t offset = diff_code_offset(c, c->in.rip);
    ZydisFormatter formatter;
    struct x86_insn insn;
    int length =
        x86_decode(c->code_size, false, c->image + offset + at, MIN(15u, c->size - at), &insn);

    snprintf(text, size, "(undefined)");
    if (length <= 0)
        return 1;
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&formatter, &insn.z, insn.op, insn.z.operand_count_visible,
                                    text, size, c->in.rip + at, NULL);
    return (unsigned)length;
}

static void print_code(FILE *out, const struct diff_case *c)
{
    uint64_t offset = diff_code_offset(c, c->in.rip);

    for (unsigned at = 0; at < c->size;) {
        char text[128];
        unsigned length = disassemble(c, at, text, sizeof(text));

        fprintf(out, "  %012" PRIx64 "  ", c->in.rip + at);
        for (unsigned i = 0; i < length; i++)
            fprintf(out, "%02x ", c->image[offset + at + i]);
        fprintf(out, " %s\n", text);
        at += length;
    }
}

void compare_brief(const struct diff_case *c, const struct diff_result *native,
                   const struct diff_result *engine, FILE *out)
{
    struct report r = {.out = out, .brief = true};
    char text[128] = "sequence";

    if (c->single)
        disassemble(c, 0, text, sizeof(text));
    fprintf(out, "%s: %s-bit %s, case %" PRIu64 ", vector %d and %d:", c->name ? c->name : text,
            code_name[c->code_size], c->single ? ZydisMnemonicGetString(c->insn.z.mnemonic) : "",
            c->number, native->vector, engine->vector);
    compare_into(&r, c, native, engine);
    fputc('\n', out);
}

static void print_end(FILE *out, const char *who, const struct diff_result *r)
{
    if (r->timeout)
        fprintf(out, "%s does not end\n", who);
    else
        fprintf(out, "%s ended by vector %d, error %" PRIx64 ", cr2 %" PRIx64 "\n", who, r->vector,
                r->error, r->cr2);
}

void compare_print(const struct diff_case *c, const struct diff_result *native,
                   const struct diff_result *engine, const char *engine_name, FILE *out)
{
    fprintf(out, "case %" PRIu64 "%s%s (%s-bit code)\n", c->number, c->name ? " " : "",
            c->name ? c->name : "", code_name[c->code_size]);
    print_code(out, c);
    print_state(out, "before", &c->in);
    print_registers(out, &c->in);
    print_end(out, "native", native);
    print_state(out, "native", &native->out);
    print_end(out, engine_name, engine);
    print_state(out, engine_name, &engine->out);
    fprintf(out, "differences:\n");
    compare_results(c, native, engine, out);
}

void diff_normalize_xsave(uint8_t *xsave)
{
    uint8_t in_use = xsave[X86_XSAVE_HEADER];

    if (!(in_use & X86_XCR0_X87)) {
        memset(xsave, 0, X86_XSAVE_MXCSR);
        xsave[0] = 0x7F;
        xsave[1] = 0x03;
        memset(xsave + 32, 0, 128);
    }
    if (!(in_use & X86_XCR0_SSE))
        memset(xsave + X86_XSAVE_XMM, 0, 256);
    if (!(in_use & X86_XCR0_AVX))
        memset(xsave + X86_XSAVE_YMMH, 0, 256);
}
