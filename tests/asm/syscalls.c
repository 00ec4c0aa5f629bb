/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS and the FSGSBASE instructions in 64-bit mode
 * (SDM volume 2; volume 3, 5.8.7, 5.8.8).
 */
#include "rt/rt.h"

#define HOLE 0x0000800000000000ul

static volatile word seen[12];

asm("syscall_entry:\n"
    "    mov %rcx, seen\n"
    "    mov %r11, seen + 8\n"
    "    pushf; pop seen + 16\n"
    "    mov %cs, %rax; mov %rax, seen + 24\n"
    "    mov %ss, %rax; mov %rax, seen + 32\n"
    "    mov %rsp, seen + 40\n"
    "    mov sysret_flags, %r11\n"
    "    sysretq\n"
    "sysenter_entry:\n"
    "    mov %rcx, seen\n"
    "    pushf; pop seen + 16\n"
    "    mov %cs, %rax; mov %rax, seen + 24\n"
    "    mov %ss, %rax; mov %rax, seen + 32\n"
    "    mov %rsp, seen + 40\n"
    "    sysexitq\n"
    "    .pushsection .user.text, \"ax\"\n"
    "user_64: mov %cs, %rax; mov %ss, %rbx; int $0x20\n"
    "    .code32\n"
    "user_32: mov %cs, %eax; mov %ss, %ebx; int $0x20\n"
    "user_32_syscall: syscall; int $0x20\n"
    "    .code64\n"
    "    .popsection\n");
extern u8 syscall_entry[], sysenter_entry[], user_64[], user_32[], user_32_syscall[];
word sysret_flags = 2;

USER_DATA static volatile struct {
    word rcx, r11, flags, next, sp, rsp_after, cs, ss;
} u = {0};

USER_CODE static word u_syscall(word arg)
{
    asm volatile("mov %%rsp, %0\n"
                 "push $0x4D7; popf\n" /* CF PF AF ZF SF, DF, and RF cannot be set by POPF */
                 USER_AT "syscall\n"
                 "2: movq $2b, %1; mov %%rsp, %2; pushf; pop %3"
                 : "=m"(u.sp), "=m"(u.next), "=m"(u.rsp_after), "=m"(u.flags)
                 :
                 : "rax", "rcx", "r11", "memory", "cc");
    asm volatile("cld; mov %%cs, %0; mov %%ss, %1" : "=r"(u.cs), "=r"(u.ss));
    return 0;
}

USER_INSN(u_sysret, "sysretq")
USER_INSN(u_sysexit, "sysexit")
USER_INSN(u_sysenter_bare, "sysenter")
USER_INSN(u_swapgs, "swapgs")
USER_INSN(u_rdfsbase, "rdfsbase %0")
USER_INSN(u_wrgsbase, "mov %1, %0; wrgsbase %0; rdgsbase %0")

USER_CODE static word u_sysenter(word arg)
{
    asm volatile("mov %%rsp, %%rcx; mov %%rsp, %0; lea 2f(%%rip), %%rdx\n" USER_AT "sysenter\n"
                 "2: mov %%rsp, %1; pushf; pop %2"
                 : "=m"(u.sp), "=m"(u.rsp_after), "=m"(u.flags)
                 :
                 : "rax", "rcx", "rdx", "memory", "cc");
    asm volatile("mov %%cs, %0; mov %%ss, %1" : "=r"(u.cs), "=r"(u.ss));
    return 0;
}

