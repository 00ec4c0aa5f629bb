/*
 * The handlers that select.c chooses from, by the file that holds them. In tables, sizes are 0, 1,
 * 2 and 3 for 8, 16, 32 and 64 bits.
 */
#ifndef DOPPEL_CPU_INTERP_HANDLERS_H
#define DOPPEL_CPU_INTERP_HANDLERS_H

#include "cpu/interp/interp.h"

enum { SIZE_8, SIZE_16, SIZE_32, SIZE_64, SIZES };

/* Operand forms: destination then source; R register, M memory, I immediate. */
enum form { FORM_RR, FORM_RM, FORM_MR, FORM_RI, FORM_MI, FORMS };

/* --- alu.c: two operands ---------------------------------------------------------------- */
enum alu { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP, ALU_TEST, ALUS };
extern uop_fn *const alu_handlers[ALUS][SIZES][FORMS];
/* The same with LOCK: MR and MI only. */
extern uop_fn *const alu_locked_handlers[ALUS][SIZES][2];

/* --- unary.c: one operand, and shifts ------------------------------------------------------ */
enum unary { UNARY_INC, UNARY_DEC, UNARY_NEG, UNARY_NOT, UNARIES };
extern uop_fn *const unary_handlers[UNARIES][SIZES][2]; /* register, memory */
extern uop_fn *const unary_locked_handlers[UNARIES][SIZES];
enum shift { SHIFT_ROL, SHIFT_ROR, SHIFT_RCL, SHIFT_RCR, SHIFT_SHL, SHIFT_SHR, SHIFT_SAR, SHIFTS };
extern uop_fn *const shift_handlers[SHIFTS][SIZES][2]; /* count in imm */
extern uop_fn *const shift_cl_handlers[SHIFTS][SIZES][2];
extern uop_fn *const shld_handlers[2][SIZES][2]; /* SHLD, SHRD; aux: count is CL */

/* --- muldiv.c --------------------------------------------------------------------------------- */
extern uop_fn *const imul2_handlers[SIZES][2]; /* dst *= r/m */
extern uop_fn *const imul3_handlers[SIZES][2]; /* dst = r/m * imm */
enum muldiv { MD_MUL, MD_IMUL, MD_DIV, MD_IDIV, MULDIVS };
extern uop_fn *const muldiv_handlers[MULDIVS][SIZES][2];

/* --- bits.c: bit tests, scans, byte swaps, exchanges ----------------------------------------- */
enum bit_test { BIT_BT, BIT_BTS, BIT_BTR, BIT_BTC, BIT_TESTS };
/* Register, memory with immediate, memory with register (reaching beyond the operand). */
extern uop_fn *const bit_handlers[BIT_TESTS][SIZES][3];
extern uop_fn *const xadd_handlers[SIZES][2];    /* aux: LOCK */
extern uop_fn *const cmpxchg_handlers[SIZES][2]; /* aux: LOCK */
extern uop_fn *const xchg_handlers[SIZES][2];
uop_fn op_cmpxchg8b, op_cmpxchg16b, op_bswap, op_movbe_load, op_movbe_store;
uop_fn op_aaa, op_aas, op_aam, op_aad, op_daa, op_das;

/* --- move.c ----------------------------------------------------------------------------------- */
extern uop_fn *const mov_handlers[SIZES][FORMS];
extern uop_fn *const movzx_handlers[2][SIZES][2]; /* from 8, 16 bits; to; register or memory */
extern uop_fn *const movsx_handlers[3][SIZES][2]; /* from 8, 16, 32 bits */
extern uop_fn *const lea_handlers[SIZES];
extern uop_fn *const cmov_handlers[SIZES][2]; /* aux: condition */
extern uop_fn *const setcc_handlers[2];       /* aux: condition */
uop_fn op_cbw, op_cwde, op_cdqe, op_cwd, op_cdq, op_cqo, op_lahf, op_sahf, op_xlat, op_salc;
uop_fn op_clc, op_stc, op_cmc, op_cld, op_std, op_nop, op_pause, op_mfence;

/* --- branch.c -------------------------------------------------------------------------------- */
extern uop_fn *const jcc_handlers[16];
uop_fn op_jcc_legacy; /* aux: condition */
uop_fn op_jmp, op_jmp_legacy, op_jmp_r, op_jmp_m, op_jmp_indirect_legacy;
uop_fn op_call, op_call_r, op_call_m, op_call_legacy, op_call_indirect_legacy;
uop_fn op_ret, op_ret_legacy;
uop_fn op_loop; /* aux: enum loop_kind */
enum loop_kind { LOOP_IF_NOT_ZERO, LOOP_IF_ZERO, LOOP_ALWAYS, LOOP_JCXZ };
bool condition_holds(uint16_t cc, unsigned condition);

