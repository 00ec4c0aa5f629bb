/*
 * Control registers and mode switches seen from 32-bit mode: what may be set, PAE's registers, the
 * way into long mode and out, SYSENTER without it, and 16-bit forms of far transfers (SDM volume 3,
 * 2.5, 4.4.1, 9.8.5; volume 2).
 */
#include "rt/paging.h"
#include "rt/rt.h"

static void control_bits(void)
{
    word cr0 = read_cr0(), cr4 = read_cr4();
    tcg_differs("NW without CD is taken");
    faults(GP, 0, write_cr0((cr0 & ~CR0_CD) | CR0_NW), "CR0.NW without CD");
    write_cr0(cr0);
    runs(write_cr0(cr0 | CR0_CD | CR0_NW), "CR0.CD and NW");
    runs(write_cr0(cr0 | CR0_CD), "CR0.CD");
    write_cr0(cr0);
    check(read_cr0() & 1 << 4, "CR0.ET is 1");
    write_cr0(cr0 & ~(1ul << 4));
    tcg_differs("ET can be cleared");
    check(read_cr0() & 1 << 4, "and stays 1");
    if (on_tcg()) {
        skip("reserved bits are ignored", "CR4");
    } else {
        unsigned wrong = 0;
        for (unsigned bit = 23; bit < 32; bit++)
            wrong += TRAP(write_cr4(cr4 | 1ul << bit))->f.vector != GP;
        check(!wrong, "reserved bits of CR4");
        faults(GP, 0, write_cr4(cr4 | CR4_PCIDE), "CR4.PCIDE outside long mode");
    }
    write_cr4(cr4);
    static const word good[] = {CR4_TSD, CR4_DE, CR4_PSE,    CR4_PAE,       CR4_PGE,
                                1 << 6,  1 << 8, CR4_OSFXSR, CR4_OSXMMEXCPT};
    for (unsigned i = 0; i < sizeof(good) / sizeof(*good); i++) {
        write_cr4(cr4 | good[i]);
        equal(read_cr4(), cr4 | good[i], "CR4 bit %lx", good[i]);
    }
    write_cr4(cr4);
    if (has(F_LM)) {
        u64 efer = rdmsr(MSR_EFER);
        wrmsr(MSR_EFER, efer | EFER_LMA);
        equal(rdmsr(MSR_EFER) & EFER_LMA, 0, "EFER.LMA cannot be written");
        wrmsr(MSR_EFER, efer);
    }
}

/* 32-bit paging off and PAE on under it, and PDPTEs checked whenever they are read. */
static void pae_switches(void)
{
    struct space legacy, pae;
    u64 efer = rdmsr(MSR_EFER);
    space_init(&legacy, PAGING_32);
    space_init(&pae, PAGING_PAE);
    space_enter(&legacy);
    space_leave();
    space_enter(&pae);
    equal(read_cr3(), pae.root, "CR3 with PAE");
    write_cr0(read_cr0() & ~CR0_PG);
    u64 *pdpte = (u64 *)pae.root, good = pdpte[2];
    pdpte[2] = good | 2;
    tcg_differs("PDPTEs are read at each walk");
    faults(GP, 0, write_cr0(read_cr0() | CR0_PG), "CR0.PG reads PDPTEs and checks them");
    pdpte[2] = good;
    write_cr0(read_cr0() | CR0_PG);
    pdpte[2] = good | 2;
    tcg_differs("PDPTEs are read at each walk");
    faults(GP, 0, write_cr4(read_cr4() ^ CR4_PGE), "CR4.PGE reads them, too");
    pdpte[2] = good;
    space_leave();
    write_cr4(read_cr4() & ~(CR4_PAE | CR4_PGE | CR4_PSE));
    wrmsr(MSR_EFER, efer);
}

