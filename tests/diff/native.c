/*
 * Runs a case on the host's own processor.
 *
 * Signals do all the work: an undefined instruction raises SIGILL, whose handler replaces the
 * interrupted state in the signal frame (registers, flags, CS for 32-bit code, the XSAVE image) by
 * the case's, so that sigreturn(2) starts the case; the exception that ends it raises the next
 * signal, whose frame holds the final state and, in the kernel's words, what the processor
 * reported: vector, error code and CR2.
 */
#include "diff.h"

#include <asm/hwcap2.h>
#include <asm/ldt.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

/* What the handler's outer part exchanges; native-entry.S knows the offsets. */
struct native_swap {
    uint64_t host_fs, host_gs; /* 0, 8 */
    uint64_t fs_base, gs_base; /* 16, 24: of the interrupted code */
    uint16_t ds, es, fs, gs;   /* 32.. */
};
extern struct native_swap native_swap;
void native_entry(int signo, siginfo_t *info, void *context);
void native_signal(int signo, siginfo_t *info, void *context);

enum phase { PHASE_IDLE, PHASE_ENTER, PHASE_RUNNING };

#define SIGNAL_STACK (256 * 1024)
#define HOST_FRAME   16384 /* room for the host's XSAVE image, AVX-512 and more */

#define NATIVE_SIGNALS 6
static const int native_signals[NATIVE_SIGNALS] = {SIGSEGV, SIGBUS,  SIGILL,
                                                   SIGFPE,  SIGTRAP, SIGVTALRM};

struct native {
    uint8_t *window; /* the memory, always writable */
    void *signal_stack;
    void (*tick)(void *);
    void *tick_opaque;

    volatile enum phase phase;
    const struct diff_case *now;
    struct diff_result *result;
    bool seen; /* the watchdog has seen this case before */
    gregset_t host_gregs;
    size_t host_fpu_size;
    struct native_swap host_swap;
    uint8_t host_fpu[HOST_FRAME];
    struct sigaction previous[NATIVE_SIGNALS];
};

/* A signal handler has no argument of ours: the one place where a global cannot be avoided. */
static struct native *active;

/* The frame's floating-point part is an XSAVE image in standard form; where the software-reserved
 * bytes of the legacy region begin, the kernel says how long it is. */
#define FRAME_SW_RESERVED 464
#define FRAME_MAGIC       0x46505853u

static const enum x86_gpr gpr_order[] = {
    [REG_R8] = X86_R8,   [REG_R9] = X86_R9,   [REG_R10] = X86_R10, [REG_R11] = X86_R11,
    [REG_R12] = X86_R12, [REG_R13] = X86_R13, [REG_R14] = X86_R14, [REG_R15] = X86_R15,
    [REG_RDI] = X86_RDI, [REG_RSI] = X86_RSI, [REG_RBP] = X86_RBP, [REG_RBX] = X86_RBX,
    [REG_RDX] = X86_RDX, [REG_RAX] = X86_RAX, [REG_RCX] = X86_RCX, [REG_RSP] = X86_RSP,
};

static void start_case(struct native *n, ucontext_t *uc)
{
    const struct diff_state *in = &n->now->in;
    greg_t *g = uc->uc_mcontext.gregs;
    uint8_t *fpu = (uint8_t *)uc->uc_mcontext.fpregs;
    uint32_t sw[2];

    memcpy(sw, fpu + FRAME_SW_RESERVED, sizeof(sw));
    if (sw[0] != FRAME_MAGIC || sw[1] > HOST_FRAME) {
        static const char text[] = "diff: the kernel's signal frame has no usable XSAVE image\n";
        ssize_t ignored = write(STDERR_FILENO, text, sizeof(text) - 1);

        (void)ignored;
        _exit(2);
    }
    memcpy(n->host_gregs, g, sizeof(n->host_gregs));
    n->host_fpu_size = sw[1];
    memcpy(n->host_fpu, fpu, sw[1]);
    n->host_swap = native_swap;

    for (unsigned i = 0; i < X86_GPRS; i++)
        g[i] = (greg_t)in->gpr[gpr_order[i]];
    g[REG_RIP] = (greg_t)in->rip;
    g[REG_EFL] = (greg_t)in->rflags;
    g[REG_CSGSFS] = (greg_t)((uint64_t)in->selector[X86_SS] << 48 | in->selector[X86_CS]);
    memcpy(fpu, in->xsave, FRAME_SW_RESERVED);
    memcpy(fpu + X86_XSAVE_HEADER, in->xsave + X86_XSAVE_HEADER, X86_XSAVE_SIZE - X86_XSAVE_HEADER);
    native_swap.fs_base = in->fs_base;
    native_swap.gs_base = in->gs_base;
    native_swap.ds = in->selector[X86_DS];
    native_swap.es = in->selector[X86_ES];
    native_swap.fs = in->selector[X86_FS];
    native_swap.gs = in->selector[X86_GS];
    n->seen = false;
    n->phase = PHASE_RUNNING;
}

