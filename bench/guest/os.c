/*
 * Tests of what an operating system does for programs: system calls, faults, processes, files.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
#include <x86intrin.h>

#define PAGE       4096u
#define COPIED     (64u << 10)
#define MAPPED     16u  /* pages of one mapping */
#define TOUCHED    256u /* pages touched again and again */
#define MAX_PAUSES 4096u
#define MIN_PAUSE  1000u /* ns */

/* --- System calls and clocks --------------------------------------------------------------- */

static void null_syscall(uint64_t ops)
{
    while (ops-- > 0)
        sink = (uint64_t)syscall(SYS_getppid);
}

static void clock_vdso(uint64_t ops)
{
    struct timespec now;

    while (ops-- > 0)
        clock_gettime(CLOCK_MONOTONIC, &now);
    sink = (uint64_t)now.tv_nsec;
}

static void clock_syscall(uint64_t ops)
{
    struct timespec now;

    while (ops-- > 0)
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    sink = (uint64_t)now.tv_nsec;
}

/* --- Processes and threads ----------------------------------------------------------------- */

static void pass_bytes(int from, int to, uint64_t ops)
{
    char byte;

    while (ops-- > 0)
        if (read(from, &byte, 1) != 1 || write(to, &byte, 1) != 1)
            _exit(1);
}

static void wait_for(pid_t child)
{
    int status;

    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void pipes(uint64_t ops)
{
    int there[2], back[2];
    char byte = 0;
    pid_t child;

    CHECK(!pipe(there) && !pipe(back));
    child = fork();
    if (child == 0) {
        pass_bytes(there[0], back[1], ops);
        _exit(0);
    }
    for (uint64_t i = 0; i < ops; i++)
        CHECK(write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1);
    wait_for(child);
    for (unsigned i = 0; i < 2; i++) {
        close(there[i]);
        close(back[i]);
    }
}

/* Two processes on one CPU that do nothing but make room for each other: OPS times in all. */
static void context_switch(uint64_t ops)
{
    pid_t child = fork();

    for (uint64_t i = 0; i < (ops + 1) / 2; i++)
        sched_yield();
    if (child == 0)
        _exit(0);
    wait_for(child);
}

static void fork_wait(uint64_t ops)
{
    while (ops-- > 0) {
        pid_t child = fork();

        if (child == 0)
            _exit(0);
        wait_for(child);
    }
}

static void fork_exec(uint64_t ops)
{
    while (ops-- > 0) {
        pid_t child = fork();

        if (child == 0) {
            execl(self_path, "bench", "exit", (char *)NULL);
            _exit(127);
        }
        wait_for(child);
    }
}

static void *return_at_once(void *argument)
{
    return argument;
}

static void threads(uint64_t ops)
{
    pthread_t thread;

    while (ops-- > 0)
        CHECK(!pthread_create(&thread, NULL, return_at_once, NULL) && !pthread_join(thread, NULL));
}

struct shared_counter {
    pthread_mutex_t mutex;
    uint64_t rounds, value;
};

static void *count_up(void *opaque)
{
    struct shared_counter *counter = opaque;

    for (uint64_t i = 0; i < counter->rounds; i++) {
        pthread_mutex_lock(&counter->mutex);
        if (counter->value++ % 64 == 0)
            sched_yield(); /* so that the other thread meets a mutex that is held */
        pthread_mutex_unlock(&counter->mutex);
    }
    return NULL;
}

static void mutex(uint64_t ops)
{
    struct shared_counter counter = {PTHREAD_MUTEX_INITIALIZER, (ops + 1) / 2, 0};
    pthread_t thread;

    CHECK(!pthread_create(&thread, NULL, count_up, &counter));
    count_up(&counter);
    CHECK(!pthread_join(thread, NULL));
    CHECK(counter.value == 2 * counter.rounds);
}

/* --- Memory -------------------------------------------------------------------------------- */

static char *map_pages(size_t pages)
{
    char *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(p != MAP_FAILED);
    return p;
}

static void touch_pages(char *p, size_t pages)
{
    for (size_t i = 0; i < pages; i++)
        *(volatile char *)(p + i * PAGE) = 1;
}

static void map_and_touch(uint64_t ops)
{
    while (ops-- > 0) {
        char *p = map_pages(MAPPED);

        touch_pages(p, MAPPED);
        munmap(p, MAPPED * PAGE);
    }
}

/* Small pages, one fault for each. */
static void page_fault(uint64_t ops)
{
    char *p = map_pages(TOUCHED);

    madvise(p, TOUCHED * PAGE, MADV_NOHUGEPAGE);
    for (uint64_t left = ops; left > 0;) {
        size_t pages = left < TOUCHED ? left : TOUCHED;

        touch_pages(p, pages);
        madvise(p, pages * PAGE, MADV_DONTNEED);
        left -= pages;
    }
    munmap(p, TOUCHED * PAGE);
}

static void protect(uint64_t ops)
{
    char *p = map_pages(1);

    while (ops-- > 0) {
        touch_pages(p, 1);
        CHECK(!mprotect(p, PAGE, PROT_READ) && !mprotect(p, PAGE, PROT_READ | PROT_WRITE));
    }
    munmap(p, PAGE);
}

/* --- Signals ------------------------------------------------------------------------------- */

static volatile uintptr_t resume_at;
static volatile uint64_t signals_seen;

static void on_fault(int signal, siginfo_t *info, void *opaque)
{
    ucontext_t *context = opaque;

    (void)signal;
    (void)info;
    signals_seen++;
    context->uc_mcontext.gregs[REG_RIP] = (greg_t)resume_at;
}

static void on_signal(int signal)
{
    (void)signal;
    signals_seen++;
}

static void fault_signals(uint64_t ops)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    char *p = map_pages(1);

    CHECK(!mprotect(p, PAGE, PROT_NONE) && !sigaction(SIGSEGV, &action, NULL));
    signals_seen = 0;
    for (uint64_t i = 0; i < ops; i++)
        __asm__ volatile("lea 1f(%%rip), %%rax\n\t"
                         "mov %%rax, %0\n\t"
                         "movb (%1), %%al\n"
                         "1:"
                         : "=m"(resume_at)
                         : "r"(p)
                         : "rax", "memory");
    CHECK(signals_seen == ops);
    munmap(p, PAGE);
}

