/*
 * Fuzz target: ACPI's fixed registers.
 */
#include "dev.h"

#include "dev/pc/pm.h"

static struct dev *create(struct fuzz_board *board)
{
    struct pm *pm = pm_create(board->bus, board->clock, fuzz_no_line(), fuzz_no_line(), NULL);

    board->device = pm;
    return pm ? pm_dev(pm) : NULL;
}

static void event(struct fuzz_board *board, unsigned n, bool level)
{
    if (level)
        pm_power_button(board->device);
    else
        pm_gpe(board->device, n);
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, PM1_EVENT_PORT, PM1_EVENT_SIZE},
               {BUS_PORT, PM1_CONTROL_PORT, PM1_CONTROL_SIZE},
               {BUS_PORT, PM_TIMER_PORT, PM_TIMER_SIZE},
               {BUS_PORT, PM_GPE0_PORT, PM_GPE0_SIZE}},
    .line = event,
};
