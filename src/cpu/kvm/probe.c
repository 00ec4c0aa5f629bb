/*
 * The guest that is timed: a processor in 64-bit mode, with page tables, a GDT, an IDT and a TSS in
 * 64 KiB of memory. Each program repeats something RSI times and writes to a port then.
 */
#include "cpu/kvm/probe.h"

#include "base/time.h"
#include "base/util.h"
#include "cpu/kvm/capabilities.h"
#include "x86/cpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* ---- KVM as a whole ---- */

int kvm_probe_open(const struct kvm_calls *calls, struct error *err)
{
    int fd = calls->open(calls->opaque), version;

    if (fd < 0)
        return error_set(err, -fd, "/dev/kvm: %s", strerror(-fd));
    version = kvm_call(calls, fd, KVM_GET_API_VERSION, 0);
    if (version == KVM_API_VERSION)
        return fd;
    close(fd);
    if (version < 0)
        return error_set(err, -version, "/dev/kvm: %s", strerror(-version));
    return error_set(err, ENOTSUP, "/dev/kvm has API version %d, not %d", version, KVM_API_VERSION);
}

/* ---- Capabilities ---- */

bool kvm_probe_lacks(const struct kvm_calls *calls, int kvm, char *text, size_t size)
{
    bool all = true;
    size_t length = 0;

    *text = '\0';
    for (const struct kvm_capability *c = kvm_capabilities; c->name; c++) {
        if (kvm_call(calls, kvm, KVM_CHECK_EXTENSION, c->number) > 0)
            continue;
        all &= !c->needed;
        if (length < size)
            length +=
                (size_t)snprintf(text + length, size - length, "%s%s", length ? " " : "", c->name);
    }
    return all;
}

/* ---- The guest ---- */

#define PAGE        4096u
#define MEMORY_SIZE (16 * PAGE)
#define TABLES      (1 * PAGE) /* four levels, a page each */
#define LEVELS      4u
#define GDT         (5 * PAGE)
#define IDT         (6 * PAGE)
#define TSS         (7 * PAGE)
#define STACK_END   (9 * PAGE)
#define CODE        (10 * PAGE)
#define PROGRAM_MAX 64u
#define HANDLER     (CODE + 8 * PROGRAM_MAX)
#define DATA        (14 * PAGE)
#define ABSENT      (15 * PAGE) /* not mapped */
#define PORT        0x10u

#define PTE_ALL     7u /* present, writable, for programs, too */
#define TSS_RSP0    4u
#define GATE        0x8E00u /* a present interrupt gate */
#define KERNEL_CODE 0x08u
#define USER_CODE   0x13u
#define USER_DATA   0x1Bu
#define KERNEL_DATA 0x20u
#define TASK        0x28u

#define LEAVES 256u /* of CPUID, at most */

enum program { LOOP, IDENTIFY, FAULT, LEAVE, STORE, OPEN, PROGRAMS };

/* clang-format off */
static const uint8_t programs[PROGRAMS][PROGRAM_MAX] = {
    [LOOP] = {0x48, 0x01, 0xF0,        /* 1: add %rsi, %rax */
              0x48, 0xFF, 0xCE,        /*    dec %rsi */
              0x75, 0xF8,              /*    jnz 1b */
              0xE6, PORT},             /*    out %al, $PORT */
    [IDENTIFY] = {0x31, 0xC0,          /* 1: xor %eax, %eax */
                  0x0F, 0xA2,          /*    cpuid */
                  0x48, 0xFF, 0xCE,    /*    dec %rsi */
                  0x75, 0xF7,          /*    jnz 1b */
                  0xE6, PORT},         /*    out %al, $PORT */
    [FAULT] = {0x8A, 0x07,             /* 1: mov (%rdi), %al */
               0x48, 0xFF, 0xCE,       /*    dec %rsi */
               0x75, 0xF9,             /*    jnz 1b */
               0xE6, PORT},            /*    out %al, $PORT */
    [LEAVE] = {0xE6, PORT,             /* 1: out %al, $PORT */
               0xEB, 0xFC},            /*    jmp 1b */
    [STORE] = {0x90,                   /*    nop */
               0x88, 0x04, 0x25, 0, DATA / 256, 0, 0, /* mov %al, DATA */
               0x90,                   /*    nop */
               0xE6, PORT},            /*    out %al, $PORT */
    [OPEN] = {0xFB, 0x90, 0xFA,        /*    sti; nop; cli */
              0xE6, PORT},             /*    out %al, $PORT */
};
#define STORE_AT     1u /* offsets in STORE */
#define STORE_BEHIND 8u
#define LOOP_INSTRUCTIONS 3u
/* Of the page fault: steps over the MOV. */
static const uint8_t handler[] = {
    0x48, 0x83, 0x44, 0x24, 0x08, 0x02, /* addq $2, 8(%rsp) */
    0x48, 0x83, 0xC4, 0x08,             /* add $8, %rsp */
    0x48, 0xCF,                         /* iretq */
};
/* clang-format on */

