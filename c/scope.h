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
  struct timer timer;   /* its deadline, if it is armed */
  bool background;      /* reports failures and goes on, see report_to */
  bool races;           /* the first child that ends decides */
  bool won;             /* and one has */
  bool failed;
  bool cancelled; /* what is spawned from now on is cancelled at once */
  bool expired;   /* by its deadline */
  bool left;      /* nothing is spawned any more */
};

#define SCOPE_TYPE "uring.scope"

/* User values of a scope's userdata: the first child that failed, and the
** last; each but the last has the next as its TASK_NEXT_FAILED.  In a race,
** the child that has won.  Who hears of failures in the background; nil: the
** program's handler. */
enum {
  SCOPE_FIRST_FAILED = 1,
  SCOPE_LAST_FAILED,
  SCOPE_WINNER,
  SCOPE_REPORT,
  SCOPE_VALUES = 4
};

/* The scope is the new owner of a task.  In one that was cancelled the task
** is so at once, unless it is spawned in a shield. */
void scope_adopt(struct scope *s, struct task *t);

/* The task is forgotten, and its scope forgets it. */
void scope_forget(struct task *t);

/* A child has ended.  The task's userdata is on the top of L's stack. */
void scope_child_ended(lua_State *L, struct task *t);

/* The deadline of the scope whose timer this is has come. */
void scope_expire(struct timer *t);

/* Pushes the scope that a spawn without one starts in. */
void scope_push_current(lua_State *L, struct core *core);

void scope_register(lua_State *L, struct core *core);

#endif