static void own_signals(uint64_t ops)
{
    struct sigaction action = {.sa_handler = on_signal};

    CHECK(!sigaction(SIGUSR1, &action, NULL));
    signals_seen = 0;
    for (uint64_t i = 0; i < ops; i++)
        raise(SIGUSR1);
    CHECK(signals_seen == ops);
}

/* --- Files --------------------------------------------------------------------------------- */

static char file_path[256];
static char file_data[COPIED];
static int file_fd;

static void name_file(void)
{
    snprintf(file_path, sizeof(file_path), "%s/doppel-bench-%d", tmp_dir, (int)getpid());
    memset(file_data, 'x', sizeof(file_data));
}

/* Open and without a name, so that nothing of it stays. */
static void make_file(void)
{
    name_file();
    file_fd = open(file_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(file_fd >= 0);
    unlink(file_path);
    CHECK(write(file_fd, file_data, COPIED) == COPIED);
}

static void files(uint64_t ops)
{
    while (ops-- > 0) {
        int fd = open(file_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

        CHECK(fd >= 0 && write(fd, file_data, 4 * PAGE) == 4 * PAGE);
        CHECK(pread(fd, file_data, 4 * PAGE, 0) == 4 * PAGE);
        close(fd);
        unlink(file_path);
    }
}

static void look_up(uint64_t ops)
{
    struct stat st;

    while (ops-- > 0)
        CHECK(!stat(tmp_dir, &st));
}

static void copy_to_user(uint64_t ops)
{
    while (ops-- > 0)
        CHECK(pread(file_fd, file_data, COPIED, 0) == COPIED);
}

static void copy_from_user(uint64_t ops)
{
    while (ops-- > 0)
        CHECK(pwrite(file_fd, file_data, COPIED, 0) == COPIED);
}

/* --- The timer's tick ---------------------------------------------------------------------- */

/* Local timer interrupts of this CPU so far; 0 when that cannot be told. */
static uint64_t timer_interrupts(void)
{
    FILE *f = fopen("/proc/interrupts", "re");
    char line[4096], *p;
    uint64_t count = 0;
    int cpu = sched_getcpu();

    while (f && fgets(line, sizeof(line), f)) {
        if (!(p = strstr(line, "LOC:")))
            continue;
        p += 4;
        for (int i = 0; i <= cpu; i++)
            count = strtoull(p, &p, 10);
    }
    if (f)
        fclose(f);
    return count;
}

static int longer_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x < y) - (x > y);
}

/* Spins on the TSC and looks for pauses. As many of the longest as there were timer interrupts are
 * the ticks; of those the middle one. */