/* Through long mode's door: compatibility mode, and out again. */
static void long_mode(void)
{
    if (!has(F_LM)) {
        skip("no long mode", "long mode");
        return;
    }
    u64 efer = rdmsr(MSR_EFER);
    wrmsr(MSR_EFER, efer | EFER_LME);
    word cr0 = read_cr0();
    if (!on_tcg()) /* which goes somewhere */
        faults(GP, 0, write_cr0(cr0 | CR0_PG), "CR0.PG with EFER.LME, without CR4.PAE");
    u64 *pml4 = alloc_pages(1, PAGE), *pdpt = alloc_pages(1, PAGE), *pd = alloc_pages(1, PAGE);
    pml4[0] = (word)pdpt | PT_P | PT_W;
    pdpt[0] = (word)pd | PT_P | PT_W;
    for (unsigned i = 0; i < 16; i++)
        pd[i] = i * 0x200000ull | PT_P | PT_W | PT_PS;
    write_cr4(read_cr4() | CR4_PAE);
    write_cr3((word)pml4);
    word during;
    asm volatile("mov %%cr0, %%eax; bts $31, %%eax; mov %%eax, %%cr0\n"
                 "rdmsr; mov %%eax, %0\n"
                 "mov %%cr0, %%eax; btr $31, %%eax; mov %%eax, %%cr0"
                 : "=&r"(during)
                 : "c"(MSR_EFER)
                 : "eax", "edx", "memory", "cc");
    equal(during & EFER_LMA, EFER_LMA, "EFER.LMA in compatibility mode");
    equal(rdmsr(MSR_EFER) & EFER_LMA, 0, "and not after CR0.PG is cleared");
    write_cr4(read_cr4() & ~CR4_PAE);
    wrmsr(MSR_EFER, efer);
}

static volatile word seen[6];

asm("sysenter_entry:\n"
    "    mov %esp, seen\n"
    "    mov %cs, %eax; mov %eax, seen + 4\n"
    "    mov %ss, %eax; mov %eax, seen + 8\n"
    "    pushf; pop seen + 12\n"
    "    sysexit\n");
extern u8 sysenter_entry[];

USER_CODE static word u_sysenter(word arg)
{
    word result;
    asm volatile("mov %%esp, %%ecx; mov $2f, %%edx; sysenter; 2: mov %%cs, %0; shl $16, %0\n"
                 "mov %%ss, %%ecx; or %%ecx, %0"
                 : "=&a"(result)
                 :
                 : "ecx", "edx", "memory", "cc");
    return result;
}

USER_INSN(u_sysenter_bare, "sysenter")
USER_INSN(u_sysexit, "sysexit")
USER_INSN(u_syscall, "syscall")

static void fast_calls(void)
{
    static u8 stack[512];
    wrmsr(MSR_SYSENTER_CS, 0);
    user_faults(GP, 0, u_sysenter_bare, 0, "SYSENTER with IA32_SYSENTER_CS 0");
    wrmsr(MSR_SYSENTER_CS, KCODE);
    wrmsr(MSR_SYSENTER_ESP, (word)(stack + sizeof(stack)));
    wrmsr(MSR_SYSENTER_EIP, (word)sysenter_entry);
    rt_user_flags = 2 | FL_IF;
    const struct trap *t = user(u_sysenter, 0);
    rt_user_flags = 2;
    rt_trapped(t, VECTOR_DONE, 0, "SYSENTER and SYSEXIT");
    equal(seen[0], (word)(stack + sizeof(stack)), "ESP");
    check(seen[1] == KCODE && seen[2] == KCODE + 8, "CS and SS");
    equal(seen[3] & FL_IF, 0, "IF is clear");
    equal(t->f.ax, (word)(UCODE32 | 3) << 16 | UDATA | 3,
          "CS plus 16 and SS plus 24 after SYSEXIT");
    user_faults(GP, 0, u_sysexit, 0, "SYSEXIT at level 3");
    if (is_intel())
        user_faults(UD, 0, u_syscall, 0, "SYSCALL outside 64-bit mode");
}

/* With 66h, far transfers move words: the targets are in the lowest 64 KiB. */
#define LOW ((u8 *)0x7000)

