/*
 * What an engine tells of a guest's steps, in words.
 */
#include "ctl/trace.h"

#include "base/util.h"
#include "cpu/mmu.h"

#include <stdio.h>
#include <string.h>

typedef unsigned long long ull;

/* As Linux numbers them; a guest that is not Linux has its own. */
static const char *const syscall_name[] = {
#include "ctl/syscalls.inc"
};

static const char *name_of_syscall(uint64_t number)
{
    return number < ARRAY_SIZE(syscall_name) && syscall_name[number] ? syscall_name[number] : "?";
}

/* The registers that a running kernel uses. */
static const char *name_of_msr(uint64_t msr)
{
    switch (msr) {
    case 0x48: return "SPEC_CTRL";
    case 0x6E0: return "TSC_DEADLINE";
    case 0x808: return "X2APIC_TPR";
    case 0x80B: return "X2APIC_EOI";
    case 0x830: return "X2APIC_ICR";
    case 0x832: return "X2APIC_LVT_TIMER";
    case 0x838: return "X2APIC_INIT_COUNT";
    case 0xC0000100: return "FS_BASE";
    case 0xC0000101: return "GS_BASE";
    case 0xC0000102: return "KERNEL_GS_BASE";
    default: return NULL;
    }
}

static const char *name_of_vector(uint64_t vector)
{
    static const char *const name[32] = {
        [X86_DE] = "#DE", [X86_DB] = "#DB", [X86_NMI] = "NMI", [X86_BP] = "#BP",
        [X86_OF] = "#OF", [X86_BR] = "#BR", [X86_UD] = "#UD",  [X86_NM] = "#NM",
        [X86_DF] = "#DF", [X86_TS] = "#TS", [X86_NP] = "#NP",  [X86_SS_FAULT] = "#SS",
        [X86_GP] = "#GP", [X86_PF] = "#PF", [X86_MF] = "#MF",  [X86_AC] = "#AC",
        [X86_XM] = "#XM",
    };

    return vector < ARRAY_SIZE(name) && name[vector] ? name[vector] : "interrupt";
}

static const char *verb_of_fault(uint64_t error)
{
    return error & X86_PF_I ? "executing" : error & X86_PF_W ? "writing" : "reading";
}

static const char *verb_of_access(uint64_t access)
{
    switch (access & ~(uint64_t)TRACE_FAULT) {
    case MMU_WRITE: return "writing";
    case MMU_EXEC: return "executing";
    default: return "reading";
    }
}

static void describe_syscall(const struct trace_event *e, char *text)
{
    const uint64_t *reg = e->x->reg;

    if (!e->b)
        snprintf(text, TRACE_TEXT, "system call %llu", (ull)e->a);
    else
        snprintf(text, TRACE_TEXT, "syscall %llu %s(%llx, %llx, %llx)", (ull)e->a,
                 name_of_syscall(e->a), (ull)reg[X86_RDI], (ull)reg[X86_RSI], (ull)reg[X86_RDX]);
}

static void describe_msr(const struct trace_event *e, char *text)
{
    uint64_t value = e->x->reg[X86_RDX] << 32 | (uint32_t)e->x->reg[X86_RAX];
    const char *name = name_of_msr(e->a);
    char number[24];

    snprintf(number, sizeof(number), "%llx", (ull)e->a);
    if (e->b & TRACE_WRITE)
        snprintf(text, TRACE_TEXT, "wrmsr %s, %llx", name ? name : number, (ull)value);
    else
        snprintf(text, TRACE_TEXT, "rdmsr %s", name ? name : number);
}