static void end_case(struct native *n, ucontext_t *uc, bool timeout)
{
    struct diff_result *r = n->result;
    struct diff_state *out = &r->out;
    greg_t *g = uc->uc_mcontext.gregs;
    uint8_t *fpu = (uint8_t *)uc->uc_mcontext.fpregs;

    r->timeout = timeout;
    r->vector = (int)g[REG_TRAPNO];
    r->error = (uint64_t)g[REG_ERR];
    r->cr2 = r->vector == X86_PF ? (uint64_t)g[REG_CR2] : 0;
    for (unsigned i = 0; i < X86_GPRS; i++)
        out->gpr[gpr_order[i]] = (uint64_t)g[i];
    out->rip = (uint64_t)g[REG_RIP];
    out->rflags = (uint64_t)g[REG_EFL];
    out->selector[X86_CS] = (uint16_t)g[REG_CSGSFS];
    out->selector[X86_SS] = (uint16_t)((uint64_t)g[REG_CSGSFS] >> 48);
    out->selector[X86_DS] = native_swap.ds;
    out->selector[X86_ES] = native_swap.es;
    out->selector[X86_FS] = native_swap.fs;
    out->selector[X86_GS] = native_swap.gs;
    out->fs_base = native_swap.fs_base;
    out->gs_base = native_swap.gs_base;
    memcpy(out->xsave, fpu, X86_XSAVE_SIZE);

    memcpy(g, n->host_gregs, sizeof(n->host_gregs));
    g[REG_RIP] += 2; /* past the UD2 */
    memcpy(fpu, n->host_fpu, n->host_fpu_size);
    native_swap = n->host_swap;
    n->phase = PHASE_IDLE;
}

/* To who handled SIGNO before: an engine, perhaps. Otherwise the test went wrong: die of it. */
static void pass_on(struct native *n, int signo, siginfo_t *info, void *context)
{
    for (unsigned i = 0; i < NATIVE_SIGNALS; i++)
        if (native_signals[i] == signo && n->previous[i].sa_flags & SA_SIGINFO) {
            n->previous[i].sa_sigaction(signo, info, context);
            return;
        }
    signal(signo, SIG_DFL);
}

void native_signal(int signo, siginfo_t *info, void *context)
{
    struct native *n = active;

    if (signo == SIGVTALRM) {
        if (n->phase == PHASE_RUNNING && n->seen)
            end_case(n, context, true);
        else if (n->phase == PHASE_RUNNING)
            n->seen = true;
        else if (n->tick)
            n->tick(n->tick_opaque);
        return;
    }
    if (n->phase == PHASE_RUNNING) {
        end_case(n, context, false);
    } else if (n->phase == PHASE_ENTER && signo == SIGILL) {
        start_case(n, context);
    } else {
        pass_on(n, signo, info, context);
    }
}

void native_run(void *opaque, const struct diff_case *c, struct diff_result *r)
{
    struct native *n = opaque;

    for (unsigned i = 0; i < DIFF_PAGES; i++)
        if (diff_page_access(i))
            memcpy(n->window + i * 4096, c->image + i * 4096, 4096);
    n->now = c;
    n->result = r;
    n->phase = PHASE_ENTER;
    __asm__ volatile("ud2" ::: "memory");
    for (unsigned i = 0; i < DIFF_PAGES; i++)
        if (diff_page_access(i))
            memcpy(r->image + i * 4096, n->window + i * 4096, 4096);
    diff_normalize_xsave(r->out.xsave);
}

