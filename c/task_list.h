/* What tasks there are: their names, where they stand and what they wait for.
** Only looks; nothing is kept for it but names, and when a task was parked.
*/
#ifndef URING_TASK_LIST_H
#define URING_TASK_LIST_H

#include "task.h"

/* Pushes the name of the task at a stack index, nil if it has none. */
void task_push_name(lua_State *L, int index);

/* Pushes a traceback of `co`, which the task at a stack index runs in, from a
** level on; a name comes first. */
void task_push_traceback(lua_State *L, int index, lua_State *co, int level);

void task_list_register(lua_State *L, struct core *core);

#endif
