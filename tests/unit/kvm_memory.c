/*
 * Guest memory under KVM: the dirty log, pages that are taken away, regions that come and go; and
 * leaving the guest.
 */
#include "mem_guest.h"

#include "base/time.h"
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sched.h>
#include <sys/mman.h>

#define CODE   RIG_FREE
#define DATA   0x20000ULL
#define DEVICE 0x200000ULL /* behind the end of RAM */
#define PAGES  16

static int set_up(void **unused)
{
    rig = rig_create(2, 0);
    store_begin();
    return rig ? 0 : -1;
}

static int tear_down(void **unused)
{
    rig_destroy(rig);
    return 0;
}

/* Reads and changes a quadword in each of RCX pages from RDI on; RAX becomes the sum. */
GUEST_CODE(touch, "    xorl %eax, %eax\n"
                  "1:  addq (%rdi), %rax\n"
                  "    incq (%rdi)\n"
                  "    addq $0x1000, %rdi\n"
                  "    loop 1b\n"
                  "    hlt\n")

static uint64_t touch(uint64_t gpa, unsigned pages)
{
    struct x86_cpu cpu;

    PUT_CODE(touch, CODE);
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RDI] = gpa;
    cpu.reg[X86_RCX] = pages;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(cpu.reg[X86_RIP], CODE + (uint64_t)(guest_touch_end - guest_touch));
    return cpu.reg[X86_RAX];
}

/* How many of the pages that TOUCH uses the log has, and all of it in COUNT. */
static unsigned fetch(uint64_t *count)
{
    uint64_t bitmap[RIG_PAGES / 64];
    unsigned found = 0;

    *count = mem_log_fetch(rig->machine.mem, 0, RIG_PAGES, bitmap);
    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t gpn = (DATA >> MEM_PAGE_SHIFT) + i;

        found += bitmap[gpn / 64] >> (gpn & 63) & 1;
    }
    return found;
}

/* Each page that the guest has written to is in the next answer, and only there. */
static void test_log(void **unused)
{
    uint64_t count;

    rig_clear(rig);
    touch(DATA, PAGES); /* before there is a log */
    assert_int_equal(mem_log_start(rig->machine.mem, NULL), 0);
    for (unsigned round = 0; round < 3; round++) {
        assert_int_equal(fetch(&count), 0);
        touch(DATA, PAGES);
        assert_int_equal(fetch(&count), PAGES);
        assert_true(count < PAGES + 10); /* besides, page tables and the code */
    }
    mem_log_stop(rig->machine.mem);
    touch(DATA, PAGES);
    assert_int_equal(mem_log_start(rig->machine.mem, NULL), 0);
    assert_int_equal(fetch(&count), 0);
    mem_log_stop(rig->machine.mem);
}

/* A ballooned page reads as zero when the guest touches it, and is the guest's own from then on:
 * the interpreter is needed once. */
static void test_balloon(void **unused)
{
    uint64_t pages, interpreted;

    rig_clear(rig);
    for (unsigned i = 0; i < PAGES; i++)
        rig_put64(rig, DATA + i * MEM_PAGE_SIZE, 1000);
    assert_int_equal(touch(DATA, PAGES), 1000 * PAGES);
    for (unsigned i = 0; i < PAGES; i += 2)
        assert_int_equal(change_one(MEM_BALLOON, DATA + i * MEM_PAGE_SIZE), 0);
    assert_int_equal(mem_page_state(rig->machine.mem, DATA >> MEM_PAGE_SHIFT, &pages),
                     MEM_STATE_BALLOONED);
    assert_int_equal(touch(DATA, PAGES), 1001 * PAGES / 2);
    assert_int_equal(mem_page_state(rig->machine.mem, DATA >> MEM_PAGE_SHIFT, &pages),
                     MEM_STATE_PRIVATE);
    interpreted = rig_exits(rig, CAUSE_INSTRUCTION) + rig_exits(rig, CAUSE_MMIO);
    assert_int_equal(touch(DATA, PAGES), 1002 * PAGES / 2 + PAGES / 2);
    assert_int_equal(rig_exits(rig, CAUSE_INSTRUCTION) + rig_exits(rig, CAUSE_MMIO), interpreted);
}

