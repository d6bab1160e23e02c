/* System calls that never block and that have no operation of their own. */
#ifndef URING_SYSTEM_H
#define URING_SYSTEM_H

#include <lauxlib.h>

/* Adds descriptor, pipe, socketpair, seek, setsockopt, isatty to the table on
** the top. */
void system_register(lua_State *L);

#define DESCRIPTOR_TYPE "uring.descriptor"

/* The place of the descriptor that the Descriptor at `arg` is to own; there is
** none in it yet. */
int *descriptor_room(lua_State *L, int arg);

#endif