static void syscall_sysret(void)
{
    wrmsr(MSR_STAR, (u64)(UCODE32 | 3) << 48 | (u64)KCODE << 32);
    wrmsr(MSR_LSTAR, (word)syscall_entry);
    wrmsr(MSR_SFMASK, FL_DF | FL_IF | FL_CF);
    user_faults(UD, 0, u_syscall, 0, "SYSCALL without EFER.SCE");
    faults(UD, 0, asm volatile(AT "sysretq"), "SYSRET without EFER.SCE");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);

    /* QEMU's translator would set VM. */
    sysret_flags = 2 | FL_ZF | FL_DF | FL_AC | FL_RF | (on_tcg() ? 0 : FL_VM);
    rt_user_flags = 2 | FL_IF;
    const struct trap *t = user(u_syscall, 0);
    rt_trapped(t, VECTOR_DONE, 0, "SYSCALL and SYSRET");
    equal(seen[0], u.next, "RCX holds the address after SYSCALL");
    equal(seen[1], 0x4D7 | FL_IF, "R11 holds RFLAGS");
    tcg_differs("the status flags are lost");
    equal(seen[2], (0x4D7 | FL_IF) & ~(FL_DF | FL_IF | FL_CF), "RFLAGS less IA32_FMASK");
    equal(seen[3], KCODE, "CS from STAR");
    equal(seen[4], KDATA, "SS from STAR");
    equal(seen[5], u.sp, "RSP stays");
    equal(u.flags & ~FL_IF, 2 | FL_ZF | FL_DF | FL_AC, "SYSRET loads RFLAGS without RF and VM");
    equal(u.cs, UCODE64 | 3, "SYSRET: CS from STAR, plus 16");
    equal(u.ss, UDATA | 3, "SYSRET: SS from STAR, plus 8");
    sysret_flags = 2;
    rt_user_flags = 2;
    user_faults(GP, 0, u_sysret, 0, "SYSRET in user mode");

    t = TRAP(asm volatile("sysretl" : : "c"(user_32)));
    rt_trapped(t, VECTOR_DONE, 0, "SYSRET to compatibility mode");
    equal(t->f.ax & 0xFFFF, UCODE32 | 3, "CS from STAR");
    t = TRAP(asm volatile("mov %%rsp, %%rbx; mov $0x5000, %%esp\n" AT "sysretq" : : "c"(HOLE),
                          "r"(11) : "rbx"));
    if (is_intel()) {
        tcg_differs("the target faults");
        check(t->f.vector == GP && t->f.cs == KCODE, "SYSRET to a non-canonical RCX, at level 0");
    } else {
        check(t->f.vector == GP && t->f.cs == (UCODE64 | 3),
              "SYSRET to a non-canonical RCX, at level 3");
    }
    wrmsr(MSR_CSTAR, (word)sysenter_entry);
    t = TRAP(asm volatile("sysretl" : : "c"(user_32_syscall)));
    if (is_intel()) {
        tcg_differs("it works as on AMD's");
        rt_trapped(t, UD, 0, "SYSCALL in compatibility mode");
    } else {
        skip("not Intel", "SYSCALL in compatibility mode");
    }
}

static void sysenter_sysexit(void)
{
    static u8 stack[1024] __attribute__((aligned(16)));
    wrmsr(MSR_SYSENTER_CS, 0);
    if (!is_intel()) {
        user_faults(UD, 0, u_sysenter, 0, "SYSENTER in long mode, not on Intel's");
        return;
    }
    user_faults(GP, 0, u_sysenter_bare, 0, "SYSENTER with IA32_SYSENTER_CS 0");
    faults(GP, 0, asm volatile(AT "sysexit"), "SYSEXIT with IA32_SYSENTER_CS 0");
    wrmsr(MSR_SYSENTER_CS, KCODE);
    wrmsr(MSR_SYSENTER_ESP, (word)(stack + sizeof(stack)));
    wrmsr(MSR_SYSENTER_EIP, (word)sysenter_entry);
    rt_user_flags = 2 | FL_IF | FL_CF;
    const struct trap *t = user(u_sysenter, 0);
    rt_trapped(t, VECTOR_DONE, 0, "SYSENTER and SYSEXIT");
    equal(seen[2] & (FL_IF | FL_CF), FL_CF, "SYSENTER clears IF and leaves the rest");
    equal(seen[3], KCODE, "CS");
    equal(seen[4], KCODE + 8, "SS");
    equal(seen[5], (word)(stack + sizeof(stack)), "RSP");
    equal(u.cs, UCODE64 | 3, "SYSEXIT: CS plus 32");
    equal(u.ss, UDATA2 | 3, "SYSEXIT: SS plus 40");
    equal(u.rsp_after, u.sp, "SYSEXIT: RSP from RCX");
    rt_user_flags = 2;
    user_faults(GP, 0, u_sysexit, 0, "SYSEXIT in user mode");
    t = TRAP(asm volatile("sysexitl" : : "c"(0x5000), "d"(user_32)));
    rt_trapped(t, VECTOR_DONE, 0, "SYSEXIT to compatibility mode");
    equal(t->f.ax & 0xFFFF, UCODE32 | 3, "CS plus 16");
    equal(t->f.bx & 0xFFFF, UDATA | 3, "SS plus 24");
    tcg_differs("the target faults");
    faults(GP, 0, asm volatile(AT "sysexitq" : : "c"(0x5000), "d"(HOLE)),
           "SYSEXIT to a non-canonical RDX");
}