static double timer_tick(uint64_t target_ns, uint64_t *ops)
{
    static uint64_t pause[MAX_PAUSES];
    uint64_t ticks = timer_interrupts(), start_ns = now_ns(), start = __rdtsc(), count = 0;
    uint64_t last = start, shortest = UINT64_MAX, end_ns;
    double ns_per_cycle;

    while ((end_ns = now_ns()) - start_ns < target_ns) {
        for (unsigned i = 0; i < 1000; i++) {
            uint64_t now = __rdtsc(), gap = now - last;

            last = now;
            if (gap < shortest)
                shortest = gap;
            if (gap > 4 * shortest && gap > MIN_PAUSE && count < MAX_PAUSES)
                pause[count++] = gap;
        }
        last = __rdtsc();
    }
    ns_per_cycle = (double)(end_ns - start_ns) / (double)(__rdtsc() - start);
    ticks = timer_interrupts() - ticks;
    qsort(pause, count, sizeof(pause[0]), longer_first);
    if (ticks == 0 || ticks > count)
        ticks = count;
    *ops = ticks;
    return ticks ? ns_per_cycle * (double)pause[ticks / 2] : 0;
}

/* --- Debugging ----------------------------------------------------------------------------- */

#define DR7_WRITE_8 0x90001ul /* breakpoint 0: writes to 8 bytes */

/* Each has a page of its own: what a watchpoint costs elsewhere is to be seen. */
static volatile uint64_t watched __attribute__((aligned(4096)));
static volatile uint64_t table[512] __attribute__((aligned(4096)));

/* In the parent: arms a watchpoint in the child, which has stopped, and waits for its end. */
__attribute__((noreturn)) static void watch(pid_t child)
{
    const size_t registers = offsetof(struct user, u_debugreg);
    int status;

    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
    CHECK(!ptrace(PTRACE_POKEUSER, child, registers, &watched));
    CHECK(!ptrace(PTRACE_POKEUSER, child, registers + 7 * sizeof(long), DR7_WRITE_8));
    CHECK(!ptrace(PTRACE_CONT, child, 0, 0));
    while (waitpid(child, &status, 0) == child && WIFSTOPPED(status))
        ptrace(PTRACE_CONT, child, 0, WSTOPSIG(status));
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

/* The test goes on in a child that is traced, with a watchpoint on a variable that nobody touches.
 */
static void be_watched(void)
{
    pid_t child = fork();

    CHECK(child >= 0);
    if (child > 0)
        watch(child);
    CHECK(!ptrace(PTRACE_TRACEME, 0, 0, 0));
    raise(SIGSTOP);
}

static void add_to_table(uint64_t ops)
{
    for (uint64_t i = 0; i < ops; i++)
        table[i % 512] += i;
}

const struct test os_tests[] = {
    {"syscall", "os", "getppid", NULL, null_syscall, NULL, 0},
    {"clock-vdso", "os", "clock_gettime", NULL, clock_vdso, NULL, 0},
    {"clock-syscall", "os", "clock_gettime", NULL, clock_syscall, NULL, 0},
    {"pipes", "os", "round trip", NULL, pipes, NULL, 0},
    {"context-switch", "os", "sched_yield", NULL, context_switch, NULL, 0},
    {"fork", "os", "fork, exit, wait", NULL, fork_wait, NULL, 0},
    {"exec", "os", "fork, exec, exit, wait", NULL, fork_exec, NULL, 0},
    {"threads", "os", "create, join", NULL, threads, NULL, 0},
    {"mutex", "os", "lock, unlock", NULL, mutex, NULL, 0},
    {"mmap", "os", "16 pages, touched", NULL, map_and_touch, NULL, 0},
    {"page-fault", "os", "first touch of a page", NULL, page_fault, NULL, 0},
    {"mprotect", "os", "away and back", NULL, protect, NULL, 0},
    {"fault-signals", "os", "SIGSEGV, handled", NULL, fault_signals, NULL, 0},
    {"signals", "os", "raise, handled", NULL, own_signals, NULL, 0},
    {"files", "os", "16 KiB written, read", name_file, files, NULL, 0},
    {"stat", "os", "stat", NULL, look_up, NULL, 0},
    {"copy-to-user", "os", "64 KiB read", make_file, copy_to_user, NULL, 0},
    {"copy-from-user", "os", "64 KiB written", make_file, copy_from_user, NULL, 0},
    {"watchpoint", "os", "addition, one armed", be_watched, add_to_table, NULL, 0},
    {0},
};

/* Only of interest beside the counts of exits. */
const struct test kernel_tests[] = {
    {"timer-tick", "kernel", "tick", NULL, NULL, timer_tick, 0},
    {0},
};
