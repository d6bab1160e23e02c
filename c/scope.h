/* Scopes: the owners of tasks.  A scope is left only when every child has
** ended; the first failure cancels the others and is what leaves it.
*/
#ifndef URING_SCOPE_H
#define URING_SCOPE_H

#include "task.h"

struct scope {
  struct core *core;
  struct task *children;
  unsigned live;        /* children that have not ended */
  struct queue joining; /* tasks that wait for live == 0 */
  bool background;      /* the main chunk's own: reports and goes on */
  bool failed;
};

#define SCOPE_TYPE "uring.scope"

/* User values of a scope's userdata. */
enum { SCOPE_ERROR = 1, SCOPE_TRACEBACK, SCOPE_VALUES = 2 };

void scope_adopt(struct scope *s, struct task *t);

/* A child has ended.  The task's userdata is on the top of L's stack. */
void scope_child_ended(lua_State *L, struct task *t);

/* Pushes the scope that a spawn without one starts in. */
void scope_push_current(lua_State *L, struct core *core);

void scope_register(lua_State *L, struct core *core);

#endif
