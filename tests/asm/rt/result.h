/*
 * Between the runtime's parts: a result line that its caller may add to.
 */
#ifndef RT_RESULT_H
#define RT_RESULT_H

#include <stdarg.h>
#include <stdbool.h>

/* Prints a result line named by FORMAT. When it failed, the line is left open: the caller says what
 * was wrong and ends it. */
bool rt_vcheck(bool ok, const char *format, va_list args);

#endif
