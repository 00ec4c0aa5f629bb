/*
 * Errors: a call that fails returns a negative errno (or NULL) and fills a struct error that says
 * what failed, on which file or address, and what to do about it.
 */
#ifndef DOPPEL_BASE_ERROR_H
#define DOPPEL_BASE_ERROR_H

struct error {
    int code;       /* positive errno, 0 if none */
    char text[480]; /* one line, without a newline */
};

/* Fills ERR (which may be NULL) and returns -CODE, so that `return error_set(...)` reads well. */
int error_set(struct error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
