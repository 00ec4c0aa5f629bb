/*
 * The kernel proper inside a bzImage: unpacked on the host and loaded as the kernel's own
 * decompressor would.
 */
#ifndef DOPPEL_VM_BOOT_VMLINUX_H
#define DOPPEL_VM_BOOT_VMLINUX_H

#include "vm/boot/loader.h"

struct vmlinux;

/* Unpacks PAYLOAD. LINK_BASE is where the kernel was linked to run (the header's pref_address) and
 * INIT_SIZE the memory it needs from there. Returns 0 with *RESULT NULL when the payload is of a
 * kind that is not understood: the kernel's own decompressor can do it. */
int vmlinux_unpack(const uint8_t *payload, size_t size, const char *name, uint64_t link_base,
                   uint64_t init_size, struct vmlinux **result, struct error *err);
void vmlinux_free(struct vmlinux *vmlinux);

bool vmlinux_is64(const struct vmlinux *vmlinux);
bool vmlinux_can_move(const struct vmlinux *vmlinux); /* it has a relocation table */

/* Loads it at guest physical address BASE, relocated to run DELTA bytes above where it was linked.
 * The caller owns [BASE, BASE + init_size). Returns the entry point's physical address or
 * BOOT_NOWHERE. */
uint64_t vmlinux_load(const struct vmlinux *vmlinux, struct mem *mem, uint64_t base, uint64_t delta,
                      struct error *err);

#endif
