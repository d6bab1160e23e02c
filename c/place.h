/* Where a task stands that Lua cannot suspend there. */
#ifndef URING_PLACE_H
#define URING_PLACE_H

#include <lauxlib.h>

/* Pushes onto L the name of the place that keeps Lua from suspending what
** `stuck`, which may be L, is running: "table.sort", "a __gc finaliser". */
const char *place_push(lua_State *L, lua_State *stuck);

#endif
