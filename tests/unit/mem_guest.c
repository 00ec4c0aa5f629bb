/*
 * Guest code whose memory is taken away under it: whatever the processor does finds its pages
 * again, nothing is done twice, and nobody waits for ever.
 */
#include "mem_guest.h"

#include "cpu/core/vcpu.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define CODE   RIG_FREE
#define DATA   0x30000ULL
#define DEVICE 0xB0000ULL /* no RAM */

/* A device that counts, and returns another value each time. */
static struct {
    _Atomic unsigned reads, writes;
    void (*on_write)(void);
} device;

static uint64_t device_read(void *dev, uint64_t offset, unsigned size)
{
    return 0x1000 + atomic_fetch_add(&device.reads, 1);
}

static void device_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    atomic_fetch_add(&device.writes, 1);
    if (device.on_write)
        device.on_write();
}

static const struct bus_ops device_ops = {
    .read = device_read, .write = device_write, .max_size = 8};

static void check_locks(void *bus)
{
    if (bus_is_locked_here(bus))
        abort();
}

static int set_up(void **unused)
{
    rig = rig_create(2, 0);
    if (!rig)
        return -1;
    memset(&device, 0, sizeof(device));
    mem_set_check(rig->machine.mem, check_locks, rig->machine.bus);
    store_begin();
    return bus_claim(rig->machine.bus, BUS_MMIO, DEVICE, MEM_PAGE_SIZE, "test", &device_ops, NULL,
                     NULL);
}

/* --- All that an instruction can touch -------------------------------------------------------- */

/* Accesses of all kinds, across pages where they can be; results are in RAX, RDX and at RDI. */
GUEST_CODE(many, "    fninit\n"
                 "    leaq 0x2ff8(%rdi), %rbx\n" /* 8 bytes before a page's end */
                 "    movq $0x1234567, (%rbx)\n"
                 "    movq %rbx, 5(%rbx)\n"
                 "    lock addq $3, 5(%rbx)\n"
                 "    lock incq 8(%rbx)\n"
                 "    movq 3(%rbx), %rax\n"
                 "    pushq 4(%rbx)\n"
                 "    popq 0x1004(%rbx)\n"
                 "    pushfq\n"
                 "    popq %rdx\n"
                 "    andl $0xad5, %edx\n"
                 "    movdqu 2(%rbx), %xmm0\n"
                 "    paddq %xmm0, %xmm0\n"
                 "    movdqu %xmm0, 0x1002(%rbx)\n"
                 "    vmovdqu -16(%rbx), %ymm1\n"
                 "    vmovdqu %ymm1, 0x1ff0(%rbx)\n"
                 "    fildq (%rbx)\n"
                 "    fistpq 0x2005(%rbx)\n"
                 "    leaq -0x2ff8(%rbx), %rsi\n"
                 "    pushq %rdi\n"
                 "    leaq 0x8000(%rdi), %rdi\n"
                 "    movl $0x6004, %ecx\n"
                 "    rep movsb\n"
                 "    popq %rdi\n"
                 "    pushq %rax\n"
                 "    pushq %rdx\n"
                 "    leaq 0xf000(%rdi), %rbp\n"
                 "    movl $7, %eax\n"
                 "    xorl %edx, %edx\n"
                 "    xsave -512(%rbp)\n"
                 "    vpxor %ymm1, %ymm1, %ymm1\n"
                 "    xrstor -512(%rbp)\n"
                 "    vmovdqu %ymm1, 0xeff0(%rdi)\n"
                 "    popq %rdx\n"
                 "    popq %rax\n"
                 "    int3\n"
                 "    sidt 0x3ff9(%rdi)\n"
                 "    btsq $3, 0x5ffc(%rdi)\n"
                 "    movl $100, %ecx\n"
                 "1:  addq %rcx, 0x6ff9(%rdi,%rcx,8)\n"
                 "    addq 0x6ff9(%rdi,%rcx,8), %rax\n"
                 "    call 2f\n"
                 "    loop 1b\n"
                 "    movl %ss, %ecx\n"
                 "    movl %ecx, %ss\n" /* with the shadow behind it */
                 "    movq 0x2ffb(%rdi), %rcx\n"
                 "    hlt\n"
                 "2:  imulq $3, %rax\n"
                 "    ret\n")

