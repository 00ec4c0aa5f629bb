/*
 * What all engines share: the names of causes.
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
    [CAUSE_TLB_MISS] = "tlb-miss",
    [CAUSE_LOOKUP] = "lookup",
    [CAUSE_INSTRUCTION] = "instruction",
    [CAUSE_BLOCK] = "block",
    [CAUSE_TRANSLATION] = "translation",
};

const char *const forget_cause_name[FORGET_COUNT] = {
    [FORGET_WRITTEN] = "code-written",    [FORGET_MAPPING] = "mapping-changed",
    [FORGET_BLOCKS_FULL] = "blocks-full", [FORGET_CODE_FULL] = "translations-full",
    [FORGET_THUNKS_FULL] = "thunks-full",
};
