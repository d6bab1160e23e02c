/* Where a task stands that Lua cannot suspend there. */
#ifndef URING_PLACE_H
#define URING_PLACE_H

#include <lauxlib.h>

/* Pushes the name of the place that keeps Lua from suspending this call:
** "table.sort", "a __gc finaliser". */
const char *place_push(lua_State *L);

#endif