GUEST_CODE(handler, "incq (%rdi)\niretq\n")

static void load_many(struct x86_cpu *cpu)
{
    rig_clear(rig);
    PUT_CODE(many, CODE + 0xFF0); /* itself in two pages */
    PUT_CODE(handler, 0xE000);
    for (unsigned i = 0; i < 0x10000 / 8; i++)
        rig_put64(rig, DATA + i * 8ULL, i * 0x0101010101010101ULL);
    mem_fill(rig->machine.mem, DATA + 0xF000, 0, 64); /* XSAVE's header */
    rig_put64(rig, RIG_IDT64 + X86_BP * 16, 0xE000 | RIG_CODE64 << 16 | 0xEE00ULL << 32);
    rig_state_64(rig, cpu, CODE + 0xFF0);
    cpu->reg[X86_RDI] = DATA;
    cpu->reg[X86_RSP] = 0x28004; /* across pages, too */
}

static uint64_t sum_memory(void)
{
    uint64_t sum = 0;

    for (uint64_t gpa = DATA; gpa < DATA + 0x10000; gpa += 8)
        sum = (sum ^ get64(gpa)) * 0x9E3779B97F4A7C15ULL;
    return sum;
}

struct result {
    uint64_t rip, rax, rcx, rdx, rsp, memory;
};

static struct result run_many(enum mem_change_kind kind, bool first)
{
    struct x86_cpu cpu;

    load_many(&cpu);
    if (!first)
        assert_true(change_all(kind) > 50);
    assert_int_equal(run(&cpu), EXIT_HALT);
    return (struct result){cpu.reg[X86_RIP], cpu.reg[X86_RAX], cpu.reg[X86_RCX],
                           cpu.reg[X86_RDX], cpu.reg[X86_RSP], sum_memory()};
}

/* Takes all pages away again whenever one comes in, but those that the instruction waits for. */
static void take_others(uint64_t gpn)
{
    store.before_in = NULL;
    change_all(MEM_SWAP_OUT);
    store.before_in = take_others;
}

/* From pages of each state the same comes as from pages that were never taken away; also if a page
 * that comes in costs all others. The last could go on for ever if the pages of an instruction were
 * not kept until it is done. */
static void test_every_access(void **unused)
{
    static const enum mem_change_kind kinds[] = {MEM_SWAP_OUT, MEM_SHARE, MEM_PROTECT};
    struct result want, got;

    excuse(pages_stay(), "pages are not taken away here");
    want = run_many(MEM_SHARE, true);
    assert_int_equal(want.rip, CODE + 0xFF0 + (uint64_t)(guest_many_end - guest_many) - 5);
    for (unsigned i = 0; i < 2 * ARRAY_SIZE(kinds); i++) { /* decoded code, then translated */
        got = run_many(kinds[i % ARRAY_SIZE(kinds)], false);
        assert_memory_equal(&got, &want, sizeof(got));
    }
    assert_true(store.ins > 20);
    assert_true(store.unprotected > 10);
    for (unsigned i = 0; i < 2; i++) {
        store.before_in = take_others;
        got = run_many(MEM_SWAP_OUT, false);
        store.before_in = NULL;
        assert_memory_equal(&got, &want, sizeof(got));
    }
    assert_true(store.ins > 200);
}

/* A ballooned page reads as zero, and what was decoded of it is forgotten. */
static void test_ballooned_code(void **unused)
{
    struct x86_cpu cpu;

    rig_clear(rig);
    PUT(CODE, 0xB8, 1, 0, 0, 0, 0xF4);
    for (unsigned i = 0; i < 3; i++) {
        rig_state_64(rig, &cpu, CODE);
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(cpu.reg[X86_RAX], 1);
    }
    assert_int_equal(change_one(MEM_BALLOON, CODE), 0);
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RAX] = DATA;
    /* add %al, (%rax), over and over, into the next page, which is the end */
    PUT(CODE + MEM_PAGE_SIZE, 0xF4);
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(cpu.reg[X86_RIP], CODE + MEM_PAGE_SIZE + 1);
}

