/* Arguments of one call: from the Lua stack into a request. */
#ifndef URING_ARGS_H
#define URING_ARGS_H

#include "op.h"

/* Reads every argument of the row, then the table of options. */
void args_read(lua_State *L, struct request *q, int first);

#endif
