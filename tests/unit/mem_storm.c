/*
 * Two vCPUs at work while their memory is shared, swapped out, protected, ballooned, logged and
 * moved under them; what they compute must come out right. And the dirty log after KVM's selftest:
 * guest code writes while the host collects, and nothing is lost.
 */
#include "mem_guest.h"

#include "mem/pin.h"

#include <sched.h>
#include <stdlib.h>

#define CODE           RIG_FREE
#define ARRAY          0x20000ULL /* 32 pages for each vCPU */
#define ARRAY_SIZE_LOG 17
#define BUFFER         0x60000ULL /* 2 pages for each */
#define SCRATCH        0x70000ULL /* a page for each, which may be ballooned */
#define COUNTER        0x72000ULL
#define STACK          0x74000ULL /* a page for each */
#define DEVICE         0xB0000ULL
#define PATTERN        0x5A5A5A5A12345678ULL
#define STOP           0x77000ULL                  /* not 0: the vCPUs come to their end */
#define ACTS           (rig_is_kvm() ? 80u : 240u) /* each stops the vCPUs of KVM */

#define WORDS      ((1u << ARRAY_SIZE_LOG) / 8)
#define MULTIPLIER 0x3779B1u

/* RDI: array; RSI: counter; R8: where it says that this is the end; R9: scratch; R10: device; R12:
 * words - 1; R14: pattern; R15: buffer. RAX: checksum; RCX: iterations, a multiple of 64; R13: what
 * went wrong. */
GUEST_CODE(work, "    xorl %eax, %eax\n"
                 "    xorl %r13d, %r13d\n"
                 "    xorl %ecx, %ecx\n"
                 "1:  incq %rcx\n"
                 "    imulq $0x3779b1, %rcx, %rdx\n"
                 "    andq %r12, %rdx\n"
                 "    addq %rcx, (%rdi,%rdx,8)\n"
                 "    movq (%rdi,%rdx,8), %rbx\n"
                 "    xorq %rbx, %rax\n"
                 "    rolq $1, %rax\n"
                 "    lock incq (%rsi)\n"
                 "    movq %rcx, (%r9)\n"
                 "    pushq %rax\n"
                 "    popq %rbx\n"
                 "    cmpq %rax, %rbx\n"
                 "    je 5f\n"
                 "    incq %r13\n"
                 "5:  movq (%r9), %rbx\n"
                 "    testq %rbx, %rbx\n" /* ballooned meanwhile */
                 "    jz 2f\n"
                 "    cmpq %rcx, %rbx\n"
                 "    je 2f\n"
                 "    incq %r13\n"
                 "2:  movq (%r10), %rbx\n"
                 "    cmpq $-1, %rbx\n" /* moved away */
                 "    je 3f\n"
                 "    cmpq %r14, %rbx\n"
                 "    je 3f\n"
                 "    incq %r13\n"
                 "3:  movq %rcx, 8(%r10)\n"
                 "    testb $63, %cl\n"
                 "    jnz 4f\n"
                 "    pushq %rdi\n"
                 "    pushq %rsi\n"
                 "    pushq %rcx\n"
                 "    movq %rdi, %rsi\n"
                 "    movq %r15, %rdi\n"
                 "    movl $1024, %ecx\n"
                 "    rep movsq\n"
                 "    popq %rcx\n"
                 "    popq %rsi\n"
                 "    popq %rdi\n"
                 "    cmpq $0, (%r8)\n"
                 "    jne 6f\n"
                 "4:  jmp 1b\n"
                 "6:\n"
                 "    hlt\n")

static uint64_t array_of(unsigned id)
{
    return ARRAY + ((uint64_t)id << ARRAY_SIZE_LOG);
}