/* The pager fails: the vCPU cannot go on, and says so. */
static void test_pager_fails(void **unused)
{
    struct x86_cpu cpu;

    excuse(pages_stay(), "pages are not taken away here");
    rig_clear(rig);
    PUT(CODE, 0x48, 0x8B, 0x07, 0xF4); /* mov (%rdi), %rax; hlt */
    rig_put64(rig, DATA, 5);
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RDI] = DATA;
    assert_int_equal(change_one(MEM_SWAP_OUT, DATA), 0);
    store.fails = -5;
    assert_int_equal(run(&cpu), EXIT_MEMORY);
    store.fails = 0;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(cpu.reg[X86_RAX], 5);
}

/* --- Devices ---------------------------------------------------------------------------------- */

GUEST_CODE(from_device, "    movsq\n"
                        "    pushq (%rbx)\n"
                        "    leaq -0x28(%rbx), %rsi\n"
                        "    movl $3, %ecx\n"
                        "    rep movsq\n"
                        "    fxrstor (%rbx)\n"
                        "    movl $0, (%rbx)\n"
                        "    hlt\n")

/* Each instruction reads from the device and then meets a page that is absent; what the device has
 * been asked for it is not asked for again. */
static void test_read_once(void **unused)
{
    struct x86_cpu cpu;

    for (unsigned i = 0; i < 4; i++) {
        rig_clear(rig);
        PUT_CODE(from_device, CODE);
        rig_state_64(rig, &cpu, CODE);
        cpu.reg[X86_RSI] = DEVICE;
        cpu.reg[X86_RBX] = DEVICE + 0x30;
        cpu.reg[X86_RDI] = DATA + MEM_PAGE_SIZE - 16; /* the second REP MOVSQ is in another page */
        cpu.reg[X86_RSP] = 0x28000;
        PUT(DATA, 1);
        PUT(DATA + MEM_PAGE_SIZE, 1);
        PUT(0x27FF0, 1);
        change_one(MEM_SWAP_OUT, DATA);
        change_one(MEM_SWAP_OUT, DATA + MEM_PAGE_SIZE);
        change_one(MEM_SWAP_OUT, 0x27FF0);
        atomic_store(&device.reads, 0);
        atomic_store(&device.writes, 0);
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(get64(DATA + MEM_PAGE_SIZE - 16), 0x1000);
        assert_int_equal(get64(0x27FF8), 0x1001);
        assert_int_equal(get64(DATA + MEM_PAGE_SIZE - 8), 0x1002);
        assert_int_equal(get64(DATA + MEM_PAGE_SIZE + 8), 0x1004);
        assert_int_equal(device.writes, 1);
        assert_int_equal(device.reads, 5 + 1 + 416 / 8);
    }
}

/* --- Regions ---------------------------------------------------------------------------------- */

GUEST_CODE(rom, "    movl (%rdi), %eax\n"
                "    movl $5, (%rdi)\n"
                "    addl $1, 4(%rdi)\n"
                "    lock xaddl %ebx, 4(%rdi)\n"
                "    movl (%rdi), %edx\n"
                "    hlt\n")

