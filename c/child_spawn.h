/* Starting programs. */
#ifndef URING_CHILD_SPAWN_H
#define URING_CHILD_SPAWN_H

#include "core.h"

/* Adds spawn, is_open and environment to the table on the top. */
void child_spawn_register(lua_State *L, struct core *core);

#endif