struct probe {
    const struct kvm_calls *calls;
    int kvm, vm, vcpu;
    uint8_t *memory;
    struct kvm_run *run;
    int run_size;
    uint64_t until; /* when it has taken too long */
    timer_t timer;
    bool watched;
    sigset_t before; /* the thread's blocked signals */
};

static void put(struct probe *p, uint32_t at, uint64_t value)
{
    memcpy(p->memory + at, &value, sizeof(value));
}

/* Identity-maps the memory, but for one page. */
static void put_page_tables(struct probe *p)
{
    for (unsigned level = 0; level < LEVELS - 1; level++)
        put(p, TABLES + level * PAGE, (TABLES + (level + 1) * PAGE) | PTE_ALL);
    for (uint32_t page = 0; page < MEMORY_SIZE; page += PAGE)
        if (page != ABSENT)
            put(p, TABLES + (LEVELS - 1) * PAGE + page / PAGE * 8, page | PTE_ALL);
}

static void fill_memory(struct probe *p)
{
    const uint32_t gate = IDT + X86_PF * 16;

    put_page_tables(p);
    put(p, GDT + KERNEL_CODE, 0x00AF9B000000FFFF);
    put(p, GDT + (USER_CODE & ~3u), 0x00AFFB000000FFFF);
    put(p, GDT + (USER_DATA & ~3u), 0x00CFF3000000FFFF);
    put(p, GDT + KERNEL_DATA, 0x00CF93000000FFFF);
    put(p, gate,
        (HANDLER & 0xFFFF) | KERNEL_CODE << 16 | (uint64_t)GATE << 32 |
            (uint64_t)(HANDLER >> 16) << 48);
    put(p, TSS + TSS_RSP0, STACK_END);
    for (unsigned i = 0; i < PROGRAMS; i++)
        memcpy(p->memory + CODE + i * PROGRAM_MAX, programs[i], PROGRAM_MAX);
    memcpy(p->memory + HANDLER, handler, sizeof(handler));
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool code)
{
    return (struct kvm_segment){.limit = UINT32_MAX,
                                .selector = selector,
                                .type = type,
                                .present = 1,
                                .dpl = selector & 3,
                                .db = !code,
                                .s = 1,
                                .l = code,
                                .g = 1};
}

/* The registers with which a program begins; USER: at CPL 3. */
static int set_registers(struct probe *p, enum program program, bool user, uint64_t times)
{
    struct kvm_regs regs = {.rip = CODE + (uint64_t)program * PROGRAM_MAX,
                            .rsi = times,
                            .rdi = ABSENT,
                            .rsp = STACK_END - PAGE / 2,
                            .rflags = X86_FLAG_ONE | X86_FLAG_IOPL};
    struct kvm_sregs sregs;
    int ret = kvm_call(p->calls, p->vcpu, KVM_GET_SREGS, (uintptr_t)&sregs);

    if (ret < 0)
        return ret;
    sregs.cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG;
    sregs.cr3 = TABLES;
    sregs.cr4 = X86_CR4_PAE;
    sregs.efer = X86_EFER_LME | X86_EFER_LMA;
    sregs.gdt = (struct kvm_dtable){.base = GDT, .limit = TASK + 15};
    sregs.idt = (struct kvm_dtable){.base = IDT, .limit = 16 * (X86_PF + 1) - 1};
    sregs.tr =
        (struct kvm_segment){.base = TSS, .limit = 103, .selector = TASK, .type = 11, .present = 1};
    sregs.cs = segment(user ? USER_CODE : KERNEL_CODE, 11, true);
    sregs.ss = segment(user ? USER_DATA : KERNEL_DATA, 3, false);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss;
    ret = kvm_call(p->calls, p->vcpu, KVM_SET_SREGS, (uintptr_t)&sregs);
    return ret < 0 ? ret : kvm_call(p->calls, p->vcpu, KVM_SET_REGS, (uintptr_t)&regs);
}