/* ROM is read, and the operand of what would change it, too; writes go to the bus, or nowhere. */
static void test_rom(void **unused)
{
    struct mem_region_config config = {
        .name = "rom", .gpa = MEM_VGA_START, .kind = MEM_ROM, .size = MEM_PAGE_SIZE};
    struct mem_region *rom = mem_region_add(rig->machine.mem, &config, NULL);
    struct x86_cpu cpu;

    assert_non_null(rom);
    memcpy(mem_region_host(rom), "ABCDabcd", 8);
    for (unsigned i = 0; i < 4; i++) {
        rig_clear(rig);
        PUT_CODE(rom, CODE);
        if (i >= 2) { /* with its device */
            mem_region_move(rom, DEVICE, NULL);
            atomic_store(&device.writes, 0);
        }
        rig_state_64(rig, &cpu, CODE);
        cpu.reg[X86_RDI] = i < 2 ? MEM_VGA_START : DEVICE;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(cpu.reg[X86_RAX], 0x44434241);
        assert_int_equal(cpu.reg[X86_RBX], 0x64636261);
        assert_int_equal(cpu.reg[X86_RDX], 0x44434241);
        assert_int_equal(device.writes, i < 2 ? 0 : 3);
        assert_int_equal(device.reads, 0);
        assert_memory_equal(mem_region_host(rom), "ABCDabcd", 8);
    }
    /* Code in ROM runs, and is forgotten when the ROM changes. */
    for (unsigned i = 0; i < 3; i++) {
        memcpy(mem_region_host(rom), (uint8_t[]){0xB0, (uint8_t)i, 0xF4}, 3);
        mem_region_written(rom, 0, 3);
        for (unsigned j = 0; j < 3; j++) {
            rig_state_64(rig, &cpu, DEVICE);
            assert_int_equal(run(&cpu), EXIT_HALT);
            assert_int_equal(cpu.reg[X86_RAX] & 0xFF, i);
        }
    }
}

/* Memory of a device: as fast as RAM, with a log; code in it runs, too. Where it is moved away, the
 * bus answers. */
static void test_device_memory(void **unused)
{
    struct mem_region_config config = {
        .name = "video", .gpa = DEVICE, .kind = MEM_DEVICE, .size = 2 * MEM_PAGE_SIZE, .log = true};
    struct mem_region *r = mem_region_add(rig->machine.mem, &config, NULL);
    static const uint8_t code[] = {0x48, 0xFF, 0x07, 0x48, 0x8B, 0x07, 0xF4}; /* inc, mov, hlt */
    uint64_t bitmap[1];
    struct x86_cpu cpu;

    assert_non_null(r);
    for (unsigned i = 1; i < 6; i++) {
        rig_clear(rig);
        put(CODE, code, sizeof(code));
        put(DEVICE + MEM_PAGE_SIZE, code, sizeof(code)); /* not noticed, and right nevertheless */
        rig_state_64(rig, &cpu, i & 1 ? CODE : DEVICE + MEM_PAGE_SIZE);
        cpu.reg[X86_RDI] = DEVICE + 8;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(cpu.reg[X86_RAX], i);
        assert_int_equal(mem_region_log_fetch(r, bitmap), 2);
    }
    for (uint8_t i = 1; i < 6; i++) { /* other code, of which nobody hears */
        memcpy(mem_region_host(r), (uint8_t[]){0xB0, i, 0xEB, 0, 0xF4}, 5); /* with a jump */
        for (unsigned j = 0; j < 3; j++) {
            rig_state_64(rig, &cpu, DEVICE);
            assert_int_equal(run(&cpu), EXIT_HALT);
            assert_int_equal(cpu.reg[X86_RAX] & 0xFF, i);
        }
    }
    assert_int_equal(device.reads + device.writes, 0);
    assert_int_equal(mem_region_move(r, MEM_NOWHERE, NULL), 0);
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RDI] = DEVICE + 8;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(device.reads, 2);
    assert_int_equal(device.writes, 1);
}

/* --- What is forgotten ------------------------------------------------------------------------ */

static bool knows(uint64_t va, enum mmu_access access)
{
    const struct vcpu *c = rig->cpu[0].vcpu;

    return mmu_hit(mmu_entry(c->mmu.table[MMU_SUPER_AC], access, va), va, 8);
}

GUEST_CODE(touch, "    movl $16, %ecx\n"
                  "1:  incq (%rdi)\n"
                  "    addq (%rdi), %rax\n"
                  "    addq $0x1000, %rdi\n"
                  "    loop 1b\n"
                  "    hlt\n"
                  "    hlt\n")