/* --- stack.c ---------------------------------------------------------------------------------- */
uop_fn op_push_r64, op_push_i64, op_pop_r64, op_leave64;
uop_fn op_push_r, op_push_m, op_push_i, op_push_seg, op_pop_r, op_pop_m, op_pop_seg;
uop_fn op_pusha, op_popa, op_pushf, op_popf, op_enter, op_leave;

/* --- string.c --------------------------------------------------------------------------------- */
/* aux: STRING_REP, STRING_REPNE or 0. */
enum { STRING_ONCE, STRING_REP, STRING_REPNE };
uop_fn op_movs, op_stos, op_lods, op_cmps, op_scas, op_ins, op_outs;

/* --- native.c --------------------------------------------------------------------------------- */
/* imm: the thunk; aux: NATIVE_*; src: FP_* and, from SRC_OPCODE on, the low bits of an x87 opcode;
 * osize: bytes of the memory operand. */
#define SRC_OPCODE 5
enum {
    NATIVE_FLAGS = 1,   /* reads or writes status flags */
    NATIVE_READ = 2,    /* the memory operand is read */
    NATIVE_WRITE = 4,   /* or written, or both */
    NATIVE_ALIGNED = 8, /* or must be aligned to its size */
    NATIVE_WAITS = 16,  /* a pending x87 exception comes before any fault of the operand's */
    NATIVE_NOTED = 32,  /* becomes the x87's last instruction; dst: ModRM; see SRC_OPCODE */
};
uop_fn op_native, op_vmaskmov, op_gather, op_maskmovdqu;
/* aux of op_vmaskmov and op_gather: the size of an element in bytes, and one of these. */
#define VMASKMOV_STORE  128
#define GATHER_INDEX_64 128 /* the indices are 64 bits wide, else 32 */
/* Raises what an instruction of these register FILES (FP_*) raises now. */
void fp_check(struct vcpu *c, const struct uop *op, unsigned files);
/* Raises #MF if an x87 exception is pending. */
void x87_check(struct vcpu *c, const struct uop *op);

/* --- x87.c ------------------------------------------------------------------------------------ */
/* osize: bytes of the environment, or of it and the registers. */
uop_fn op_fnstenv, op_fldenv, op_fnsave, op_frstor;

/* --- xstate.c --------------------------------------------------------------------------------- */
/* aux: XSTATE_WIDE (REX.W); of op_xsave also which instruction it is. */
enum { XSTATE_XSAVE = 0, XSTATE_XSAVEOPT = 1, XSTATE_XSAVEC = 2, XSTATE_FORM = 3, XSTATE_WIDE = 4 };
uop_fn op_fxsave, op_fxrstor, op_xsave, op_xrstor, op_ldmxcsr, op_stmxcsr, op_xgetbv, op_xsetbv;

/* --- system.c, control.c, io.c, msr.c --------------------------------------------------------- */
/* A handler of a privileged instruction begins with require_cpl0, or with a check that includes it.
 * aux of op_in and op_out: whether the port is in DX, else it is imm; of op_mov_to_cr and the like:
 * the number of the register. */
uop_fn op_undefined, op_hlt, op_cli, op_sti, op_clac, op_stac, op_cpuid, op_rdtsc, op_rdtscp,
    op_rdpid, op_rdpmc, op_rdmsr, op_wrmsr, op_mov_to_cr, op_mov_from_cr, op_mov_to_dr,
    op_mov_from_dr, op_lmsw, op_smsw, op_clts, op_invlpg, op_invpcid, op_invd, op_swapgs,
    op_fsgsbase, op_in, op_out, op_sgdt, op_sidt, op_lgdt, op_lidt, op_sldt, op_str, op_lldt,
    op_ltr, op_lar, op_lsl, op_verr, op_verw, op_arpl, op_vmcall, op_flush_line, op_bound,
    op_monitor;
/* aux of op_fsgsbase: the segment, and this to write its base. */
#define FSGSBASE_WRITE 8
/* Checks CPL, IOPL and the I/O permission bitmap (SDM volume 1, 19.5). */
void check_port(struct vcpu *c, const struct uop *op, unsigned port, unsigned size);
uint64_t port_in(struct vcpu *c, const struct uop *op, unsigned port, unsigned size);
void port_out(struct vcpu *c, const struct uop *op, unsigned port, unsigned size, uint64_t value);

/* --- segment.c, far.c, task.c ----------------------------------------------------------------- */
uop_fn op_mov_to_seg, op_mov_from_seg, op_load_far; /* aux: segment */
uop_fn op_jmp_far, op_call_far, op_ret_far, op_iret, op_int, op_int3, op_into, op_int1, op_syscall,
    op_sysret, op_sysenter, op_sysexit;

#endif
