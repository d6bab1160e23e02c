/* What channel.c and select.c share: channels, and the lines of those who
** wait.  Nobody else includes this.
*/
#ifndef URING_CHANNEL_PARTS_H
#define URING_CHANNEL_PARTS_H

#include "channel.h"
#include "core.h"

#define CHANNEL_TYPE "uring.channel"

struct channel {
  struct core *core;
  unsigned capacity;
  unsigned head, count; /* of the buffer, a circle from place 1 on */
  bool closed;
  struct waiting_list receivers, senders;
};

/* What a task that waited is woken with.  A value is on its stack. */
enum grant { GRANT_NOTHING, GRANT_SENT, GRANT_VALUE, GRANT_CLOSED };

/* Sends the value at a stack index if that can be done at once; the channel is
** at `index`. */
bool channel_send_now(lua_State *L, int index, struct channel *c, int value);

/* Pushes a value if one can be had at once. */
bool channel_receive_now(lua_State *L, int index, struct channel *c);

/* Can that be done, perhaps?  Those who wait may turn out to be lost.  The
** argument is the channel. */
bool channel_can_send(void *arg);
bool channel_can_receive(void *arg);

/* nil, "closed" */
int channel_push_closed(lua_State *L);

/* Who would have to wait, as task_awaiting. */
struct task *channel_awaiting(lua_State *L, struct core *core);

/* A place in the line of a channel. */
void waiting_enter(struct waiting_list *list, struct waiting *w,
                   struct waiting as);

/* The task, which stands nowhere, has so many places, one of which may be its
** own; they are entered next. */
void waiting_take(struct task *t, struct waiting *places, int n);

/* Parks the task, which has entered its places; there is room on the stack for
** a value.  `k` runs when one came up. */
int waiting_park(lua_State *L, struct task *t, lua_KFunction k);

/* In `k`: somebody but the turn has resumed it.  Drops what they passed; a
** value that has come meanwhile stays. */
int waiting_park_again(lua_State *L, struct task *t, lua_KFunction k);

/* select { case, … } -> which, value | which, true | which, nil, "closed" */
int select_lua(lua_State *L);

#endif