/* ---- A virtual machine, for a moment ---- */

static int refuse(struct error *err, const char *what, int code)
{
    return error_set(err, code, "KVM: cannot %s: %s", what, strerror(code));
}

/* CPUID, which the guest executes, answers as KVM would have it. */
static int set_cpuid(struct probe *p, struct error *err)
{
    uint64_t space[(sizeof(struct kvm_cpuid2) + LEAVES * sizeof(struct kvm_cpuid_entry2)) / 8 + 1];
    struct kvm_cpuid2 *cpuid = (struct kvm_cpuid2 *)space;
    int ret;

    memset(space, 0, sizeof(space));
    cpuid->nent = LEAVES;
    ret = kvm_call(p->calls, p->kvm, KVM_GET_SUPPORTED_CPUID, (uintptr_t)cpuid);
    if (ret >= 0)
        ret = kvm_call(p->calls, p->vcpu, KVM_SET_CPUID2, (uintptr_t)cpuid);
    return ret < 0 ? refuse(err, "set CPUID", -ret) : 0;
}

static int add_memory(struct probe *p, struct error *err)
{
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY_SIZE};
    void *memory =
        mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int ret;

    if (memory == MAP_FAILED)
        return refuse(err, "map memory", errno);
    p->memory = memory;
    region.userspace_addr = (uintptr_t)memory;
    ret = kvm_call(p->calls, p->vm, KVM_SET_USER_MEMORY_REGION, (uintptr_t)&region);
    return ret < 0 ? refuse(err, "add memory", -ret) : 0;
}

