/* Calls without a handle. */
#ifndef URING_CALL_H
#define URING_CALL_H

#include "core.h"

/* Sets field `op` of the table on the top: op.read, op.write … */
void call_register(lua_State *L, struct core *core);

#endif
