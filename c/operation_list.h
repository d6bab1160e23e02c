/* What operations there are.  Only looks. */
#ifndef URING_OPERATION_LIST_H
#define URING_OPERATION_LIST_H

#include "core.h"

void operation_list_register(lua_State *L, struct core *core);

#endif
