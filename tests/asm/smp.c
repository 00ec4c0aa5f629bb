/*
 * Two processors: INIT and SIPI, interrupts between them, locked instructions, store visibility,
 * and code that one changes while the other runs it (SDM volume 3, 8.1, 8.4). 64-bit, needs two
 * vCPUs.
 */
#include "rt/apic.h"
#include "rt/paging.h"
#include "rt/rt.h"

#define ROUNDS 200000u

static volatile unsigned count[MAX_VECTORS];
static volatile bool ap_running, go, stop;
static volatile u32 ap_id;

static void on_interrupt(struct frame *f)
{
    count[f->vector]++;
    if (f->vector != NMI)
        apic_eoi();
}

/* --- The state after INIT and SIPI (SDM volume 3, table 10-1) --------------------------------- */

/* Runs in real mode at PROBE_PAGE, and stores what it finds after the code. */
#define PROBE_PAGE 0x9000
struct probe {
    u32 edx, eax, cr0, cr4, flags, dr6, dr7;
    u16 cs, ds, gdt_limit, idt_limit;
    u32 idt_base, done;
};
asm("    .pushsection .rodata\n"
    "    .code16\n"
    "probe_begin:\n"
    "    mov %edx, %cs:0x100\n"
    "    mov %eax, %cs:0x104\n"
    "    mov %cr0, %eax; mov %eax, %cs:0x108\n"
    "    mov %cr4, %eax; mov %eax, %cs:0x10C\n"
    "    mov %cs, %ax; mov %ax, %ss; mov $0xF00, %sp\n"
    "    pushfl; popl %cs:0x110\n"
    "    mov %dr6, %eax; mov %eax, %cs:0x114\n"
    "    mov %dr7, %eax; mov %eax, %cs:0x118\n"
    "    mov %cs, %cs:0x11C\n"
    "    mov %ds, %cs:0x11E\n"
    "    sgdtl %cs:0x200; mov %cs:0x200, %ax; mov %ax, %cs:0x120\n"
    "    sidtl %cs:0x200; mov %cs:0x200, %ax; mov %ax, %cs:0x122\n"
    "    mov %cs:0x202, %eax; mov %eax, %cs:0x124\n"
    "    movl $1, %cs:0x128\n"
    "1:  cli; hlt; jmp 1b\n"
    "probe_end:\n"
    "    .code64\n"
    "    .popsection\n");
extern u8 probe_begin[], probe_end[];

static void start_state(u32 other, u32 cr0, const char *when)
{
    volatile struct probe *p = (volatile struct probe *)(PROBE_PAGE + 0x100);
    memcpy((void *)PROBE_PAGE, probe_begin, (size_t)(probe_end - probe_begin));
    p->done = 0;
    apic_send(ICR_INIT, other);
    delay_us(10000);
    equal(p->done, 0, "%s: INIT alone starts nothing", when);
    apic_send(ICR_SIPI | PROBE_PAGE / PAGE, other);
    for (unsigned i = 0; i < PATIENCE_MS && !p->done; i++)
        delay_us(1000);
    if (!check(p->done, "%s: it runs", when))
        return;
    equal(p->edx, cpuid(1, 0).a, "%s: EDX is the processor's signature", when);
    equal(p->eax, 0, "%s: EAX", when);
    tcg_differs("INIT changes CD and NW");
    equal(p->cr0, cr0, "%s: CR0", when);
    equal(p->cr4, 0, "%s: CR4", when);
    equal(p->flags, 2, "%s: EFLAGS", when);
    check(p->cs == PROBE_PAGE / 16 && p->ds == 0, "%s: CS and DS", when);
    check(p->dr6 == 0xFFFF0FF0 && p->dr7 == 0x400, "%s: DR6 and DR7", when);
    check(p->gdt_limit == 0xFFFF && p->idt_limit == 0xFFFF && p->idt_base == 0, "%s: GDTR and IDTR",
          when);
}

