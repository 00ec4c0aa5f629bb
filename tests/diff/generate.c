/*
 * Generates cases: initial state with a liking for edge values, instruction bytes from a form with
 * random registers, addressing modes and immediates, and sequences of them.
 */
#include "generate.h"

#include "base/util.h"

#include <string.h>

uint64_t rng_next(struct rng *rng)
{
    uint64_t z = rng->state += 0x9E3779B97F4A7C15u;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

uint64_t rng_value(struct rng *rng)
{
    static const uint64_t edge[] = {0,
                                    1,
                                    0x7F,
                                    0x80,
                                    0xFF,
                                    0x7FFF,
                                    0x8000,
                                    0xFFFF,
                                    0x7FFFFFFF,
                                    0x80000000,
                                    0xFFFFFFFF,
                                    INT64_MAX,
                                    (uint64_t)INT64_MIN};
    uint64_t r = rng_next(rng);

    switch (r & 7) {
    case 0:
    case 1: return edge[rng_below(rng, ARRAY_SIZE(edge))];
    case 2: return ~edge[rng_below(rng, ARRAY_SIZE(edge))];
    case 3: return 1ULL << (r >> 8 & 63);
    case 4: return rng_next(rng) >> (r >> 8 & 63);
    case 5: return (r >> 8 & 0xFF) - 128;
    default: return rng_next(rng);
    }
}

/* Floating-point edges: zeros, denormals, one and its neighbours, large, infinite, quiet and
 * signalling NaNs; signs at random. */
static uint64_t float64(struct rng *rng)
{
    static const uint64_t edge[] = {0,
                                    1,
                                    0x000FFFFFFFFFFFFF,
                                    0x0010000000000000,
                                    0x3FF0000000000000,
                                    0x3FEFFFFFFFFFFFFF,
                                    0x4000000000000000,
                                    0x7FEFFFFFFFFFFFFF,
                                    0x7FF0000000000000,
                                    0x7FF8000000000000,
                                    0x7FF0000000000001,
                                    0x41E0000000000000,
                                    0x43E0000000000000,
                                    0x3FE0000000000000,
                                    0x40E0000000000000};
    uint64_t r = rng_next(rng);

    if (r & 0x700)
        return edge[rng_below(rng, ARRAY_SIZE(edge))] | (r & 1) << 63;
    return (rng_below(rng, 64) + 991) << 52 | r >> 12 | (r & 1) << 63;
}

static uint32_t float32(struct rng *rng)
{
    static const uint32_t edge[] = {0,          1,          0x007FFFFF, 0x00800000, 0x3F800000,
                                    0x3F7FFFFF, 0x40000000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000,
                                    0x7F800001, 0x4F000000, 0x5F000000, 0x3F000000, 0x47000000};
    uint64_t r = rng_next(rng);

    if (r & 0x300)
        return edge[rng_below(rng, ARRAY_SIZE(edge))] | (uint32_t)(r & 1) << 31;
    return (uint32_t)((rng_below(rng, 64) + 95) << 23 | r >> 41 | (r & 1) << 31);
}

static void random_bytes(struct rng *rng, uint8_t *p, unsigned size)
{
    for (unsigned i = 0; i < size; i += 8) {
        uint64_t r = rng_next(rng);

        memcpy(p + i, &r, MIN(8u, size - i));
    }
}

/* 16 bytes of one kind of elements. */
static void vector16(struct rng *rng, uint8_t *p)
{
    uint64_t kind = rng_below(rng, 8);

    for (unsigned i = 0; i < 16; i += 8) {
        uint64_t v;

        if (kind < 2) {
            v = float64(rng);
        } else if (kind < 4) {
            v = float32(rng); /* one draw in each expression: the same with every compiler */
            v |= (uint64_t)float32(rng) << 32;
        } else if (kind == 4) {
            v = rng_value(rng);
        } else {
            v = kind == 5 ? 0 : rng_next(rng);
        }
        memcpy(p + i, &v, 8);
    }
}

/* An 80-bit number, of all the kinds the x87 knows (SDM volume 1, 8.2.2, 8.3.2). */
static void x87_number(struct rng *rng, uint8_t *p)
{
    static const struct {
        uint16_t exponent;
        uint64_t mantissa;
    } edge[] = {
        {0, 0},                       /* zero */
        {0, 1},                       /* denormal */
        {0, 0x7FFFFFFFFFFFFFFF},      /* largest denormal */
        {0, 0x8000000000000000},      /* pseudo-denormal */
        {0x3FFF, 0x8000000000000000}, /* one */
        {0x3FFF, 0x8000000000000001}, /* and its neighbour */
        {0x4000, 0xC90FDAA22168C235}, /* pi */
        {0x7FFE, UINT64_MAX},         /* largest */
        {0x7FFF, 0x8000000000000000}, /* infinity */
        {0x7FFF, 0xC000000000000000}, /* quiet NaN */
        {0x7FFF, 0x8000000000000001}, /* signalling NaN */
        {0x7FFF, 0},                  /* pseudo-infinity */
        {0x4010, 0x0123456789ABCDEF}, /* unnormal */
        {0x401D, 0xFFFFFFFF00000000}, /* near the 32-bit integers' end */
        {0x403D, UINT64_MAX},         /* near the 64-bit integers' end */
        {0x403A, 0xDE0B6B3A763FFFF0}, /* near the packed decimals' end */
    };
    uint64_t r = rng_next(rng), mantissa;
    uint16_t exponent;

    if (r & 0x300) {
        unsigned i = (unsigned)rng_below(rng, ARRAY_SIZE(edge));

        exponent = edge[i].exponent;
        mantissa = edge[i].mantissa;
    } else {
        exponent = (uint16_t)(0x3FFF - 40 + rng_below(rng, 80));
        mantissa = rng_next(rng) | 1ULL << 63;
    }
    exponent |= (uint16_t)((r & 1) << 15);
    memcpy(p, &mantissa, 8);
    memcpy(p + 8, &exponent, 2);
}

static void random_x87(struct rng *rng, uint8_t *xsave)
{
    uint16_t fcw = 0x37F, fsw = 0;
    uint8_t tags = 0xFF;

    if (rng_percent(rng, 30)) /* precision and rounding */
        fcw = (uint16_t)(fcw ^ (rng_next(rng) & 0xF00));
    if (rng_percent(rng, 15)) /* unmasked exceptions */
        fcw &= ~(rng_next(rng) & 0x3F);
    fsw = (uint16_t)(rng_next(rng) & 0x7F00); /* C0-C3, TOP */
    if (rng_percent(rng, 20))
        fsw |= (uint16_t)(rng_next(rng) & 0x7F);
    if (fsw & ~fcw & 0x3F) { /* an exception is pending: ES and B */
        if (rng_percent(rng, 80))
            fsw &= (uint16_t)(fcw | 0xFFC0);
        else
            fsw |= 0x8080;
    }
    if (rng_percent(rng, 30))
        tags = (uint8_t)rng_next(rng);
    memcpy(xsave, &fcw, 2);
    memcpy(xsave + 2, &fsw, 2);
    xsave[4] = tags;
    for (unsigned i = 0; i < 8; i++)
        x87_number(rng, xsave + 32 + i * 16);
}

static void random_xsave(struct rng *rng, uint8_t *xsave)
{
    uint32_t mxcsr = 0x1F80;

    memset(xsave, 0, X86_XSAVE_SIZE);
    random_x87(rng, xsave);
    if (rng_percent(rng, 40)) /* rounding, flush to zero, denormals are zeros, sticky flags */
        mxcsr ^= rng_next(rng) & 0xE07F;
    if (rng_percent(rng, 15))
        mxcsr &= ~(uint32_t)(rng_next(rng) & 0x1F80);
    memcpy(xsave + X86_XSAVE_MXCSR, &mxcsr, 4);
    for (unsigned i = 0; i < 16; i++) {
        vector16(rng, xsave + X86_XSAVE_XMM + i * 16);
        vector16(rng, xsave + X86_XSAVE_YMMH + i * 16);
    }
    xsave[X86_XSAVE_HEADER] = X86_XCR0_ALL;
}

void generator_init(struct generator *g, const struct forms *forms, uint64_t seed)
{
    struct rng rng = {seed};

    g->forms = forms;
    g->seed = seed;
    memset(g->pattern, 0, sizeof(g->pattern));
    for (unsigned page = 0; page < DIFF_PAGES; page++) {
        uint8_t *p = g->pattern + page * 4096;

        if (diff_page_access(page) & DIFF_X) {
            memset(p, 0xCC, 4096);
            continue;
        }
        for (unsigned i = 0; i < 4096; i += 64) { /* lines of one kind each */
            unsigned kind = (unsigned)rng_below(&rng, 6);

            for (unsigned j = 0; j < 64; j += 16)
                if (kind == 0)
                    memset(p + i + j, 0, 16);
                else if (kind == 1)
                    x87_number(&rng, p + i + j);
                else
                    vector16(&rng, p + i + j);
        }
    }
}

void case_poke(struct diff_case *c, uint64_t address, const void *data, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        uint64_t a = address + i;
        uint64_t offset = a >= DIFF_HIGH ? a - DIFF_HIGH : a - DIFF_LOW;

        if (offset < DIFF_SIZE && diff_page_access((unsigned)(offset >> 12)))
            c->image[offset] = ((const uint8_t *)data)[i];
    }
}

