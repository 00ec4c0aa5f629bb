/*
 * String instructions: the host's own, on host addresses (SDM volume 1, 7.3.9; volume 2, REP).
 *
 * A repeated one proceeds by runs: as many elements as lie in the present pages of both operands.
 * One look into the software TLB for each operand serves a run, and operands that overlap in the
 * guest overlap in the same way in the host. After a run RCX, RSI and RDI hold the guest's values:
 * there the code looks for requests, and there the next page may fault. The interpreter executes
 * elements that lie across two pages, and everything while DF is set. In 32-bit code the three
 * registers are 32 bits wide.
 */
#include "cpu/bt/translate.h"

static const struct address source = {X86_RSI, X86_NONE, 0, X86_DS, false, false, 0};
static const struct address destination = {X86_RDI, X86_NONE, 0, X86_DS, false, false, 0};

/* Loads INTO with the offset in its page of the address in REG. */
static void emit_page_offset(struct translation *t, unsigned into, unsigned reg)
{
    emit_reg(&t->e, false, OP_LOAD, into, reg);
    emit_alu_imm(&t->e, false, ALU_N_AND, into, MEM_PAGE_SIZE - 1);
}

/* Loads s1 with the number of elements in the run: as many as begin in the page, at most RCX. */
static void emit_run_length(struct translation *t, const struct string_form *f)
{
    unsigned shift = (unsigned)__builtin_ctz(f->size);

    emit_page_offset(t, t->s1, X86_RDI);
    if (f->from) { /* the operand that is nearer to its end */
        emit_page_offset(t, t->s0, X86_RSI);
        emit_reg(&t->e, false, OP_CMP_LOAD, t->s1, t->s0);
        emit_reg(&t->e, false, OP_CMOV + CC_B, t->s1, t->s0);
    }
    emit_alu_imm(&t->e, false, ALU_N_SUB, t->s1, MEM_PAGE_SIZE);
    emit_reg(&t->e, false, OP_GROUP_UNARY, UNARY_N_NEG, t->s1);
    if (shift)
        emit_shift_imm(&t->e, false, SHIFT_N_SHR, t->s1, shift);
    emit_reg(&t->e, t->code64, OP_CMP_LOAD, t->s1, X86_RCX);
    emit_reg(&t->e, t->code64, OP_CMOV + CC_A, t->s1, X86_RCX);
}

/* Checks SIZE bytes of both operands. Leaves their host addresses in string.from and s0. */
static void emit_operands(struct translation *t, const struct string_form *f, unsigned size)
{
    if (f->from) {
        emit_mem(&t->e, true, OP_LEA, t->s0, emit_check(t, &source, size, false, 1));
        emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(string.from));
    }
    if (f->to)
        emit_mem(&t->e, true, OP_LEA, t->s0, emit_check(t, &destination, size, f->writes, 1));
}

/* Adds the size of the run's s1 elements to REG, and stores it in PLACE. */
static void emit_behind(struct translation *t, const struct string_form *f, unsigned reg,
                        struct operand place)
{
    struct operand end = at_index(reg, t->s1, 0);

    end.scale = (uint8_t)__builtin_ctz(f->size);
    emit_mem(&t->e, t->code64, OP_LEA, reg, end);
    emit_mem(&t->e, true, OP_STORE, reg, place);
}

static void translate_repeated(struct translation *t, const struct x86_insn *insn,
                               const struct string_form *f)
{
    uint8_t *none, *done, *start = t->e.at;

    emit_reg(&t->e, t->code64, OP_TEST, X86_RCX, X86_RCX);
    none = emit_jcc(&t->e, CC_E);
    emit_operands(t, f, f->size); /* the first elements; each lies in one page */
    emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(string.to));
    emit_run_length(t, f);
    emit_reg(&t->e, t->code64, OP_SUB_LOAD, X86_RCX, t->s1);
    emit_mem(&t->e, true, OP_STORE, X86_RCX, VCPU(string.rcx));
    emit_reg(&t->e, true, OP_LOAD, X86_RCX, t->s1);
    emit_behind(t, f, X86_RDI, VCPU(string.rdi));
    emit_mem(&t->e, true, OP_LOAD, X86_RDI, VCPU(string.to));
    if (f->from) {
        emit_behind(t, f, X86_RSI, VCPU(string.rsi));
        emit_mem(&t->e, true, OP_LOAD, X86_RSI, VCPU(string.from));
    }
    copy_as_is(t, insn);
    if (f->from)
        emit_mem(&t->e, true, OP_LOAD, X86_RSI, VCPU(string.rsi));
    emit_mem(&t->e, true, OP_LOAD, X86_RDI, VCPU(string.rdi));
    emit_mem(&t->e, true, OP_LOAD, X86_RCX, VCPU(string.rcx));
    emit_reg(&t->e, true, OP_TEST, X86_RCX, X86_RCX);
    done = emit_jcc(&t->e, CC_E);
    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(requests));
    emit_alu_mem_imm(&t->e, false, ALU_N_CMP, at(t->s0, 0), 0);
    cold_add_one(t, emit_jcc(&t->e, CC_NE)); /* the interpreter goes on and checks by itself */
    emit_jmp_to(&t->e, start);
    if (t->e.full)
        return;
    emit_patch(none, t->e.at);
    emit_patch(done, t->e.at);
}

static void translate_single(struct translation *t, const struct x86_insn *insn,
                             const struct string_form *f)
{
    emit_operands(t, f, f->size);
    if (f->to) {
        emit_reg(&t->e, true, OP_LOAD, t->s1, X86_RDI);
        emit_reg(&t->e, true, OP_LOAD, X86_RDI, t->s0);
    }
    if (f->from) {
        emit_reg(&t->e, true, OP_LOAD, t->s0, X86_RSI);
        emit_mem(&t->e, true, OP_LOAD, X86_RSI, VCPU(string.from));
    }
    copy_as_is(t, insn);
    if (f->to)
        emit_mem(&t->e, t->code64, OP_LEA, X86_RDI, at(t->s1, (int32_t)f->size));
    if (f->from)
        emit_mem(&t->e, t->code64, OP_LEA, X86_RSI, at(t->s0, (int32_t)f->size));
    if (!f->writes && f->to)
        t->flags = FLAGS_HOST;
}

bool translate_string(struct translation *t, const struct x86_insn *insn)
{
    struct string_form f;

    string_form_of(t, insn, &f);
    if (f.repeats)
        group_forget(t); /* when it comes back to the check, the registers have changed */
    flags_clobber(t, live_before(&t->flow[t->i]));
    emit_test_mem_imm(&t->e, VCPU(c.x.rflags), X86_FLAG_DF);
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
    if (f.repeats)
        translate_repeated(t, insn, &f);
    else
        translate_single(t, insn, &f);
    return true;
}
