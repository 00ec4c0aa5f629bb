/*
 * Two processors, one of which changes what the other is using: code under execution, in the way
 * kernels patch themselves; functions that both write again and again in one page; and page tables,
 * with and without telling the other (SDM volume 3, 4.10.5, 8.1.3). 64-bit, needs two vCPUs.
 */
#include "rt/apic.h"
#include "rt/paging.h"
#include "rt/rt.h"

#define BASE      0x40000000ul
#define ALIAS     0x50000000ul
#define VECTOR    0x40
#define PATCHES   100u
#define FUNCTIONS 2000u
#define CHANGES   10000u

static struct space space;
static u32 other;
static void (*volatile job)(void);
static volatile bool job_done, stop;
static volatile u32 acknowledged;

/* Every interrupt is the demand to look anew. */
static void on_interrupt(struct frame *f)
{
    invlpg((void *)BASE);
    (void)cpuid(0, 0); /* serializes */
    acknowledged++;
    apic_eoi();
}

static void tell_other(void)
{
    u32 before = acknowledged;

    apic_send(ICR_ASSERT | VECTOR, other);
    while (acknowledged == before)
        cpu_pause();
}

static void work(void)
{
    write_cr3(space.root);
    asm volatile("sti");
    for (;;) {
        while (!job)
            cpu_pause();
        job();
        job = NULL;
        job_done = true;
    }
}

static void start(void (*fn)(void))
{
    stop = job_done = false;
    job = fn;
}

static void finish_job(void)
{
    stop = true;
    while (!job_done)
        cpu_pause();
}

/* --- Patching, with a breakpoint while it is under way ---------------------------------------- */

static const u8 patched[] = {
    0x0F, 0x1F, 0x44, 0, 0, /* NOP of 5 bytes, or JMP to the second half */
    0xB8, 0,    0,    0, 0, /* MOV 0, EAX */
    0xC3,                   /* RET */
    0xB8, 1,    0,    0, 0, /* MOV 1, EAX */
    0xC3,
};
static const u8 nop[] = {0x0F, 0x1F, 0x44, 0, 0}, jump[] = {0xE9, 6, 0, 0, 0};
static u8 *code; /* the site's address is 3 short of a multiple of 8 */
static volatile u32 results[3], breakpoints;

static void on_breakpoint(struct frame *f)
{
    if (f->ip != (word)code + 1)
        fatal("a breakpoint at %lx", f->ip);
    breakpoints++;
    f->ip += sizeof(nop) - 1; /* as if it were a NOP */
}

static void call_patched(void)
{
    u32 (*fn)(void) = (u32(*)(void))code;

    while (!stop) {
        u32 r = fn();
        results[r < 2 ? r : 2]++;
    }
}

static void patch(volatile u8 *site, const u8 *bytes)
{
    site[0] = 0xCC;
    tell_other();
    for (unsigned i = 1; i < sizeof(nop); i++)
        site[i] = bytes[i];
    tell_other();
    site[0] = bytes[0];
    tell_other();
}

static void patching(volatile u8 *site, const char *name)
{
    unsigned wrong = 0, missed = 0;

    memcpy(code, patched, sizeof(patched));
    for (unsigned i = 0; i < 3; i++)
        results[i] = 0;
    start(call_patched);
    for (u32 i = 0; i < PATCHES; i++) {
        u32 now = ~i & 1, stale;

        patch(site, now ? jump : nop);
        stale = results[!now] + 1; /* one call may be under way */
        for (u32 before = results[now], n = 0; results[now] - before < 20 && n < PATIENCE_MS * 100;
             n++)
            delay_us(10);
        missed += !results[now];
        wrong += results[!now] > stale;
    }
    finish_job();
    check(!wrong && !missed && !results[2], "%s: %u late, %u missed, %u results of neither", name,
          wrong, missed, results[2]);
}

/* --- Functions written and called by both ----------------------------------------------------- */

static u8 *functions; /* a page */
static volatile u32 wrong_results;

/* Writes a function to WRITTEN and calls it at CALLED, again and again. */
static void write_and_call(u8 *written, u8 *called, u32 salt)
{
    static const u8 mov_ret[] = {0xB8, 0, 0, 0, 0, 0xC3};

    memcpy(written, mov_ret, sizeof(mov_ret));
    for (u32 i = 0; i < FUNCTIONS; i++) {
        u32 value = i * 0x01010101 ^ salt;

        memcpy(written + 1, &value, 4);
        if (((u32(*)(void))called)() != value)
            asm volatile("lock incl %0" : "+m"(wrong_results));
    }
}

static void write_here(void)
{
    write_and_call(functions + 0x40, functions + 0x40, 1);
}

static void write_by_alias(void)
{
    write_and_call((u8 *)ALIAS + 0x40, functions + 0x40, 1);
}

static void both_write(void)
{
    wrong_results = 0;
    start(write_here);
    write_and_call(functions + 0x103, functions + 0x103, 2);
    finish_job();
    equal(wrong_results, 0, "both write functions in one page and call them");
    start(write_by_alias);
    write_and_call(functions + 0x103, (u8 *)ALIAS + 0x103, 2);
    finish_job();
    equal(wrong_results, 0, "and by two addresses of the page");
}

/* --- Page tables ------------------------------------------------------------------------------ */

enum { GUARDS = 8 };
static u8 *frame[2], *guard[GUARDS];
static volatile u32 page_faults_seen, foreign;
static volatile u64 stores;

/* Only BASE's page may fault; on to where RCX says. */
static void on_page_fault(struct frame *f)
{
    if (read_cr2() - BASE >= PAGE)
        fatal("a page fault at %lx, of an access to %lx", f->ip, read_cr2());
    page_faults_seen++;
    f->ip = f->cx;
}