static bool map_window(int fd, uint64_t base)
{
    for (unsigned i = 0; i < DIFF_PAGES; i++) {
        unsigned access = diff_page_access(i);
        int prot = (access & DIFF_R ? PROT_READ : 0) | (access & DIFF_W ? PROT_WRITE : 0) |
                   (access & DIFF_X ? PROT_EXEC : 0);
        void *want = (void *)(uintptr_t)(base + i * 4096);

        if (mmap(want, 4096, prot, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, i * 4096) !=
            want)
            return false;
    }
    return true;
}

static bool make_ldt(void)
{
    for (unsigned i = 0; i < DIFF_LDT; i++) {
        const struct diff_segment *s = &diff_ldt[i];
        bool pages = s->attr & X86_ATTR_G;
        struct user_desc desc = {.entry_number = i,
                                 .base_addr = s->base,
                                 .limit = pages ? s->limit >> 12 : s->limit,
                                 .limit_in_pages = pages,
                                 .contents = s->attr >> 2 & 3,
                                 .read_exec_only = !(s->attr & X86_ATTR_WRITE),
                                 .seg_32bit = (s->attr & X86_ATTR_DB) != 0,
                                 .seg_not_present = !(s->attr & X86_ATTR_P)};

        if (syscall(SYS_modify_ldt, 0x11, &desc, sizeof(desc)))
            return false;
    }
    return true;
}

struct native *native_create(void (*tick)(void *), void *tick_opaque)
{
    struct native *n = aligned_alloc(64, (sizeof(*n) + 63) & ~(size_t)63);
    int fd = memfd_create("diff", MFD_CLOEXEC);
    struct sigaction action = {.sa_sigaction = native_entry,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    struct itimerval interval = {{0, 50000}, {0, 50000}};
    stack_t stack;

    if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE)) {
        errno = ENOSYS; /* native-entry.S needs it */
        goto fail;
    }
    if (!n || fd < 0 || ftruncate(fd, DIFF_SIZE))
        goto fail;
    memset(n, 0, sizeof(*n));
    n->tick = tick;
    n->tick_opaque = tick_opaque;
    n->signal_stack = malloc(SIGNAL_STACK);
    n->window = mmap(NULL, DIFF_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (!n->signal_stack || n->window == MAP_FAILED || !map_window(fd, DIFF_LOW) ||
        !map_window(fd, DIFF_HIGH) || !make_ldt())
        goto fail;
    close(fd);
    __asm__ volatile("rdfsbase %0\n\trdgsbase %1"
                     : "=r"(native_swap.host_fs), "=r"(native_swap.host_gs));
    active = n;
    stack = (stack_t){.ss_sp = n->signal_stack, .ss_size = SIGNAL_STACK};
    sigaltstack(&stack, NULL);
    sigfillset(&action.sa_mask);
    for (unsigned i = 0; i < NATIVE_SIGNALS; i++)
        sigaction(native_signals[i], &action, &n->previous[i]);
    setitimer(ITIMER_VIRTUAL, &interval, NULL);
    return n;
fail:
    perror("diff: this host cannot run cases natively");
    if (fd >= 0)
        close(fd);
    free(n);
    return NULL;
}

void native_destroy(struct native *n)
{
    struct itimerval off = {{0, 0}, {0, 0}};
    stack_t stack = {.ss_flags = SS_DISABLE};

    if (!n)
        return;
    setitimer(ITIMER_VIRTUAL, &off, NULL);
    for (unsigned i = 0; i < NATIVE_SIGNALS; i++)
        sigaction(native_signals[i], &n->previous[i], NULL);
    sigaltstack(&stack, NULL);
    munmap((void *)(uintptr_t)DIFF_LOW, DIFF_SIZE);
    munmap((void *)(uintptr_t)DIFF_HIGH, DIFF_SIZE);
    munmap(n->window, DIFF_SIZE);
    active = NULL;
    free(n->signal_stack);
    free(n);
}
