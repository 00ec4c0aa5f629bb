/*
 * A triple fault: the processor shuts down. This guest must not come to its end (SDM volume
 * 3, 6.15, interrupt 8).
 */
#include "rt/rt.h"

void test(void)
{
    print("# a triple fault follows\n");
    static const struct dtr none = {0, 0};
    lidt(&none);
    asm volatile("ud2");
    check(false, "the processor went on");
}