/* Pages can be shared and swapped out where the host's processor walks page tables; elsewhere they
 * stay. Either way the guest reads what it wrote. */
static void test_taken_away(void **unused)
{
    static const enum mem_change_kind kinds[] = {MEM_SWAP_OUT, MEM_SHARE, MEM_PROTECT};
    bool taken = false;

    rig_clear(rig);
    for (unsigned i = 0; i < PAGES; i++)
        rig_put64(rig, DATA + i * MEM_PAGE_SIZE, 1000);
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        for (unsigned page = 0; page < PAGES; page++) {
            int status = change_one(kinds[i], DATA + page * MEM_PAGE_SIZE);

            if (!i && !page)
                taken = status == 0;
            assert_int_equal(status, taken ? 0 : -EPERM);
        }
        assert_int_equal(touch(DATA, PAGES), (1000 + i) * PAGES);
    }
}

/* A device's memory is seen where it is, keeps its bytes, and is no memory where it was. */
static void test_region(void **unused)
{
    const struct mem_region_config config = {
        .name = "test", .gpa = DEVICE, .size = 2 * MEM_PAGE_SIZE, .kind = MEM_DEVICE, .log = true};
    struct mem_region *region;
    uint64_t bitmap[1], *bytes;

    rig_clear(rig);
    for (unsigned i = 0; i < 8; i++)
        rig_map(rig, DEVICE + i * MEM_PAGE_SIZE, DEVICE + i * MEM_PAGE_SIZE, 7);
    assert_int_equal(touch(DEVICE, 1), UINT64_MAX); /* nothing is there */
    region = mem_region_add(rig->machine.mem, &config, NULL);
    assert_non_null(region);
    bytes = mem_region_host(region);
    bytes[0] = 5;
    assert_int_equal(touch(DEVICE, 1), 5);
    assert_int_equal(bytes[0], 6);
    assert_int_equal(mem_region_log_fetch(region, bitmap), 1);
    assert_int_equal(bitmap[0], 1);
    assert_int_equal(mem_region_move(region, DEVICE + 4 * MEM_PAGE_SIZE, NULL), 0);
    assert_int_equal(touch(DEVICE, 1), UINT64_MAX);
    assert_int_equal(touch(DEVICE + 4 * MEM_PAGE_SIZE, 2), 6);
    assert_int_equal(mem_region_log_fetch(region, bitmap), 2);
    mem_region_remove(region);
    assert_int_equal(touch(DEVICE + 4 * MEM_PAGE_SIZE, 1), UINT64_MAX);
}

static struct {
    _Atomic unsigned kicks; /* that have ended a run */
    _Atomic bool ending;
} busy;

static void *run_busy(void *opaque)
{
    struct rig_cpu *cpu = &rig->cpu[0];

    RIG_ENGINE.state_in(cpu->vcpu, opaque);
    while (!atomic_load(&busy.ending)) {
        enum engine_exit exit = RIG_ENGINE.run(cpu->vcpu);

        atomic_fetch_and(&cpu->port.requests, ~(uint32_t)CPU_REQ_KICK);
        atomic_fetch_add(&busy.kicks, exit == EXIT_KICK);
    }
    return NULL;
}