/* What the second processor does, step by step: each sets ap_running when it may go on. */
static void ap_identify(void)
{
    ap_id = apic_read(APIC_ID) >> 24;
    ap_running = true;
    asm volatile("sti");
    for (;;)
        asm volatile("hlt");
}

static bool wait(volatile unsigned *p, unsigned wanted)
{
    for (unsigned i = 0; i < PATIENCE_MS * 10 && *p < wanted; i++)
        delay_us(100);
    return *p >= wanted;
}

static void interrupts(u32 other)
{
    rt_handler[0x40] = rt_handler[0x41] = rt_handler[NMI] = on_interrupt;
    apic_send(ICR_ASSERT | 0x40, other);
    check(wait(&count[0x40], 1), "an interrupt wakes the other from HLT");
    for (unsigned i = 2; i <= 100; i++) {
        apic_send(ICR_ASSERT | 0x40, other);
        if (!wait(&count[0x40], i))
            break;
    }
    equal(count[0x40], 100, "a hundred of them, one by one");
    apic_send(ICR_OTHERS | ICR_ASSERT | 0x41, 0);
    check(wait(&count[0x41], 1), "to all but self");
    equal(count[0x41], 1, "came once");
    apic_send(ICR_NMI | ICR_ASSERT, other);
    check(wait(&count[NMI], 1), "NMI to the other");
}

static volatile u64 shared[8] __attribute__((aligned(64)));
static volatile u32 turns;

#define BOTH(text, var)                                                                            \
    for (u32 i = 0; i < ROUNDS; i++)                                                               \
    asm volatile(text : "+m"(var) : : "memory", "cc")

static void increments(void)
{
    BOTH("lock incl %0", *(u32 *)&shared[0]);
    BOTH("lock addq $3, %0", shared[1]);
    for (u32 i = 0; i < ROUNDS; i++) {
        u32 one = 1;
        asm volatile("lock xaddl %0, %1" : "+r"(one), "+m"(*(u32 *)&shared[2]) : : "memory", "cc");
        u32 old = *(volatile u32 *)&shared[3];
        bool stored;
        do
            asm volatile("lock cmpxchgl %3, %1; setz %2"
                         : "+a"(old), "+m"(*(u32 *)&shared[3]), "=qm"(stored)
                         : "r"(old + 1)
                         : "memory", "cc");
        while (!stored);
    }
    for (u32 i = 0; i < ROUNDS / 4; i++) { /* one lock bit, a plain counter inside */
        bool was;
        do
            asm volatile("lock btsl $0, %0; setc %1" : "+m"(turns), "=qm"(was) : : "memory", "cc");
        while (was);
        shared[4]++;
        asm volatile("lock btrl $0, %0" : "+m"(turns) : : "memory", "cc");
        u32 taken;
        do {
            taken = 1;
            asm volatile("xchgl %0, %1" : "+r"(taken), "+m"(*(u32 *)&shared[6]) : : "memory");
        } while (taken);
        shared[5]++;
        *(volatile u32 *)&shared[6] = 0;
    }
}

/* Counts across a page boundary and a cache line, which must be as atomic. */
static u8 *split;

static void split_increments(void)
{
    for (u32 i = 0; i < ROUNDS / 10; i++)
        asm volatile("lock incl %0" : "+m"(*(u32 *)(split + PAGE - 2)) : : "memory", "cc");
}

static void wide_increments(void)
{
    for (u32 i = 0; i < ROUNDS / 10; i++) {
        u64 lo = shared[0], hi = shared[1];
        bool stored;
        do
            asm volatile("lock cmpxchg16b %0; setz %1"
                         : "+m"(*(u64(*)[2])shared), "=qm"(stored), "+a"(lo), "+d"(hi)
                         : "b"(lo + 1), "c"(hi + 3)
                         : "memory", "cc");
        while (!stored);
    }
}

static void (*volatile job)(void);
static volatile bool job_done;

#define SOME_PORT 0x61

static void ap_work(void)
{
    ap_running = true;
    for (;;) {
        while (!go)
            cpu_pause();
        (void)inb(SOME_PORT);
        go = false;
        job();
        job_done = true;
    }
}

