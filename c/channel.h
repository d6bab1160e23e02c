/* Channels: values from task to task, in order.
**
** A value goes from the sender's stack into the channel's buffer, or straight
** onto the stack of the receiver that has waited longest; so nobody who comes
** later gets it, and a receiver that is cancelled after that still has it.
** The main chunk stands in no line: it is served when nobody else waits.
*/
#ifndef URING_CHANNEL_H
#define URING_CHANNEL_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>

struct task;
struct core;
struct waiting;

struct waiting_list {
  struct waiting *head, *tail;
};

/* A task's place in the line of one channel.  One that selects has several. */
struct waiting {
  struct task *task;
  lua_State *L; /* the coroutine that waits: of the task, or inside of it */
  struct waiting_list *list;
  struct waiting *next, *prev;
  int value; /* of a sender: where on the stack of L; 0: it receives */
  int which; /* of the cases of a select, from 1 */
};

/* The task waits no longer: leaves every line that it stands in. */
void waiting_leave(struct task *t);

void channel_register(lua_State *L, struct core *core);

#endif