void generate_segments(struct rng *rng, struct diff_case *c)
{
    static const uint16_t other[] = {DIFF_DS, DIFF_DS16, DIFF_DS32, DIFF_DS32, DIFF_DOWN};
    uint16_t *selector = c->in.selector;

    if (c->code_size == X86_CODE64 || !rng_percent(rng, 20))
        return;
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        if (i != X86_CS)
            selector[i] = other[rng_below(rng, ARRAY_SIZE(other))];
    if (rng_percent(rng, 10))
        selector[X86_DS] = DIFF_DS_READ;
    if (c->code_size == X86_CODE32 && rng_percent(rng, 30))
        selector[X86_CS] = DIFF_CS_EXECUTE;
    if (selector[X86_FS] != DIFF_DS)
        c->in.fs_base += DIFF_LOW;
}

void generate_empty(const struct generator *g, uint64_t number, enum x86_code_size code_size,
                    struct diff_case *c, struct rng *case_rng)
{
    struct rng *rng = case_rng;
    struct diff_state *in = &c->in;

    rng->state = g->seed * 0xD1342543DE82EF95u + number;
    rng->state = rng_next(rng);
    memset(c, 0, offsetof(struct diff_case, image));
    memcpy(c->image, g->pattern, sizeof(c->image));
    c->number = number;
    c->code_size = code_size;
    for (unsigned i = 0; i < X86_GPRS; i++) {
        in->gpr[i] = rng_value(rng);
        if (code_size != X86_CODE64)
            in->gpr[i] = i < 8 ? (uint32_t)in->gpr[i] : 0;
    }
    in->rflags = X86_FLAG_ONE | X86_FLAG_IF | (rng_next(rng) & X86_FLAGS_STATUS);
    if (rng_percent(rng, 15))
        in->rflags |= X86_FLAG_DF;
    if (rng_percent(rng, 3))
        in->rflags |= X86_FLAG_AC;
    in->fs_base = rng_below(rng, 0x2000);
    in->gs_base = DIFF_LOW + rng_below(rng, 0x10000);
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        in->selector[i] = code_size == X86_CODE16 ? DIFF_DS16 : DIFF_DS;
    in->selector[X86_CS] = code_size == X86_CODE64   ? DIFF_CS64
                           : code_size == X86_CODE32 ? DIFF_CS32
                                                     : DIFF_CS16;
    random_xsave(rng, in->xsave);
}