static void load(struct runner *runner, unsigned id)
{
    struct x86_cpu *cpu = &runner->cpu;

    rig_state_64(rig, cpu, CODE);
    cpu->reg[X86_RDI] = array_of(id);
    cpu->reg[X86_RSI] = COUNTER;
    cpu->reg[X86_R8] = STOP;
    cpu->reg[X86_R9] = SCRATCH + id * MEM_PAGE_SIZE;
    cpu->reg[X86_R10] = DEVICE;
    cpu->reg[X86_R12] = WORDS - 1;
    cpu->reg[X86_R14] = PATTERN;
    cpu->reg[X86_R15] = BUFFER + id * 2 * MEM_PAGE_SIZE;
    cpu->reg[X86_RSP] = STACK + (id + 1) * MEM_PAGE_SIZE;
}

/* What the guest's code computes. */
static uint64_t model(uint64_t *array, uint64_t iterations)
{
    uint64_t sum = 0;

    memset(array, 0, WORDS * sizeof(*array));
    for (uint64_t i = 1; i <= iterations; i++) {
        uint64_t *word = &array[i * MULTIPLIER & (WORDS - 1)];

        *word += i;
        sum ^= *word;
        sum = sum << 1 | sum >> 63;
    }
    return sum;
}

static void check_results(struct runner *runner)
{
    static uint64_t want[WORDS], got[WORDS];
    uint64_t total = 0;

    rig_put64(rig, STOP, 1);
    for (unsigned id = 0; id < 2; id++) {
        uint64_t sum;

        runner_join(&runner[id]);
        sum = model(want, runner[id].cpu.reg[X86_RCX]);
        total += runner[id].cpu.reg[X86_RCX];
        assert_int_equal(runner[id].cpu.reg[X86_R13], 0);
        assert_true(runner[id].cpu.reg[X86_RAX] == sum);
        mem_read(rig->machine.mem, array_of(id), got, sizeof(got));
        assert_memory_equal(got, want, sizeof(got));
        mem_read(rig->machine.mem, BUFFER + id * 2 * MEM_PAGE_SIZE, got, 2 * MEM_PAGE_SIZE);
        assert_memory_equal(got, want, 2 * MEM_PAGE_SIZE);
    }
    assert_int_equal(get64(COUNTER), total);
}

/* Returns when the vCPUs together have gone on by a few iterations since the last time. */
static void let_run(void)
{
    static uint64_t before;
    uint64_t now;

    do {
        sched_yield();
        now = get64(COUNTER);
    } while (now - before < 20 && now >= before);
    before = now;
}

static struct mem_region *video;

static void prepare(struct runner *runner)
{
    struct mem_region_config config = {
        .name = "video", .gpa = DEVICE, .kind = MEM_DEVICE, .size = MEM_PAGE_SIZE, .log = true};

    rig_clear(rig);
    store_begin();
    PUT_CODE(work, CODE);
    if (!video)
        video = mem_region_add(rig->machine.mem, &config, NULL);
    assert_non_null(video);
    *(uint64_t *)mem_region_host(video) = PATTERN;
    for (unsigned id = 0; id < 2; id++)
        load(&runner[id], id);
}

/* --- The storm -------------------------------------------------------------------------------- */

static unsigned seed;

static void change_some(void)
{
    static const enum mem_change_kind kinds[] = {MEM_SHARE, MEM_SHARE, MEM_SWAP_OUT, MEM_PROTECT};
    struct mem_change batch[24];

    for (unsigned i = 0; i < ARRAY_SIZE(batch); i++)
        batch[i] = (struct mem_change){
            .kind = kinds[rand_r(&seed) % ARRAY_SIZE(kinds)],
            .gpn = (unsigned)rand_r(&seed) % (MEM_VGA_START / MEM_PAGE_SIZE),
        };
    batch[0] = (struct mem_change){.kind = MEM_BALLOON,
                                   .gpn = SCRATCH / MEM_PAGE_SIZE + (unsigned)rand_r(&seed) % 2};
    mem_change(rig->machine.mem, batch, ARRAY_SIZE(batch));
}

/* Reads some of what the guest works with, as a device does. */
static void pin_some(void)
{
    uint64_t gpa = ARRAY + (unsigned)rand_r(&seed) % 60 * MEM_PAGE_SIZE;
    struct iovec iov[4];
    struct mem_pin pin;
    unsigned count = ARRAY_SIZE(iov);

    assert_int_equal(mem_pin(rig->machine.mem, gpa, 3 * MEM_PAGE_SIZE, MEM_READ, &pin, iov, &count),
                     0);
    assert_int_equal(pin.size, 3 * MEM_PAGE_SIZE);
    change_some();
    mem_unpin(rig->machine.mem, &pin);
}