static int add_processor(struct probe *p, struct error *err)
{
    void *run;

    p->vcpu = kvm_call(p->calls, p->vm, KVM_CREATE_VCPU, 0);
    if (p->vcpu < 0)
        return refuse(err, "create a processor", -p->vcpu);
    p->run_size = kvm_call(p->calls, p->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (p->run_size < (int)sizeof(*p->run))
        return refuse(err, "tell the size of a processor", p->run_size < 0 ? -p->run_size : EINVAL);
    run = mmap(NULL, (size_t)p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
    if (run == MAP_FAILED)
        return refuse(err, "map a processor", errno);
    p->run = run;
    return set_cpuid(p, err);
}

static void stop(struct probe *p)
{
    if (p->run)
        munmap(p->run, (size_t)p->run_size);
    if (p->vcpu >= 0)
        close(p->vcpu);
    if (p->vm >= 0)
        close(p->vm);
    if (p->memory)
        munmap(p->memory, MEMORY_SIZE);
}

/* stop() is due in any case. */
static int start(struct probe *p, struct error *err)
{
    int ret;

    p->vm = kvm_call(p->calls, p->kvm, KVM_CREATE_VM, 0);
    if (p->vm < 0)
        return refuse(err, "create a virtual machine", -p->vm);
    ret = add_memory(p, err);
    if (ret == 0)
        ret = add_processor(p, err);
    if (ret == 0)
        fill_memory(p);
    return ret;
}

/* ---- A limit ---- */

/* A KVM that is at fault may let a guest run for ever. KVM_RUN returns when a signal is pending:
 * WAKE is blocked in this thread but in KVM_RUN, so no handler is ever called. */
#define LONGEST_NS NS_PER_S
#define AGAIN_NS   (20 * NS_PER_MS)
#define WAKE       SIGURG

/* Takes the timer's signals away, and sends this thread again what is another's. */
static void take_signals(bool send_again)
{
    const struct timespec at_once = {0};
    sigset_t set;
    siginfo_t info;
    bool foreign = false;

    sigemptyset(&set);
    sigaddset(&set, WAKE);
    while (sigtimedwait(&set, &info, &at_once) == WAKE)
        foreign |= info.si_code != SI_TIMER;
    if (foreign && send_again)
        pthread_kill(pthread_self(), WAKE);
}

static int set_signal_mask(struct probe *p)
{
    struct {
        uint32_t size; /* struct kvm_signal_mask */
        uint8_t blocked[sizeof(uint64_t)];
    } mask = {.size = sizeof(mask.blocked)};

    memcpy(mask.blocked, &p->before, sizeof(mask.blocked));
    mask.blocked[(WAKE - 1) / 8] &= (uint8_t)~(1u << (WAKE - 1) % 8);
    return kvm_call(p->calls, p->vcpu, KVM_SET_SIGNAL_MASK, (uintptr_t)&mask);
}

static int start_watch(struct probe *p, struct error *err)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = WAKE};
    const struct itimerspec times = {.it_value = time_spec(LONGEST_NS),
                                     .it_interval = time_spec(AGAIN_NS)};
    sigset_t set;
    int ret;

    event._sigev_un._tid = gettid();
    if (timer_create(CLOCK_MONOTONIC, &event, &p->timer) < 0)
        return refuse(err, "set a limit", errno);
    sigemptyset(&set);
    sigaddset(&set, WAKE);
    pthread_sigmask(SIG_BLOCK, &set, &p->before);
    p->watched = true;
    p->until = time_now_ns() + LONGEST_NS;
    timer_settime(p->timer, 0, &times, NULL);
    ret = set_signal_mask(p);
    return ret < 0 ? refuse(err, "set a signal mask", -ret) : 0;
}

static void stop_watch(struct probe *p)
{
    if (!p->watched)
        return;
    timer_delete(p->timer);
    take_signals(true);
    pthread_sigmask(SIG_SETMASK, &p->before, NULL);
}

/* Lets the guest run until it writes to the port. */
static int run(struct probe *p, struct error *err)
{
    int ret;

    while ((ret = kvm_call(p->calls, p->vcpu, KVM_RUN, 0)) == -EINTR) {
        if (time_now_ns() >= p->until)
            return error_set(err, ETIMEDOUT, "KVM: a guest of a few instructions does not end");
        take_signals(false);
    }
    if (ret < 0)
        return refuse(err, "run a guest", -ret);
    if (p->run->exit_reason != KVM_EXIT_IO || p->run->io.port != PORT)
        return error_set(err, EIO, "KVM: a guest that should write to a port leaves for reason %u",
                         p->run->exit_reason);
    return 0;
}

/* ---- Measuring ---- */

#define ENOUGH_NS (NS_PER_MS * 7 / 10)
#define FIRST     32u
#define GROWTH    4u
#define MOST      (1u << 24)

/* Has a program do its work TIMES times. */
static int time_once(struct probe *p, enum program program, bool user, uint64_t times, uint64_t *ns,
                     struct error *err)
{
    int ret = set_registers(p, program, user, times);
    uint64_t begun;

    if (ret < 0)
        return refuse(err, "set registers", -ret);
    begun = time_now_ns();
    do
        ret = run(p, err);
    while (ret == 0 && program == LEAVE && --times);
    *ns = MAX(time_now_ns() - begun, 1u);
    return ret;
}

/* Returns 0, and in *PICOSECONDS what it takes to do it once: the better of two measurements that
 * are long enough. */
static int time_program(struct probe *p, enum program program, bool user, uint64_t *picoseconds,
                        struct error *err)
{
    uint64_t times = FIRST, ns = 0, again;
    int ret = 0;

    while (ret == 0) {
        ret = time_once(p, program, user, times, &ns, err);
        if (ns >= ENOUGH_NS || times >= MOST)
            break;
        times *= GROWTH;
    }
    if (ret == 0)
        ret = time_once(p, program, user, times, &again, err);
    if (ret == 0)
        *picoseconds = MAX(MIN(ns, again) * 1000 / times, 1u);
    return ret;
}