static void narrow_transfers(void)
{
    static const u8 retw[] = {0x66, 0xCB};  /* lretw */
    static const u8 iretw[] = {0x66, 0xCF}; /* iretw */
    memcpy(LOW, retw, sizeof(retw));
    memcpy(LOW + 16, iretw, sizeof(iretw));
    word before, after;
    /* A word-sized far CALL truncates EIP, so it is made from low memory, too. */
    static const u8 call[] = {0x66, 0x9A, 0x00, 0x70, KCODE, 0x00, /* lcallw KCODE:7000 */
                              0xC3};
    memcpy(LOW + 32, call, sizeof(call));
    runs(asm volatile("call *%0" : : "r"(LOW + 32) : "memory"), "far CALL and RET of words");
    static const u8 far_jump[] = {0x66, 0xEA, 0x40, 0x70, KCODE, 0x00};
    memcpy(LOW + 48, far_jump, sizeof(far_jump));
    LOW[64] = 0xC3;
    runs(asm volatile("call *%0" : : "r"(LOW + 48) : "memory"), "far JMP of words");
    LOW[80] = 0xFF;
    LOW[81] = 0xE3; /* jmp *%ebx */
    asm volatile("mov %%esp, %0; mov $1f, %%ebx\n"
                 "pushw $0x202; pushw %3; pushw $0x7050; jmp *%2\n"
                 "1: mov %%esp, %1; cli"
                 : "=&r"(before), "=&r"(after)
                 : "r"(LOW + 16), "i"(KCODE)
                 : "ebx", "memory", "cc");
    equal(after, before, "IRET of words pops six bytes");
    /* From level 3 and back, with code and stack that words can reach. */
    void *const stack = (void *)0x6F00;
    static const u8 bounce[] = {0xCD, 0x53, 0xCD, VECTOR_DONE}; /* int $0x53; int $0x20 */
    memcpy(LOW + 96, bounce, sizeof(bounce));
    rt_idt[0x53] = gate(LOW + 16, KCODE, 0x86 | SEG_DPL3);
    const struct trap *t = TRAP(rt_enter_user(LOW + 96, 0, stack, 2, UCODE | 3));
    rt_trapped(t, VECTOR_DONE, 0, "a 16-bit interrupt gate from level 3, and IRET of words");
    equal(t->f.sp & 0xFFFF, (word)stack, "SP is back");
    static const u8 gate_call[] = {0x9A, 0, 0, 0, 0, SPARE | 3, 0, 0xCD, VECTOR_DONE};
    memcpy(LOW + 128, gate_call, sizeof(gate_call));
    struct gate g = gate(LOW, KCODE, 0x84 | SEG_DPL3);
    memcpy(&rt_gdt[SPARE / 8], &g, sizeof(g));
    t = TRAP(rt_enter_user(LOW + 128, 0, stack, 2, UCODE | 3));
    rt_trapped(t, VECTOR_DONE, 0, "a 16-bit call gate from level 3, and RET of words");
    equal(t->f.sp & 0xFFFF, (word)stack, "SP is back");
}

/* A 16-bit stack segment: IRET to level 3 loads SP only, and pushes use SP only. */
static void narrow_stack(void)
{
    rt_gdt[SPARE / 8 + 1] = descriptor(0, 0xFFFF, SEG_DATA);
    word sp, word_there;
    asm volatile("mov %%esp, %%ebx; mov %%ss, %%ecx; mov $0x50000, %%esi\n"
                 "mov %w2, %%ss; lea 0x6800(%%esi), %%esp; push $0x1234; mov %%esp, %0\n"
                 "pop %1; mov %%ecx, %%ss; mov %%ebx, %%esp"
                 : "=&r"(sp), "=&r"(word_there)
                 : "r"(SPARE + 8)
                 : "ebx", "ecx", "esi", "memory");
    equal(sp, 0x567FC, "PUSH on a 16-bit stack leaves the upper half of ESP");
    equal(*(volatile u32 *)0x67FC, 0x1234, "and writes by SP");
    equal(word_there, 0x1234, "POP reads there");
}

void test(void)
{
    control_bits();
    pae_switches();
    long_mode();
    fast_calls();
    narrow_transfers();
    narrow_stack();
}
