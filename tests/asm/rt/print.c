/*
 * What a guest prints, and its result lines. See rt.h.
 */
#include "rt.h"
#include "result.h"

static unsigned done, failed;
static const char *tcg_difference;

static void put(char c)
{
    enum { CONSOLE = 0xE9, COM1 = 0x3F8, LSR_EMPTY = 0x20 };
    outb(CONSOLE, (u8)c);
    for (unsigned spin = 0; spin < 1000 && !(inb(COM1 + 5) & LSR_EMPTY); spin++)
        cpu_pause();
    outb(COM1, (u8)c);
}

static void put_number(u64 v, bool hex)
{
    char digits[24];
    unsigned n = 0;
    if (hex) {
        do
            digits[n++] = "0123456789abcdef"[v & 15];
        while (v >>= 4);
    } else {
        u32 low = (u32)v; /* decimal is for counts; 64-bit division is not in every guest */
        do
            digits[n++] = (char)('0' + low % 10);
        while (low /= 10);
    }
    while (n)
        put(digits[--n]);
}

static void vprint(const char *p, va_list args)
{
    for (; *p; p++) {
        if (*p != '%') {
            put(*p);
            continue;
        }
        unsigned longs = 0;
        while (*++p == 'l')
            longs++;
        if (*p == 's') {
            for (const char *s = va_arg(args, const char *); *s; s++)
                put(*s);
            continue;
        }
        if (*p == 'c') {
            put((char)va_arg(args, int));
            continue;
        }
        u64 v = longs > 1 ? va_arg(args, u64) : longs ? va_arg(args, word) : va_arg(args, u32);
        if (*p == 'd' && (int)v < 0) {
            put('-');
            v = -(u64)(int)v;
        }
        put_number(v, *p == 'x');
    }
}

void print(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprint(format, args);
    va_end(args);
}

void tcg_differs(const char *how)
{
    tcg_difference = how;
}

/* A passing line is whole; after a failing one the caller may say more and ends it. */
bool rt_vcheck(bool ok, const char *format, va_list args)
{
    const char *excuse = !ok && tcg_difference && on_tcg() ? tcg_difference : NULL;
    tcg_difference = NULL;
    print("%s %u - ", ok ? "ok" : excuse ? "differs" : "not ok", ++done);
    vprint(format, args);
    if (excuse)
        print(" # TCG: %s", excuse);
    if (ok)
        print("\n");
    failed += !ok && !excuse;
    return ok;
}

bool check(bool ok, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!rt_vcheck(ok, format, args))
        print("\n");
    va_end(args);
    return ok;
}

bool equal(u64 got, u64 wanted, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!rt_vcheck(got == wanted, format, args))
        print(": %llx, wanted %llx\n", got, wanted);
    va_end(args);
    return got == wanted;
}

void skip(const char *why, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print("ok %u - ", ++done);
    vprint(format, args);
    va_end(args);
    print(" # SKIP %s\n", why);
}

void finish(void)
{
    print("1..%u\n", done);
    outb(0xF4, failed || !done);
    for (;;)
        asm volatile("cli; hlt");
}

void fatal(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print("Bail out! ");
    vprint(format, args);
    va_end(args);
    print("\n");
    failed++;
    finish();
}
