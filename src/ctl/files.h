/*
 * The files that a machine boots from. They are unpacked into guest memory at power-on and again at
 * each reset, and what that takes is given back each time: it is larger than all else that belongs
 * to a machine beside its RAM.
 */
#ifndef DOPPEL_CTL_FILES_H
#define DOPPEL_CTL_FILES_H

#include "base/error.h"
#include "ctl/doppel.h"
#include "mem/mem.h"
#include "x86/cpu.h"

struct boot_files;

/* Opens what CONFIG names, which stays open: a file that is replaced or removed later is read on.
 */
struct boot_files *boot_files_open(const struct doppel_config *config, struct error *err);
void boot_files_close(struct boot_files *files);

/* For struct vm_config: loads them into MEM and sets CPU to where they begin. */
int boot_files_load(void *files, struct mem *mem, struct x86_cpu *cpu, struct error *err);
/* Loads no longer tell of their progress. */
void boot_files_quiet(struct boot_files *files);

#endif
