/*
 * What all engines share: the names of exit causes.
 */
#include "cpu/engine.h"

const char *const exit_cause_name[CAUSE_COUNT] = {
    [CAUSE_PORT] = "port",
    [CAUSE_MMIO] = "mmio",
    [CAUSE_MSR] = "msr",
    [CAUSE_CPUID] = "cpuid",
    [CAUSE_HALT] = "halt",
    [CAUSE_INTERRUPT] = "interrupt",
    [CAUSE_EXCEPTION] = "exception",
    [CAUSE_PAGE_FAULT] = "page-fault",
    [CAUSE_CONTROL_REGISTER] = "control-register",
    [CAUSE_TLB_FLUSH] = "tlb-flush",
    [CAUSE_SYSCALL] = "syscall",
};