/* Has the second processor execute FN. Both read a port around that, where the monitor takes a
 * lock: so a checker of the monitor's races sees that the one's writes come before the other's. */
static void give(void (*fn)(void))
{
    job = fn;
    job_done = false;
    (void)inb(SOME_PORT);
    go = true;
}

/* Runs FN on both at once. */
static void on_both(void (*fn)(void))
{
    give(fn);
    fn();
    while (!job_done)
        cpu_pause();
}

static void atomics(void)
{
    memset((void *)shared, 0, sizeof(shared));
    on_both(increments);
    equal(*(u32 *)&shared[0], 2 * ROUNDS, "LOCK INC by two");
    equal(shared[1], 6 * ROUNDS, "LOCK ADD by two");
    equal(*(u32 *)&shared[2], 2 * ROUNDS, "LOCK XADD by two");
    equal(*(u32 *)&shared[3], 2 * ROUNDS, "LOCK CMPXCHG by two");
    equal(shared[4], ROUNDS / 2, "a lock of BTS and BTR");
    equal(shared[5], ROUNDS / 2, "a lock of XCHG");
    on_both(split_increments);
    equal(*(u32 *)(split + PAGE - 2), 2 * (ROUNDS / 10), "LOCK INC across two pages");
    if (has(F_CX16)) {
        memset((void *)shared, 0, sizeof(shared));
        on_both(wide_increments);
        check(shared[0] == 2 * (ROUNDS / 10) && shared[1] == 6 * (ROUNDS / 10),
              "LOCK CMPXCHG16B by two");
    }
}

/* One writes data, then a flag; the other must not see the flag without the data. */
static volatile u32 message, flag, torn;

static void receive(void)
{
    for (u32 i = 1; i <= 50000; i++) {
        while (flag < i)
            if (stop)
                return;
        if (message < i)
            torn++;
    }
}

static void ordering(void)
{
    give(receive);
    for (u32 i = 1; i <= 50000; i++) {
        message = i;
        flag = i;
    }
    while (!job_done)
        cpu_pause();
    equal(torn, 0, "stores are seen in order");
}

/* Code that is changed while the other processor runs it, by an aligned store. */
static u8 *code;
static volatile u32 results[3];

static void run_code(void)
{
    u32 (*fn)(void) = (u32(*)(void))code;
    while (!stop) {
        u32 r = fn();
        results[r < 2 ? r : 2]++;
    }
}

static void cross_modification(void)
{
    static const u8 mov_ret[] = {0xB8, 0, 0, 0, 0, 0xC3};
    memcpy(code + 3, mov_ret, sizeof(mov_ret)); /* so that the immediate is aligned */
    code += 3;
    stop = false;
    give(run_code);
    unsigned missed = 0, patience = on_tcg() ? 100 : PATIENCE_MS * 10;
    for (u32 i = 0; i < 300; i++) {
        u32 value = i % 2;
        *(volatile u32 *)(code + 1) = value;
        u32 before = results[value];
        for (unsigned wait = 0; wait < patience && results[value] - before < 2; wait++)
            delay_us(100);
        missed += results[value] - before < 2;
    }
    stop = true;
    while (!job_done)
        cpu_pause();
    tcg_differs("a change may race with translation");
    equal(missed, 0, "a change of code reaches the other processor");
    equal(results[2], 0, "which runs the old or the new, and nothing else");
    check(results[0] && results[1], "and ran both");
}

/* Both run the same functions, each for the first time at about the same time, and each changes
 * half of them, which it must see at once; the other may see the change later, but nothing else,
 * and never an older one again. */
#define FUNCTIONS 2048u
#define SPACING   32u
static u8 *functions;
static u32 changes[FUNCTIONS];
static volatile unsigned wrong[2];

