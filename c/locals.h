/* uring.locals: values that belong to the running task.
 */
#ifndef URING_LOCALS_H
#define URING_LOCALS_H

#include "task.h"

/* The task on the top of the stack is new: it sees what the running one, or
** the main chunk, has set until now. */
void locals_inherit(lua_State *L, struct task *t);

void locals_register(lua_State *L, struct core *core);

#endif
