/*
 * Save and restore as one visitor: a device walks its fields once, and the same walk writes them
 * or reads them back, so the two cannot drift apart.
 *
 * Format: a section is its name, a version and its fields; each field is its size and its bytes,
 * little-endian. A restore that meets another name, a newer version or another size fails; the
 * failure sticks (state_error) and every later field is left as it was.
 */
#ifndef DOPPEL_BASE_STATE_H
#define DOPPEL_BASE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct state;

struct state *state_create_save(void);                          /* NULL: out of memory */
struct state *state_create_load(const void *data, size_t size); /* copies nothing; DATA must stay */
void state_free(struct state *s);

/* What has been saved so far; valid until the next call on S. */
const void *state_data(const struct state *s, size_t *size);

bool state_saving(const struct state *s);
int state_error(const struct state *s); /* 0 or a negative errno */

/* Opens a section. Returns its version: VERSION when saving, what the data holds when restoring
 * (at most VERSION), 0 after an error. */
uint32_t state_section(struct state *s, const char *name, uint32_t version);

void state_bytes(struct state *s, void *data, size_t size);
void state_bool(struct state *s, bool *value); /* restores as exactly 0 or 1 */

/* Any integer or enum lvalue. */
#define state_field(s, lvalue) state_bytes((s), &(lvalue), sizeof(lvalue))

#endif