static void run_functions(u32 self)
{
    /* mov $0, %eax; test %edi, %edi; jz 1f; add %edi, %eax; 1: ret */
    static const u8 body[] = {0xB8, 0, 0, 0, 0, 0x85, 0xFF, 0x74, 0x02, 0x01, 0xF8, 0xC3};
    static u32 seen[2][FUNCTIONS];
    for (u32 k = self; k < FUNCTIONS; k += 2)
        memcpy(functions + k * SPACING + 3, body, sizeof(body)); /* so that 0 is aligned */
    for (u32 round = 0; round < 40; round++) {
        for (u32 k = 0; k < FUNCTIONS; k++) {
            u8 *at = functions + k * SPACING + 3;
            if (*(volatile u8 *)(at + sizeof(body) - 1) != 0xC3)
                continue; /* the other is not yet there */
            bool own = k % 2 == self;
            if (own && k % 64 / 2 == round % 32)
                *(volatile u32 *)(at + 1) = ++changes[k];
            u32 add = round & 1, result = ((u32(*)(u32))at)(add)-add;
            u32 latest = *(volatile u32 *)(at + 1);
            wrong[self] += own ? result != latest : result < seen[self][k] || result > latest;
            seen[self][k] = result;
        }
    }
}

static void run_functions_there(void)
{
    run_functions(1);
}

static void shared_code(void)
{
    functions = alloc_pages(FUNCTIONS * SPACING / PAGE, PAGE);
    give(run_functions_there);
    run_functions(0);
    while (!job_done)
        cpu_pause();
    tcg_differs("a change may race with translation");
    equal(wrong[0], 0, "what both run and change");
    equal(wrong[1], 0, "is right for the other, too");
}

/* One takes a page away and tells the other by an interrupt, as kernels do. */
static struct space space;
static volatile u32 shot;
static volatile u8 seen_value;

static void on_shootdown(struct frame *f)
{
    invlpg((void *)0x40000000ul);
    shot++;
    apic_eoi();
}

static void read_page(void)
{
    write_cr3(space.root);
    asm volatile("sti");
    while (!stop)
        seen_value = *(volatile u8 *)0x40000000ul;
    asm volatile("cli");
    write_cr3(read_cr3());
}

static void shootdown(u32 other)
{
    u8 *page[2] = {alloc_pages(1, PAGE), alloc_pages(1, PAGE)};
    page[0][0] = 1;
    page[1][0] = 2;
    space_init(&space, PAGING_4LEVEL);
    map(&space, 0x40000000ul, (word)page[0], 1, PT_P | PT_W);
    rt_handler[0x42] = on_shootdown;
    stop = false;
    give(read_page);
    unsigned wrong = 0;
    for (u32 i = 0; i < 100; i++) {
        map(&space, 0x40000000ul, (word)page[i % 2], 1, PT_P | PT_W);
        u32 before = shot;
        apic_send(ICR_ASSERT | 0x42, other);
        while (shot == before)
            cpu_pause();
        seen_value = 0;
        for (unsigned wait = 0; wait < 10000 && !seen_value; wait++)
            cpu_pause();
        for (unsigned wait = 0; wait < 200; wait++)
            wrong += seen_value && seen_value != i % 2 + 1 && wait > 100;
    }
    stop = true;
    while (!job_done)
        cpu_pause();
    equal(wrong, 0, "an address the other was told to forget is forgotten");
}

void test(void)
{
    apic_enable();
    u32 self = apic_read(APIC_ID) >> 24, other = self + 1;
    start_state(other, 0x60000010, "after power-on");
    if (!check(ap_start(other, ap_identify), "INIT and SIPI start the other processor"))
        return;
    while (!ap_running)
        cpu_pause();
    equal(ap_id, other, "its APIC ID");
    interrupts(other);
    start_state(other, 0x10, "after 64-bit mode");
    ap_running = false;
    if (!check(ap_start(other, ap_work), "INIT takes it out of HLT, and SIPI starts it again"))
        return;
    while (!ap_running)
        cpu_pause();
    split = alloc_pages(2, PAGE);
    code = alloc_pages(1, PAGE);
    atomics();
    ordering();
    cross_modification();
    shared_code();
    shootdown(other);
}