/* The linear address where a case's code starts: mostly inside its pages, at times at their end. */
static uint64_t code_start(struct rng *rng, enum x86_code_size code_size, bool writable,
                           unsigned size)
{
    uint64_t base = code_size == X86_CODE64 && rng_percent(rng, 40) ? DIFF_HIGH : DIFF_LOW;
    uint64_t room = 0x2000 - 2 * 0x200 - size;

    base += writable ? DIFF_CODE_RWX : DIFF_CODE;
    if (rng_percent(rng, 5)) /* straddles the two pages */
        return base + 0x1000 - 1 - rng_below(rng, 14);
    if (rng_percent(rng, 2)) /* runs into an absent page */
        return base + 0x2000 - 1 - rng_below(rng, 14);
    return base + 0x200 + rng_below(rng, room);
}

static void put_legacy_prefixes(struct rng *rng, const struct form *f, uint8_t *bytes, unsigned *n)
{
    static const uint8_t segment[] = {0x64, 0x65, 0x65, 0x26, 0x2E, 0x36, 0x3E};

    if (f->memory || f->info->class == X86_CLASS_STRING) {
        if (rng_percent(rng, 10))
            bytes[(*n)++] = segment[rng_below(rng, ARRAY_SIZE(segment))];
        if (rng_percent(rng, f->code_size == X86_CODE32 ? 2 : 6))
            bytes[(*n)++] = 0x67;
    } else if (f->map == 0 && (f->opcode & 0xFC) == 0xE0 && rng_percent(rng, 30)) {
        bytes[(*n)++] = 0x67; /* LOOP and JCXZ: the counter's size */
    }
}