/* With TF set: SYSCALL masks it or not, SYSENTER leaves it. Where the trap comes, in order. */
static volatile unsigned hits;
static volatile word hit_ip[16];

static void note_step(struct frame *f)
{
    if (hits < 16)
        hit_ip[hits] = f->ip;
    hits++;
    if (hits > 40)
        f->flags &= ~FL_TF;
}

static bool stepped_at(word ip)
{
    for (unsigned i = 0; i < hits && i < 16; i++)
        if (hit_ip[i] == ip)
            return true;
    return false;
}

USER_CODE static word u_syscall_bare(word arg)
{
    asm volatile("syscall" : : : "rax", "rcx", "r11", "memory");
    return 0;
}

static void stepping(void)
{
    rt_handler[DB] = note_step;
    rt_user_flags = 2 | FL_TF;
    wrmsr(MSR_SFMASK, FL_TF);
    hits = 0;
    user_runs(u_syscall_bare, 0, "SYSCALL with TF");
    check(!stepped_at((word)syscall_entry), "SYSCALL that masks TF is not stepped into");
    wrmsr(MSR_SFMASK, 0);
    hits = 0;
    (void)user(u_syscall_bare, 0);
    check(stepped_at((word)syscall_entry), "SYSCALL that does not, is");
    if (is_intel()) {
        hits = 0;
        (void)user(u_sysenter, 0);
        check(stepped_at((word)sysenter_entry), "SYSENTER is stepped into");
    }
    rt_user_flags = 2;
    wrmsr(MSR_SFMASK, FL_TF);
    sysret_flags = 2 | FL_TF;
    hits = 0;
    (void)user(u_syscall, 0);
    sysret_flags = 2;
    /* Not in the manual, but processors do, and kernels know. */
    tcg_differs("one instruction later");
    check(hits && hit_ip[0] == u.next, "SYSRET that sets TF traps at once");
    rt_handler[DB] = NULL;
}

static void bases(void)
{
    wrmsr(MSR_GS_BASE, 0x1111);
    wrmsr(MSR_KERNEL_GS_BASE, 0x2222);
    asm volatile("swapgs");
    check(rdmsr(MSR_GS_BASE) == 0x2222 && rdmsr(MSR_KERNEL_GS_BASE) == 0x1111, "SWAPGS");
    user_faults(GP, 0, u_swapgs, 0, "SWAPGS in user mode");
    wrmsr(MSR_GS_BASE, 0);
    if (!has(F_FSGSBASE)) {
        skip("no FSGSBASE", "RDFSBASE");
        return;
    }
    faults(UD, 0, asm volatile(AT "rdfsbase %%rax" : : : "rax"), "RDFSBASE without CR4.FSGSBASE");
    user_faults(UD, 0, u_rdfsbase, 0, "RDFSBASE in user mode, too");
    write_cr4(read_cr4() | CR4_FSGSBASE);
    wrmsr(MSR_FS_BASE, 0x123456789A);
    word v;
    asm volatile("rdfsbase %0" : "=r"(v));
    equal(v, 0x123456789A, "RDFSBASE");
    const struct trap *t = user(u_wrgsbase, 0x7654321);
    rt_trapped(t, VECTOR_DONE, 0, "WRGSBASE in user mode");
    equal(t->f.ax, 0x7654321, "RDGSBASE in user mode");
    asm volatile("wrfsbase %k0" : : "r"(0xFFFFFFFF80000000ul));
    equal(rdmsr(MSR_FS_BASE), 0x80000000, "WRFSBASE of 32 bits");
    tcg_differs("any base is taken");
    faults(GP, 0, asm volatile(AT "wrfsbase %0" : : "r"(HOLE)), "WRFSBASE of a non-canonical base");
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, 0);
    write_cr4(read_cr4() & ~CR4_FSGSBASE);
}

void test(void)
{
    static u8 stack[4096] __attribute__((aligned(16)));
    rt_tss.ist[0] = (word)(stack + sizeof(stack)); /* some traps come with a stack of user's */
    reset_gate(GP, GATE_INTR, 1);
    syscall_sysret();
    sysenter_sysexit();
    stepping();
    bases();
}