/* A change of some pages costs the vCPU what it knows of these and nothing else. */
static void test_only_what_concerns(void **unused)
{
    struct x86_cpu cpu;
    struct vcpu *c = rig->cpu[0].vcpu;
    bool read[16]; /* translated code may have looked for the page to write to it only */
    uint32_t clears;

    excuse(rig_is_kvm(), "it is about the interpreter's software TLB");
    rig_clear(rig);
    PUT_CODE(touch, CODE);
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RDI] = DATA;
    assert_int_equal(run(&cpu), EXIT_HALT);
    clears = c->mmu.clears;
    for (unsigned i = 0; i < 16; i++) {
        read[i] = knows(DATA + i * MEM_PAGE_SIZE, MMU_READ);
        assert_true(knows(DATA + i * MEM_PAGE_SIZE, MMU_WRITE));
    }
    assert_int_equal(change_one(MEM_SWAP_OUT, DATA + 5 * MEM_PAGE_SIZE), 0);
    assert_int_equal(change_one(MEM_PROTECT, DATA + 7 * MEM_PAGE_SIZE), 0);
    assert_int_equal(RIG_ENGINE.run(c), EXIT_HALT); /* the other HLT */
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(knows(DATA + i * MEM_PAGE_SIZE, MMU_READ), read[i] && i != 5);
        assert_int_equal(knows(DATA + i * MEM_PAGE_SIZE, MMU_WRITE), i != 5 && i != 7);
    }
    assert_true(mmu_hit(mmu_entry(c->mmu.table[MMU_SUPER], MMU_EXEC, CODE), CODE, 1));
    assert_int_equal(c->mmu.clears, clears);
}

/* --- Nobody waits for ever -------------------------------------------------------------------- */

static _Atomic unsigned steps;
static _Atomic bool release_pager;

GUEST_CODE(to_device,
           "1:  movl %ecx, (%rbx)\n" /* takes the board lock each time */
           "    incl %ecx\n"
           "    lock incl 0x3d(%rsi)\n" /* stops the other vCPUs each time: a split lock */
           "    cmpl $0, (%rdi)\n"
           "    je 1b\n"
           "    hlt\n")

static void wait_for_release(uint64_t gpn)
{
    atomic_store(&steps, 1);
    while (!atomic_load(&release_pager))
        ;
}

/* While vCPU 0 waits for its page, the board lock is free, other pages change, the log is fetched,
 * and vCPU 1 goes on: it writes to a device, and stops the others, vCPU 0 included. The pager only
 * goes on when all that has been done. */
static void test_blocking_fault(void **unused)
{
    struct runner runner[2] = {0};
    uint64_t bitmap[RIG_PAGES / 64];
    unsigned before;

    excuse(pages_stay(), "pages are not taken away here");
    for (unsigned round = 0; round < 3; round++) {
        rig_clear(rig);
        PUT_CODE(to_device, CODE);
        PUT(CODE + MEM_PAGE_SIZE, 0x48, 0x8B, 0x07, 0xF4); /* mov (%rdi), %rax; hlt */
        rig_put64(rig, DATA, 42);
        for (unsigned i = 0; i < 2; i++)
            rig_state_64(rig, &runner[i].cpu, CODE + (i ? 0 : MEM_PAGE_SIZE));
        runner[0].cpu.reg[X86_RDI] = DATA;
        runner[1].cpu.reg[X86_RBX] = DEVICE;
        runner[1].cpu.reg[X86_RDI] = DATA + 2 * MEM_PAGE_SIZE;
        runner[1].cpu.reg[X86_RSI] = DATA + 3 * MEM_PAGE_SIZE;
        store.before_in = wait_for_release;
        atomic_store(&steps, 0);
        atomic_store(&release_pager, false);
        assert_int_equal(change_one(MEM_SWAP_OUT, DATA), 0);
        runner_start(&runner[1], 1);
        runner_start(&runner[0], 0);
        while (!atomic_load(&steps))
            ;
        before = atomic_load(&device.writes);
        while (atomic_load(&device.writes) < before + 10)
            ;
        bus_lock(rig->machine.bus);
        bus_unlock(rig->machine.bus);
        rig_put64(rig, DATA + 5 * MEM_PAGE_SIZE, 7);
        assert_int_equal(change_one(MEM_SHARE, DATA + 5 * MEM_PAGE_SIZE), 0);
        rig_put64(rig, DATA + 5 * MEM_PAGE_SIZE, 8); /* waits for vCPU 1 */
        assert_int_equal(mem_log_start(rig->machine.mem, NULL), 0);
        mem_log_fetch(rig->machine.mem, 0, RIG_PAGES, bitmap);
        mem_log_stop(rig->machine.mem);
        assert_false(atomic_load(&runner[0].done));
        atomic_store(&release_pager, true);
        runner_join(&runner[0]);
        assert_int_equal(runner[0].cpu.reg[X86_RAX], 42);
        rig_put64(rig, DATA + 2 * MEM_PAGE_SIZE, 1);
        runner_join(&runner[1]);
        store.before_in = NULL;
    }
}