static unsigned put_opcode(struct rng *rng, const struct form *f, uint8_t *bytes)
{
    uint64_t r = rng_next(rng);
    /* REX.R, X and B: each in a quarter of the cases. */
    uint8_t extend = f->code_size == X86_CODE64 ? (uint8_t)(r & r >> 8 & 7) : 0;
    unsigned n = 0;

    put_legacy_prefixes(rng, f, bytes, &n);
    if (f->vex) {
        uint8_t vvvv = rng_percent(rng, 50) ? 15 : (uint8_t)(rng_next(rng) & 15);

        if (f->map == 1 && !f->w && !(extend & 3) && rng_percent(rng, 70)) {
            bytes[n++] = 0xC5;
            bytes[n++] = (uint8_t)((extend & 4 ? 0 : 0x80) | vvvv << 3 | f->l << 2 | f->prefix[0]);
        } else {
            bytes[n++] = 0xC4;
            bytes[n++] = (uint8_t)((~extend & 7) << 5 | f->map);
            bytes[n++] = (uint8_t)(f->w << 7 | vvvv << 3 | f->l << 2 | f->prefix[0]);
        }
    } else {
        for (unsigned i = 0; i < 2; i++)
            if (f->prefix[i])
                bytes[n++] = f->prefix[i];
        if (f->w || extend || (f->code_size == X86_CODE64 && rng_percent(rng, 5)))
            bytes[n++] = (uint8_t)(0x40 | f->w << 3 | extend);
        if (f->map)
            bytes[n++] = 0x0F;
        if (f->map >= 2)
            bytes[n++] = f->map == 2 ? 0x38 : 0x3A;
    }
    bytes[n++] = f->opcode;
    return n;
}

static uint8_t pick_modrm(struct rng *rng, const struct form *f)
{
    for (;;) {
        uint8_t modrm = (uint8_t)rng_next(rng);

        if (!f->memory) {
            modrm |= 0xC0;
            if (f->modrm_set >> (modrm & 0x3F) & 1)
                return modrm;
        } else if (modrm < 0xC0 && f->reg_set >> (modrm >> 3 & 7) & 1) {
            if (f->vsib)
                modrm = (uint8_t)((modrm & 0xF8) | 4);
            else if (rng_percent(rng, 5))
                modrm = (modrm & 0x38) | 5;
            return modrm;
        }
    }
}

/* Bytes for FORM; what it turns out to be is for the decoder to say. */
static void encode_random(struct rng *rng, const struct form *f, uint8_t bytes[15])
{
    unsigned n;

    random_bytes(rng, bytes, 15);
    n = put_opcode(rng, f, bytes);
    if (f->modrm) {
        bytes[n] = pick_modrm(rng, f);
        if (f->memory && rng_percent(rng, 70)) { /* a small displacement */
            unsigned disp = n + 1 + ((bytes[n] & 7) == 4);
            int32_t value = (int32_t)rng_below(rng, 4096) - 2048;

            if (disp + 4 <= 15 && (bytes[n] >= 0x80 || (bytes[n] & 0xC7) == 5))
                memcpy(bytes + disp, &value, 4);
        }
    }
}

/* LOCK before it, where it may stand and has a memory operand. */
static void add_lock(struct rng *rng, const struct form *f, struct x86_insn *insn,
                     uint8_t bytes[15])
{
    uint8_t locked[15];
    struct x86_insn decoded;

    if (!(insn->z.attributes & ZYDIS_ATTRIB_ACCEPTS_LOCK) || !f->memory || !rng_percent(rng, 30))
        return;
    locked[0] = 0xF0;
    memcpy(locked + 1, bytes, 14);
    if (x86_decode(f->code_size, false, locked, 15, &decoded) > 0) {
        memcpy(bytes, locked, 15);
        *insn = decoded;
    }
}

