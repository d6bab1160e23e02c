/* Coroutines of the program's own that may await. */
#ifndef URING_COROUTINE_H
#define URING_COROUTINE_H

#include "core.h"

/* Adds the table `coroutine` to the module on the top. */
void coroutine_register(lua_State *L, struct core *core);

#endif
