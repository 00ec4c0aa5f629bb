/*
 * What operations have in common: names among their arguments, and room for their answers.
 */
#include "share/operation.h"

#include "base/util.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- Arguments ---- */

const char *share_op_text(const struct share_op *op, size_t offset, size_t *next)
{
    const uint8_t *text = op->argument + offset;
    const uint8_t *end = offset < op->size ? memchr(text, 0, op->size - offset) : NULL;

    if (!end)
        return NULL;
    *next = (size_t)(end - op->argument) + 1;
    return (const char *)text;
}

int share_op_name(const struct share_op *op, size_t offset, const char **name, size_t *next)
{
    size_t behind;

    *name = share_op_text(op, offset, &behind);
    if (!*name || !**name || strchr(*name, '/') || !strcmp(*name, ".") || !strcmp(*name, ".."))
        return -EINVAL;
    if (next)
        *next = behind;
    return strlen(*name) > NAME_MAX ? -ENAMETOOLONG : 0;
}

/* ---- Changes ---- */

void share_op_change(struct share_op *op, enum share_change_kind kind, uint32_t count, uint64_t a,
                     uint64_t b)
{
    const struct share_change change = {.kind = kind, .count = count, .a = a, .b = b};

    share_changes_add(op->request->changes, &change, NULL);
}

/* ---- Answers ---- */

int share_op_answer(struct share_op *op, const void *data, size_t size)
{
    if (op->answer != op->small)
        free(op->answer);
    op->answer = memcpy(op->small, data, size);
    op->answered = size;
    return 0;
}

int share_op_reserve(struct share_op *op, size_t size)
{
    if (size <= SHARE_ANSWER_SMALL)
        return 0;
    op->answer = malloc(MIN(size, SHARE_ANSWER_MOST));
    if (op->answer)
        return 0;
    op->answer = op->small;
    return -ENOMEM;
}
