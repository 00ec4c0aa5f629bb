/*
 * Shared by the files whose handlers compute with the host's own instructions.
 */
#ifndef DOPPEL_CPU_INTERP_COMPUTE_H
#define DOPPEL_CPU_INTERP_COMPUTE_H

/* After the instruction that computes: its status flags to AX, as vcpu.cc keeps them. */
#define FLAGS_OUT "\n\tlahf\n\tseto %%al"

/* Rows of handler tables: register and memory form, of one size and of all. */
#define FORMS2(NAME, B)      {NAME##B##_r, NAME##B##_m},
#define FORMS2_BY_SIZE(NAME) FORMS2(NAME, 8) FORMS2(NAME, 16) FORMS2(NAME, 32) FORMS2(NAME, 64)

#endif