/* A guest that does nothing but run leaves each time that it is told to. */
static void test_kick(void **unused)
{
    static struct x86_cpu cpu;
    pthread_t thread;

    rig_clear(rig);
    PUT(CODE, 0xEB, 0xFE); /* 1: jmp 1b */
    rig_state_64(rig, &cpu, CODE);
    assert_int_equal(pthread_create(&thread, NULL, run_busy, &cpu), 0);
    for (unsigned i = 0; i < 200; i++) {
        unsigned before = atomic_load(&busy.kicks);

        RIG_ENGINE.kick(rig->cpu[0].vcpu);
        while (atomic_load(&busy.kicks) == before)
            sched_yield();
    }
    atomic_store(&busy.ending, true);
    RIG_ENGINE.kick(rig->cpu[0].vcpu);
    pthread_join(thread, NULL);
}

/* --- Where vCPUs are while pages are taken away ------------------------------------------------
 */

static struct {
    _Atomic unsigned inside;    /* vCPUs in KVM_RUN */
    _Atomic unsigned withdrawn; /* mappings that became inaccessible */
    _Atomic unsigned disturbed; /* those with a vCPU inside */
} watched;

/* Takes the place of mprotect (the linker's --wrap). */
int __real_mprotect(void *address, size_t size, int access);
int __wrap_mprotect(void *address, size_t size, int access);
int __wrap_mprotect(void *address, size_t size, int access)
{
    if (access == PROT_NONE) {
        time_sleep_ns(NS_PER_MS); /* in which a vCPU that is not stopped enters the guest */
        atomic_fetch_add(&watched.withdrawn, 1);
        atomic_fetch_add(&watched.disturbed, atomic_load(&watched.inside) != 0);
    }
    return __real_mprotect(address, size, access);
}

static int watched_open(void *opaque)
{
    return kvm_host_calls.open(NULL);
}

static int watched_ioctl(void *opaque, int fd, unsigned long request, void *argument)
{
    int ret;

    atomic_fetch_add(&watched.inside, request == KVM_RUN);
    ret = kvm_host_calls.ioctl(NULL, fd, request, argument);
    atomic_fetch_sub(&watched.inside, request == KVM_RUN);
    return ret;
}

static void *run_watched(void *vcpu)
{
    while (kvm_engine.run(vcpu) == EXIT_KICK && !atomic_load(&busy.ending))
        atomic_fetch_and(&rig->cpu[0].port.requests, ~(uint32_t)CPU_REQ_KICK);
    return NULL;
}

/* Pages are taken away while no vCPU is in KVM_RUN, and the guest has them again when it wants
 * them: 1: incq (%rdi); jmp 1b. */
static void test_taken_while_stopped(void **unused)
{
    static const struct kvm_calls calls = {.open = watched_open, .ioctl = watched_ioctl};
    static const struct kvm_options options = {.calls = &calls};
    struct engine *engine = kvm_create_with(&rig->machine, &options, NULL);
    struct vcpu *vcpu = kvm_engine.vcpu_create(engine, &rig->cpu[0].port, NULL);
    struct x86_cpu cpu;
    pthread_t thread;

    rig_clear(rig);
    PUT(CODE, 0x48, 0xFF, 0x07, 0xEB, 0xFB);
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RDI] = DATA;
    kvm_engine.state_in(vcpu, &cpu);
    memset(&watched, 0, sizeof(watched));
    atomic_store(&busy.ending, false);
    assert_int_equal(pthread_create(&thread, NULL, run_watched, vcpu), 0);
    for (unsigned i = 0; i < 100; i++) {
        uint64_t count = get64(DATA);

        while (get64(DATA) == count)
            sched_yield();
        assert_int_equal(change_one(MEM_BALLOON, DATA), 0);
    }
    atomic_store(&busy.ending, true);
    kvm_engine.kick(vcpu);
    pthread_join(thread, NULL);
    assert_true(atomic_load(&watched.withdrawn) >= 100);
    assert_int_equal(atomic_load(&watched.disturbed), 0);
    kvm_engine.vcpu_destroy(vcpu);
    kvm_engine.destroy(engine);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_log),    TEST(test_balloon), TEST(test_taken_away),
        TEST(test_region), TEST(test_kick),    TEST(test_taken_while_stopped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