static void act(void)
{
    uint64_t bitmap[1];

    switch (rand_r(&seed) % 8) {
    case 0: mem_region_move(video, rand_r(&seed) % 2 ? DEVICE : MEM_NOWHERE, NULL); break;
    case 1: mem_region_log_fetch(video, bitmap); break;
    case 2: pin_some(); break;
    default: change_some(); break;
    }
}

static void test_storm(void **unused)
{
    struct runner runner[2] = {0};
    struct mem_counts counts;
    uint64_t bitmap[RIG_PAGES / 64];

    seed = 1;
    prepare(runner);
    for (unsigned id = 0; id < 2; id++)
        runner_start(&runner[id], id);
    for (unsigned i = 0; i < ACTS; i++) {
        let_run();
        act();
        if (i % 64 == 16)
            assert_int_equal(mem_log_start(rig->machine.mem, NULL), 0);
        if (i % 64 > 32)
            mem_log_fetch(rig->machine.mem, 0, RIG_PAGES, bitmap);
        if (i % 64 == 48)
            mem_log_stop(rig->machine.mem);
    }
    mem_log_stop(rig->machine.mem);
    check_results(runner);
    mem_count(rig->machine.mem, &counts);
    if (pages_stay())
        return;
    assert_true(store.outs > ACTS / 4);
    assert_true(store.ins > 64); /* if only for the last look */
    assert_true(counts.swapped <= store.outs - store.ins);
}

/* --- Order ------------------------------------------------------------------------------------ */

/* RDI and RSI: two numbers that go up, the first before the second; R8: the end. */
GUEST_CODE(writer, "1:  incq %rcx\n"
                   "    movq %rcx, (%rdi)\n"
                   "    movq %rcx, (%rsi)\n"
                   "    cmpq $0, (%r8)\n"
                   "    je 1b\n"
                   "    hlt\n")
GUEST_CODE(reader, "1:  movq (%rsi), %rbx\n"
                   "    movq (%rdi), %rax\n"
                   "    cmpq %rbx, %rax\n"
                   "    jae 2f\n"
                   "    incq %r13\n"
                   "2:  cmpq $0, (%r8)\n"
                   "    je 1b\n"
                   "    hlt\n")

/* The page of the first number is shared again and again, and copied by the next write. A vCPU that
 * sees the second number must see the first, wherever the page was when it looked last. */
static void test_order(void **unused)
{
    struct runner runner[2] = {0};

    rig_clear(rig);
    store_begin();
    PUT_CODE(writer, CODE);
    PUT_CODE(reader, CODE + MEM_PAGE_SIZE);
    for (unsigned id = 0; id < 2; id++) {
        rig_state_64(rig, &runner[id].cpu, CODE + id * MEM_PAGE_SIZE);
        runner[id].cpu.reg[X86_RDI] = ARRAY;
        runner[id].cpu.reg[X86_RSI] = COUNTER;
        runner[id].cpu.reg[X86_R8] = STOP;
        runner_start(&runner[id], id);
    }
    for (unsigned i = 0; i < ACTS; i++) {
        let_run();
        change_one(MEM_SHARE, ARRAY);
    }
    rig_put64(rig, STOP, 1);
    for (unsigned id = 0; id < 2; id++)
        runner_join(&runner[id]);
    assert_int_equal(runner[1].cpu.reg[X86_R13], 0);
}

/* --- The dirty log ---------------------------------------------------------------------------- */