static int measure(struct probe *p, struct kvm_figures *figures, struct error *err)
{
    const uint64_t second = 1000000000000; /* in picoseconds */
    const struct {
        enum program program;
        bool user;
        uint64_t *figure;
    } parts[] = {
        {LOOP, false, &figures->kernel_ips}, {LOOP, true, &figures->user_ips},
        {FAULT, true, &figures->fault_ns},   {IDENTIFY, false, &figures->cpuid_ns},
        {LEAVE, false, &figures->exit_ns},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
        uint64_t spent = 1;
        int ret = time_program(p, parts[i].program, parts[i].user, &spent, err);

        if (ret < 0)
            return ret;
        *parts[i].figure =
            parts[i].program == LOOP ? LOOP_INSTRUCTIONS * second / spent : MAX(spent / 1000, 1u);
    }
    return 0;
}

/* ---- Abilities ---- */

#define DR7_WRITE_1 0x00100000u /* breakpoint 1 is on writes of a byte */

/* Runs PROGRAM until it exits. */
static bool leaves(struct probe *p, enum program program, bool user)
{
    return set_registers(p, program, user, 0) == 0 && kvm_call(p->calls, p->vcpu, KVM_RUN, 0) == 0;
}

/* Runs STORE with breakpoint 0 on its store, or with breakpoint 1 on what it stores to. Says
 * whether the guest leaves for that, where it should. */
static bool breaks(struct probe *p, bool data, bool user)
{
    const uint64_t code = CODE + STORE * PROGRAM_MAX;
    const struct kvm_guest_debug none = {0},
                                 debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
                                          .arch.debugreg = {[0] = code + STORE_AT,
                                                            [1] = DATA,
                                                            [7] = X86_DR7_RESET | DR7_WRITE_1 |
                                                                  (data ? 8u : 2u)}};
    const struct kvm_debug_exit_arch *met = &p->run->debug.arch;
    bool left = kvm_call(p->calls, p->vcpu, KVM_SET_GUEST_DEBUG, (uintptr_t)&debug) == 0 &&
                leaves(p, STORE, user) && p->run->exit_reason == KVM_EXIT_DEBUG &&
                (met->dr6 >> data & 1) && met->pc == code + (data ? STORE_BEHIND : STORE_AT);

    return kvm_call(p->calls, p->vcpu, KVM_SET_GUEST_DEBUG, (uintptr_t)&none) == 0 && left;
}

/* Whether the guest leaves between STI and CLI. */
static bool opens_window(struct probe *p, bool user)
{
    bool left;

    p->run->request_interrupt_window = 1;
    left = leaves(p, OPEN, user) && p->run->exit_reason == KVM_EXIT_IRQ_WINDOW_OPEN;
    p->run->request_interrupt_window = 0;
    return left;
}

unsigned kvm_probe_abilities(const struct kvm_calls *calls, int kvm)
{
    struct probe p = {.calls = calls, .kvm = kvm, .vm = -1, .vcpu = -1};
    struct error err = {0};
    unsigned abilities = 0;

    if (start(&p, &err) == 0) {
        abilities |= breaks(&p, false, false) && breaks(&p, false, true) ? KVM_BREAKS_ON_CODE : 0;
        abilities |= breaks(&p, true, false) && breaks(&p, true, true) ? KVM_BREAKS_ON_DATA : 0;
        abilities |= opens_window(&p, false) && opens_window(&p, true) ? KVM_OPENS_WINDOWS : 0;
    }
    stop(&p);
    return abilities;
}

/* ---- All of it ---- */

int kvm_probe_measure(const struct kvm_calls *calls, int kvm, struct kvm_figures *figures,
                      struct error *err)
{
    struct probe p = {.calls = calls, .kvm = kvm, .vm = -1, .vcpu = -1};
    int ret = start(&p, err);

    if (ret == 0)
        ret = start_watch(&p, err);
    if (ret == 0)
        ret = measure(&p, figures, err);
    stop_watch(&p);
    stop(&p);
    return ret;
}
