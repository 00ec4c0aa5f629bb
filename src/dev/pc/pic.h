/*
 * The two 8259A interrupt controllers of a PC, with their edge/level registers: ports 20h-21h,
 * A0h-A1h and 4D0h-4D1h.
 */
#ifndef DOPPEL_DEV_PC_PIC_H
#define DOPPEL_DEV_PC_PIC_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/dev.h"
#include "bus/irq.h"

struct pic;

/* INTR is the first controller's output, to the processor. */
struct pic *pic_create(struct bus *bus, struct irq_line intr, struct error *err);
struct dev *pic_dev(struct pic *pic);

/* Input N: 0 to 15 but for 2, to which the second controller is wired. */
struct irq_line pic_pin(struct pic *pic, unsigned n);

/* The processor acknowledges: returns the vector. Board lock held. */
unsigned pic_acknowledge(struct pic *pic);

#endif