/* Copies what has been written to since. Returns how many pages that were. */
static uint64_t update(uint8_t *copy)
{
    uint64_t bitmap[RIG_PAGES / 64];
    uint64_t fetched = mem_log_fetch(rig->machine.mem, 0, RIG_PAGES, bitmap);

    for (uint64_t gpn = 0; gpn < MEM_VGA_START / MEM_PAGE_SIZE; gpn++)
        if (bitmap[gpn / 64] >> (gpn % 64) & 1)
            mem_read(rig->machine.mem, gpn * MEM_PAGE_SIZE, copy + gpn * MEM_PAGE_SIZE,
                     MEM_PAGE_SIZE);
    return fetched;
}

/* A copy of all RAM that is brought up to date with what the log says, again and again, is the
 * guest's memory in the end: with what its code has written, the accessed and dirty bits of its
 * page tables, and what was written from outside. */
static void test_dirty_log(void **unused)
{
    static uint8_t copy[RIG_RAM], end[RIG_RAM];
    struct runner runner[2] = {0};
    uint64_t fetched = 0;
    struct mem *mem = rig->machine.mem;
    const unsigned rounds = 100;

    seed = 2;
    prepare(runner);
    assert_int_equal(mem_region_move(video, MEM_NOWHERE, NULL), 0);
    mem_read(mem, 0, copy, MEM_VGA_START);
    assert_int_equal(mem_log_start(mem, NULL), 0);
    for (unsigned id = 0; id < 2; id++)
        runner_start(&runner[id], id);
    for (unsigned i = 0; i < rounds; i++) {
        if (i % 4 == 0)
            change_some(); /* what it takes away is not lost, and what it loses is in the log */
        let_run();
        rig_put64(rig, STOP + 8, i);
        fetched += update(copy);
    }
    check_results(runner); /* they have come to their end: there is one more round */
    update(copy);
    mem_log_stop(mem);
    mem_read(mem, 0, end, MEM_VGA_START);
    for (uint64_t gpn = 0; gpn < MEM_VGA_START / MEM_PAGE_SIZE; gpn++)
        if (memcmp(copy + gpn * MEM_PAGE_SIZE, end + gpn * MEM_PAGE_SIZE, MEM_PAGE_SIZE) != 0)
            fail_msg("page %#llx is not as it was fetched", (unsigned long long)gpn);
    assert_true(fetched > rounds);
}

/* A page walk that sets accessed and dirty bits is in the log, and nothing else of the tables. */
static void test_walks_are_logged(void **unused)
{
    static const uint8_t code[] = {0x48, 0x8B, 0x07, 0x48, 0x89, 0x06, 0xF4, 0xF4};
    uint64_t bitmap[RIG_PAGES / 64], tables = 0;
    struct mem *mem = rig->machine.mem;
    struct x86_cpu cpu;

    rig_clear(rig);
    put(CODE, code, sizeof(code)); /* mov (%rdi), %rax; mov %rax, (%rsi); hlt */
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RDI] = ARRAY;
    cpu.reg[X86_RSI] = ARRAY;
    assert_int_equal(mem_log_start(mem, NULL), 0);
    assert_int_equal(run(&cpu), EXIT_HALT);
    mem_log_fetch(mem, 0, RIG_PAGES, bitmap);
    for (uint64_t gpa = RIG_TABLES; gpa < rig->next_table; gpa += MEM_PAGE_SIZE)
        tables |= 1ULL << (gpa >> MEM_PAGE_SHIFT);
    assert_int_equal(bitmap[0], tables | 1ULL << (ARRAY >> MEM_PAGE_SHIFT));
    /* The bits are set now: only the page itself is written to. */
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RDI] = ARRAY;
    cpu.reg[X86_RSI] = ARRAY;
    assert_int_equal(run(&cpu), EXIT_HALT);
    mem_log_fetch(mem, 0, RIG_PAGES, bitmap);
    assert_int_equal(bitmap[0], 1ULL << (ARRAY >> MEM_PAGE_SHIFT));
    mem_log_stop(mem);
}

static int set_up(void **unused)
{
    video = NULL;
    rig = rig_create(2, 0);
    return rig ? 0 : -1;
}

#define TEST(NAME) cmocka_unit_test_setup_teardown(NAME, set_up, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_walks_are_logged),
        TEST(test_dirty_log),
        TEST(test_storm),
        TEST(test_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
