/*
 * A machine with nothing but memory and an interpreter, for tests of single instructions: RAM,
 * descriptor tables, page tables, and handlers that halt.
 *
 * A program ends with HLT; so does every exception, at a handler of its own.
 */
#ifndef DOPPEL_TESTS_UNIT_INTERP_RIG_H
#define DOPPEL_TESTS_UNIT_INTERP_RIG_H

#include "cpu/engines.h"

/* What executes: the interpreter, or it with the translator in front. */
#ifndef RIG_ENGINE
#define RIG_ENGINE interp_engine
#endif

#define RIG_CPUS 2
#define RIG_RAM  0x100000ULL

/* Where things are, guest physical; all else is free. */
#define RIG_TABLES   0x1000ULL /* page tables, up to 0x9000 */
#define RIG_IDT64    0x9000ULL
#define RIG_IDT32    0xA000ULL
#define RIG_HANDLERS 0xB000ULL /* byte V: HLT, for vector V */
#define RIG_GDT      0xC000ULL
#define RIG_TSS64    0xD000ULL
#define RIG_TSS32    0xD800ULL
#define RIG_IVT      0x0ULL
#define RIG_STACK    0xF000ULL /* top of the stack for handlers */
#define RIG_FREE     0x10000ULL

/* Selectors. */
enum {
    RIG_CODE64 = 0x08,
    RIG_DATA = 0x10,
    RIG_CODE32 = 0x18,
    RIG_CODE16 = 0x20,
    RIG_DATA16 = 0x28,
    RIG_USER_CODE32 = 0x33,
    RIG_USER_DATA = 0x3B,
    RIG_USER_CODE64 = 0x43,
    RIG_TSS = 0x48, /* 16 bytes; in 32-bit tests the first 8 */
};

/* Of the local APIC there is only what the processor asks and tells it. */
struct rig_apic {
    uint32_t msr; /* the last one written, and its value */
    uint64_t msr_value;
    int vector; /* pending, or -1 */
};

struct rig {
    struct machine machine;
    struct loop *loop;
    struct engine *engine;
    struct rig_cpu {
        struct cpu_port port;
        struct rig_apic apic;
        struct vcpu *vcpu;
    } cpu[RIG_CPUS];
    uint64_t next_table;
};

/* What the program ends with if the host cannot run the engine, as Meson understands it. */
#define RIG_SKIPPED 77

/* Whether it is the host's KVM that executes; and whether that is one that emulates, which leaves
 * out much of what a processor does. */
bool rig_is_kvm(void);
bool rig_is_emulated(void);

/* NULL on failure, which has been reported on stderr. ARENA: bytes for decoded blocks, 0: as
 * always. */
struct rig *rig_create(unsigned cpus, size_t arena);
void rig_destroy(struct rig *rig);

/* Back to the tables above and zeroes elsewhere. */
void rig_clear(struct rig *rig);

/* Complete states to start from, at RIP, with the stack below RIG_STACK: flat 32-bit code without
 * paging; 64-bit code with RIG_TABLES, which map RIG_RAM one to one with 4 KiB pages; real mode. */
void rig_state_32(struct rig *rig, struct x86_cpu *cpu, uint64_t rip);
void rig_state_64(struct rig *rig, struct x86_cpu *cpu, uint64_t rip);
void rig_state_real(struct rig *rig, struct x86_cpu *cpu, uint16_t ip);
/* The segment that SELECTOR names. */
struct x86_seg rig_segment(uint16_t selector);

/* Maps a page for 64-bit code; FLAGS are those of the page-table entry. */
void rig_map(struct rig *rig, uint64_t va, uint64_t gpa, uint64_t flags);
void rig_put64(struct rig *rig, uint64_t gpa, uint64_t value);

/* A statistic of vCPU 0's: see struct engine_counter. All 0 if there is none of that name. */
struct engine_counter rig_counter(const struct rig *rig, const char *group, const char *name);
uint64_t rig_count(const struct rig *rig, const char *group, const char *name);
uint64_t rig_exits(const struct rig *rig, enum exit_cause cause);

#endif
