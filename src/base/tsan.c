/*
 * For builds under ThreadSanitizer only: accesses that are `volatile` are not looked at.
 *
 * They are those to guest memory. Guest code races on it as on hardware, and so does the
 * interpreter for it; what a guest makes of that is its own affair. All else of doppel is shared by
 * locks and atomic operations, which are never volatile. The compiler calls these functions in
 * place of the sanitizer's own (clang's -tsan-distinguish-volatile; the Linux kernel's KCSAN uses
 * the same).
 */
#define IGNORED(name)                                                                              \
    void name(const volatile void *address);                                                       \
    void name(const volatile void *address)                                                        \
    {                                                                                              \
    }

#define IGNORED_SIZE(size)                                                                         \
    IGNORED(__tsan_volatile_read##size)                                                            \
    IGNORED(__tsan_volatile_write##size)                                                           \
    IGNORED(__tsan_unaligned_volatile_read##size)                                                  \
    IGNORED(__tsan_unaligned_volatile_write##size)

IGNORED_SIZE(1)
IGNORED_SIZE(2)
IGNORED_SIZE(4)
IGNORED_SIZE(8)
IGNORED_SIZE(16)
