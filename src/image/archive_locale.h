/*
 * libarchive translates names to the locale's characters; files have them in UTF-8, or in none at
 * all.
 */
#ifndef DOPPEL_IMAGE_ARCHIVE_LOCALE_H
#define DOPPEL_IMAGE_ARCHIVE_LOCALE_H

#include <locale.h>

struct archive_locale {
    locale_t utf8, before;
};

/* For the calling thread, between the two. */
static inline void archive_locale_begin(struct archive_locale *locale)
{
    locale->utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", NULL);
    locale->before = locale->utf8 ? uselocale(locale->utf8) : NULL;
}

static inline void archive_locale_end(const struct archive_locale *locale)
{
    if (!locale->utf8)
        return;
    uselocale(locale->before);
    freelocale(locale->utf8);
}

#endif