static uint64_t notes_seen(unsigned id)
{
    struct safepoint *sp = &((struct core *)rig->engine)->safepoint;
    uint64_t seen;

    pthread_mutex_lock(&sp->lock);
    seen = sp->seen[id];
    pthread_mutex_unlock(&sp->lock);
    return seen;
}

/* The end of the log puts nothing out of date, but a vCPU may be using its bitmaps: they may be
 * freed only when it has reached its next instruction. */
static void test_log_stop_waits(void **unused)
{
    struct runner runner = {0};
    uint64_t before;
    unsigned writes;

    PUT_CODE(to_device, CODE);
    rig_state_64(rig, &runner.cpu, CODE);
    runner.cpu.reg[X86_RBX] = DEVICE;
    runner.cpu.reg[X86_RDI] = DATA;
    runner.cpu.reg[X86_RSI] = DATA + 3 * MEM_PAGE_SIZE;
    runner_start(&runner, 0);
    writes = atomic_load(&device.writes);
    while (atomic_load(&device.writes) < writes + 2)
        ;
    assert_int_equal(mem_log_start(rig->machine.mem, NULL), 0);
    before = notes_seen(0);
    mem_log_stop(rig->machine.mem);
    assert_true(notes_seen(0) > before);
    rig_put64(rig, DATA, 1);
    runner_join(&runner);
}

/* Whether a child process that does DEED is aborted. */
static bool aborts(void (*deed)(void))
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr))
            _exit(2);
        deed();
        _exit(0);
    }
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void stop_locked(void)
{
    bus_lock(rig->machine.bus);
    safepoint_stop(&((struct core *)rig->engine)->safepoint, SAFEPOINT_OUTSIDE);
}

static void change_locked(void)
{
    bus_lock(rig->machine.bus);
    change_one(MEM_SHARE, DATA);
}

static void fault_locked(void)
{
    change_one(MEM_SWAP_OUT, DATA);
    bus_lock(rig->machine.bus);
    mem_fault(rig->machine.mem, DATA >> MEM_PAGE_SHIFT, MEM_READ, NULL);
}

static void stop_unlocked(void)
{
    bus_lock(rig->machine.bus);
    bus_unlock(rig->machine.bus);
    safepoint_stop(&((struct core *)rig->engine)->safepoint, SAFEPOINT_OUTSIDE);
    change_one(MEM_SHARE, DATA);
}

/* Who waits for vCPUs with the board lock held would wait for ever for one that wants it. */
static void test_board_lock(void **unused)
{
    rig_put64(rig, DATA, 1);
    assert_false(aborts(stop_unlocked));
    assert_true(aborts(stop_locked));
    assert_true(aborts(change_locked));
    assert_true(aborts(fault_locked));
}

#define TEST(NAME) cmocka_unit_test_setup_teardown(NAME, set_up, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_access),
        TEST(test_ballooned_code),
        TEST(test_pager_fails),
        TEST(test_read_once),
        TEST(test_rom),
        TEST(test_device_memory),
        TEST(test_only_what_concerns),
        TEST(test_blocking_fault),
        TEST(test_log_stop_waits),
        TEST(test_board_lock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
