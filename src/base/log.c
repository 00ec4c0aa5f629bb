/*
 * The log.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void log_line(const struct log *log, enum log_level level, const char *format, ...)
{
    char text[LOG_TEXT];
    va_list ap;

    if (!log || !log->line || level > log->most)
        return;
    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    log_clean(text);
    log->line(log->opaque, level, text);
}

void log_tell(const struct log *log, enum log_level level, const char *format, ...)
{
    char text[LOG_TEXT];
    va_list ap;

    if (!log)
        return;
    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    log_line(log, level, "%s", text);
    log_clean(text);
    if (log->tell)
        log->tell(log->opaque, level, text);
}

const char *log_level_name(enum log_level level)
{
    switch (level) {
    case LOG_LEVEL_ERROR: return "error";
    case LOG_LEVEL_WARNING: return "warning";
    case LOG_LEVEL_INFO: return "info";
    case LOG_LEVEL_DEBUG: return "debug";
    }
    return "?";
}

/* The length of the character at AT if it is well-formed UTF-8 of several bytes and no control
 * character (U+0080 to U+009F), else 0. */
static unsigned wide_character(const unsigned char *at)
{
    unsigned length = *at >= 0xF0 ? 4 : *at >= 0xE0 ? 3 : 2;

    if (*at < 0xC2 || *at > 0xF4 || (*at == 0xC2 && at[1] < 0xA0))
        return 0;
    for (unsigned i = 1; i < length; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

void log_clean(char *text)
{
    unsigned char *at = (unsigned char *)text;

    while (*at) {
        unsigned wide = wide_character(at);

        if (*at < ' ' || *at == 0x7F || (*at >= 0x80 && !wide))
            *at = '?';
        at += wide ? wide : 1;
    }
}