static void describe_guest(const struct trace_event *e, char *text)
{
    ull a = e->a, b = e->b, rip = e->rip;

    switch (e->cause) {
    case CAUSE_SYSCALL: describe_syscall(e, text); return;
    case CAUSE_MSR: describe_msr(e, text); return;
    case CAUSE_PORT:
        snprintf(text, TRACE_TEXT, b & TRACE_WRITE ? "out to port %llx" : "in from port %llx", a);
        return;
    case CAUSE_MMIO:
        snprintf(text, TRACE_TEXT, "%s a device at %llx", b & TRACE_WRITE ? "writes" : "reads", a);
        return;
    case CAUSE_CPUID: snprintf(text, TRACE_TEXT, "cpuid %llx", a); return;
    case CAUSE_HALT: snprintf(text, TRACE_TEXT, "hlt"); return;
    case CAUSE_INTERRUPT: snprintf(text, TRACE_TEXT, "is interrupted at %llx", rip); return;
    case CAUSE_EXCEPTION:
        if (b & TRACE_SOFTWARE)
            snprintf(text, TRACE_TEXT, "int %llx at %llx", a, rip);
        else
            snprintf(text, TRACE_TEXT, "exception %s at %llx", name_of_vector(e->a), rip);
        return;
    case CAUSE_PAGE_FAULT:
        snprintf(text, TRACE_TEXT, "page fault %s %llx", verb_of_fault(e->b), a);
        return;
    case CAUSE_CONTROL_REGISTER: snprintf(text, TRACE_TEXT, "mov cr%llu, %llx", a, b); return;
    case CAUSE_TLB_FLUSH:
        if (a)
            snprintf(text, TRACE_TEXT, "invalidates the TLB for %llx", a);
        else
            snprintf(text, TRACE_TEXT, "invalidates the TLB");
        return;
    default: snprintf(text, TRACE_TEXT, "%s", exit_cause_name[e->cause]); return;
    }
}

static void describe_work(const struct trace_event *e, char *text)
{
    ull a = e->a, b = e->b;

    switch (e->cause) {
    case CAUSE_SYSCALL: snprintf(text, TRACE_TEXT, "goes to the kernel's entry"); return;
    case CAUSE_PAGE_FAULT: snprintf(text, TRACE_TEXT, "delivers #PF, error %llx", b); return;
    case CAUSE_EXCEPTION:
    case CAUSE_INTERRUPT:
        snprintf(text, TRACE_TEXT, "delivers vector %llu, %s", a, name_of_vector(e->a));
        return;
    case CAUSE_TLB_MISS:
        snprintf(text, TRACE_TEXT,
                 b & TRACE_FAULT ? "finds no page for %s %llx" : "fills the TLB for %s %llx",
                 verb_of_access(b), a);
        return;
    case CAUSE_INSTRUCTION: snprintf(text, TRACE_TEXT, "interprets %s", e->name); return;
    case CAUSE_TRANSLATION:
        snprintf(text, TRACE_TEXT, "translates %llu instructions to %llu bytes", a, b);
        return;
    case CAUSE_HALT: snprintf(text, TRACE_TEXT, "sleeps until something happens"); return;
    default: snprintf(text, TRACE_TEXT, "emulates it"); return;
    }
}

static void append_duration(char *text, uint64_t ns)
{
    size_t length = strlen(text);

    snprintf(text + length, TRACE_TEXT - length, " (%.2f us)", (double)ns / 1e3);
}

static void describe_return(const struct trace_event *e, char *text)
{
    const char *name = e->name;
    int64_t rax = (int64_t)e->x->reg[X86_RAX];

    if (strncmp(name, "sys", 3) != 0) /* neither SYSRET nor SYSEXIT */
        snprintf(text, TRACE_TEXT, "%s", name);
    else if (rax < 0 && rax > -4096) /* Linux's way to return an error */
        snprintf(text, TRACE_TEXT, "%s, rax = -%llx", name, (ull)-rax);
    else
        snprintf(text, TRACE_TEXT, "%s, rax = %llx", name, (ull)rax);
}

enum doppel_actor trace_describe(const struct trace_event *e, char *text)
{
    enum doppel_actor guest = e->level == 3 ? DOPPEL_PROCESS : DOPPEL_KERNEL;

    switch (e->kind) {
    case TRACE_GUEST: describe_guest(e, text); return guest;
    case TRACE_ENTRY: snprintf(text, TRACE_TEXT, "entry at %llx", (ull)e->rip); return guest;
    case TRACE_RETURN: describe_return(e, text); return guest;
    case TRACE_RESUME: snprintf(text, TRACE_TEXT, "goes on at %llx", (ull)e->rip); return guest;
    case TRACE_MONITOR: break;
    }
    describe_work(e, text);
    append_duration(text, e->ns);
    return DOPPEL_MONITOR;
}