bool generate_insn(struct rng *rng, const struct form *f, uint8_t bytes[15], struct x86_insn *insn)
{
    for (unsigned attempt = 0; attempt < 60; attempt++) {
        encode_random(rng, f, bytes);
        if (x86_decode(f->code_size, false, bytes, 15, insn) > 0 &&
            insn->z.mnemonic == f->mnemonic && insn->info == f->info) {
            add_lock(rng, f, insn, bytes);
            return true;
        }
    }
    return false;
}

bool generate_single(const struct generator *g, uint64_t number, struct diff_case *c)
{
    const struct form *f = &g->forms->form[number % g->forms->count];
    enum x86_code_size size = f->code_size;
    struct plan plan = {0};
    struct rng rng;
    uint8_t bytes[15];

    generate_empty(g, number, size, c, &rng);
    generate_segments(&rng, c);
    if (rng_percent(&rng, 2))
        c->in.rflags |= X86_FLAG_TF; /* ends with #DB, unless something else comes first */
    plan.rng = &rng;
    plan.c = c;
    plan.bytes = bytes;
    for (unsigned attempt = 0; attempt < 20; attempt++) {
        if (!generate_insn(&rng, f, bytes, &c->insn))
            return false;
        plan.set = 0;
        plan.address = code_start(&rng, size, rng_percent(&rng, 12), c->insn.z.length);
        if (size != X86_CODE64)
            plan.address -= diff_segment_base(c, X86_CS);
        if (!steer(&plan, &c->insn))
            continue;
        for (unsigned i = 0; i < X86_GPRS; i++)
            if (plan.set >> i & 1)
                c->in.gpr[i] = size == X86_CODE64 ? plan.value[i] : (uint32_t)plan.value[i];
        c->single = true;
        c->in.rip = plan.address;
        c->size = (unsigned)x86_decode(size, false, bytes, 15, &c->insn);
        case_poke(c, plan.address + diff_segment_base(c, X86_CS), bytes, c->size);
        return true;
    }
    return false;
}

/* Whether no processor that Zydis knows has the instruction, so that the host's cannot either. It
 * is not sure of AMD's own: XOP and LWP (8F), prefixes that are ignored in 0F 01, and LOCK MOV CR0,
 * which is MOV CR8 (0F 20, 0F 22). */
static bool is_undefined(enum x86_code_size size, const uint8_t *bytes, unsigned prefixes)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    struct x86_insn insn;
    const uint8_t *opcode = bytes + prefixes;

    if (opcode[0] == 0x8F ||
        (opcode[0] == 0x0F && (opcode[1] == 0x01 || opcode[1] == 0x20 || opcode[1] == 0x22)) ||
        x86_decode(size, false, bytes, 15, &insn) != -1)
        return false;
    if (size == X86_CODE64)
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else if (size == X86_CODE32)
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    else
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    return ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, bytes, 15, &z, op));
}

bool generate_undefined(const struct generator *g, uint64_t number, struct diff_case *c)
{
    static const uint8_t prefix[] = {0x66, 0xF2, 0xF3, 0xF0, 0x48, 0x2E};
    static const uint8_t escape[][2] = {{0, 0}, {0x0F, 0}, {0x0F, 0x38}, {0x0F, 0x3A}};
    enum x86_code_size size = (enum x86_code_size)(number / 64 % 3);
    struct rng rng;

    generate_empty(g, number, size, c, &rng);
    for (unsigned attempt = 0; attempt < 1000; attempt++) {
        const uint8_t *e = escape[rng_below(&rng, ARRAY_SIZE(escape))];
        unsigned n = 0, prefixes;
        uint8_t bytes[15];

        random_bytes(&rng, bytes, sizeof(bytes));
        if (rng_percent(&rng, 60))
            bytes[n++] = prefix[rng_below(&rng, ARRAY_SIZE(prefix))];
        prefixes = n;
        for (unsigned i = 0; i < 2; i++)
            if (e[i])
                bytes[n++] = e[i];
        if (!is_undefined(size, bytes, prefixes))
            continue;
        c->size = sizeof(bytes);
        /* Not at the end of a page: there the rest of it may be asked for first. */
        c->in.rip = DIFF_LOW + DIFF_CODE + 0x200 + rng_below(&rng, 0xC00);
        case_poke(c, c->in.rip, bytes, c->size);
        if (size != X86_CODE64)
            c->in.rip -= diff_segment_base(c, X86_CS);
        return true;
    }
    return false;
}