static u64 pattern(unsigned n)
{
    return 0x0101010101010101 * (n + 1);
}

/* A run of accesses by one register. What it reads must be from one of the frames, or from where
 * nothing is. */
static void use_page(void)
{
    invlpg((void *)BASE);
    while (!stop) {
        u64 a = ~0ull, b = ~0ull, c = ~0ull;

        asm volatile("lea 1f(%%rip), %%rcx\n"
                     "mov (%3), %0\n"
                     "mov 4000(%3), %1\n"
                     "mov %4, 16(%3)\n"
                     "mov 8(%3), %2\n"
                     "mov %4, 4080(%3)\n"
                     "1:"
                     : "+&r"(a), "+&r"(b), "+&r"(c)
                     : "r"(BASE), "r"(pattern(4))
                     : "rcx", "memory");
        foreign += (a != ~0ull && a != pattern(0) && a != pattern(1)) ||
                   (b != ~0ull && b != pattern(0) && b != pattern(1)) ||
                   (c != ~0ull && c != pattern(0) && c != pattern(1));
        if (++stores % 8 == 0)
            invlpg((void *)BASE);
    }
}

static bool all_bytes(const u8 *p, u8 value)
{
    for (unsigned i = 0; i < PAGE; i++)
        if (p[i] != value)
            return false;
    return true;
}

/* The entry changes all the time, and the other is not told. */
static void changing(void)
{
    const u64 entries[] = {(word)frame[0] | PT_P | PT_W,
                           (word)frame[1] | PT_P | PT_W,
                           0,
                           (word)frame[0] | PT_P,
                           (word)frame[1] | PT_P | PT_W | PT_A | PT_D,
                           0xD0000000 | PT_P | PT_W,    /* no RAM there */
                           0xFF00000000 | PT_P | PT_W}; /* nor there */
    unsigned guards = 0;

    page_faults_seen = foreign = 0;
    entry_write(&space, BASE, 1, entries[0]); /* not what earlier checks have left */
    start(use_page);
    for (u32 i = 0; i < CHANGES; i++) {
        entry_write(&space, BASE, 1, entries[(i * 5 + i / 7) % (sizeof(entries) / 8)]);
        for (u32 n = 0; n < i % 50; n++)
            cpu_pause();
    }
    entry_write(&space, BASE, 1, 0); /* the other may not have run until now */
    for (u32 n = 0; n < PATIENCE_MS && !page_faults_seen; n++)
        delay_us(1000);
    finish_job();
    equal(foreign, 0, "an entry that changes unannounced leads to what it names, or faults");
    check(page_faults_seen, "it did fault");
    for (unsigned i = 0; i < GUARDS; i++)
        guards += all_bytes(guard[i], 0xEE);
    equal(guards, GUARDS, "and to no other memory");
}

static volatile u64 *counter; /* in the page at BASE */
static volatile u64 attempts;

static void count_up(void)
{
    while (!stop) {
        u64 n = ++attempts;

        asm volatile("lea 1f(%%rip), %%rcx\n"
                     "mov 8(%0), %%rax\n"
                     "mov %1, (%0)\n"
                     "mov %1, 32(%0)\n"
                     "1:"
                     :
                     : "r"(BASE), "r"(n)
                     : "rax", "rcx", "memory");
    }
}

static void wait_attempts(u64 n)
{
    u64 before = attempts;

    while (attempts - before < n)
        cpu_pause();
}

/* Once the other has been told that the page is read-only, or gone, nothing more is written. */
static void protecting(void)
{
    unsigned late = 0, stuck = 0;

    counter = (volatile u64 *)frame[0];
    entry_write(&space, BASE, 1, (word)frame[0] | PT_P | PT_W);
    start(count_up);
    tell_other();
    for (u32 i = 0; i < PATCHES; i++) {
        u64 seen;

        wait_attempts(20);
        seen = *counter;
        wait_attempts(20);
        stuck += *counter == seen;
        entry_write(&space, BASE, 1, i % 2 ? 0 : (word)frame[0] | PT_P);
        tell_other();
        seen = *counter;
        wait_attempts(20);
        late += *counter != seen;
        entry_write(&space, BASE, 1, (word)frame[0] | PT_P | PT_W);
        tell_other();
    }
    finish_job();
    check(!late && !stuck, "a page taken away is not written: %u late, %u never", late, stuck);
}

void test(void)
{
    apic_enable();
    other = (apic_read(APIC_ID) >> 24) + 1;
    rt_handler[VECTOR] = on_interrupt;
    rt_handler[BP] = on_breakpoint;
    for (unsigned i = 0; i < GUARDS; i++) {
        if (i % 4 == 1)
            frame[i / 4] = memset(alloc_pages(1, PAGE), (int)(i / 4 + 1), PAGE);
        guard[i] = memset(alloc_pages(1, PAGE), 0xEE, PAGE);
    }
    functions = alloc_pages(1, PAGE);
    space_init(&space, PAGING_4LEVEL);
    map(&space, BASE, (word)functions, 1, PT_P | PT_W);
    map(&space, ALIAS, (word)functions, 1, PT_P | PT_W);
    space_enter(&space);
    if (!check(ap_start(other, work), "the other processor starts"))
        return;
    code = functions + 0x805;
    patching(code, "a call site is patched");
    patching((u8 *)ALIAS + 0x805, "by another address");
    both_write();
    rt_handler[PF] = on_page_fault;
    changing();
    protecting();
    space_leave();
}
