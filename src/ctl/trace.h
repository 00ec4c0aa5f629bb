/*
 * What an engine tells of a guest's steps, in words.
 */
#ifndef DOPPEL_CTL_TRACE_H
#define DOPPEL_CTL_TRACE_H

#include "cpu/trace.h"
#include "ctl/doppel.h"

#define TRACE_TEXT 160

/* Writes what EVENT is to TEXT, of TRACE_TEXT bytes. Returns whose step it is. */
enum doppel_actor trace_describe(const struct trace_event *event, char *text);

#endif
