/* The table that uring.ring takes. */
#ifndef URING_RING_OPTIONS_H
#define URING_RING_OPTIONS_H

#include "ring.h"

/* Reads the table at a stack index; nil or nothing there: the defaults.
** Raises on unknown names and wrong values. */
void ring_options_read(lua_State *L, int table, struct ring_options *o);

#endif
