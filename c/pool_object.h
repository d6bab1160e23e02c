/* The Pool object, and `pool`, the method of rings that makes one. */
#ifndef URING_POOL_OBJECT_H
#define URING_POOL_OBJECT_H

#include "core.h"

void pool_register(lua_State *L, struct core *core);

#endif
