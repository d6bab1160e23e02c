/* The handle of an operation: what `prepare` returns.  Dropping it makes the
** operation an orphan; it never makes the memory free.
*/
#ifndef URING_OPERATION_H
#define URING_OPERATION_H

#include "event.h"
#include "results.h"

struct operation {
  struct core *core;
  struct ring *ring;      /* valid while `event` is */
  struct event *event;    /* NULL once the operation is done */
  struct outcome outcome; /* of the terminal CQE */
  struct queue waiters;   /* tasks of its own loop that await it */
  struct queue watchers;  /* tasks of another loop, see await_foreign */
  bool multishot;
  bool announced;         /* the result is there, the memory is not back yet */
  bool until_end;         /* who waits, waits for the memory */
  bool cancelled;         /* cancel was asked for */
  struct buffer *reused;  /* the one for all results, see HANDLE_BUFFER */
  uint32_t flags;         /* of the result that was handed out last */
  struct results results; /* of a multishot operation */
  /* see gather.h */
  bool in_line;
  unsigned slot;
  struct gathering *gathering;
  struct operation *line_next, *line_prev, *member_next, *member_prev;
};

/* User values of a handle: its ring, and the Buffer that it uses again for
** each result. */
enum { HANDLE_RING = 1, HANDLE_BUFFER, HANDLE_VALUES = 2 };

#define OPERATION_TYPE    "uring.operation"
#define CANCELLATION_TYPE "uring.cancellation"

/* Results that a multishot operation may be ahead of its reader.  Past it
** the operation pauses until half of them are taken; what still comes until
** then is kept, so nothing is lost and nothing unbounded. */
#define RESULTS_MAX 256u

struct operation *operation_test(lua_State *L, int index);

/* What a cancel request names: the event, or nothing that exists. */
uint64_t operation_user_data(const struct operation *op);

static inline bool operation_is_multishot(const struct operation *op)
{
  return op->multishot;
}

/* One result of a multishot operation.  False: no memory to keep it. */
bool operation_deliver(struct operation *op, const struct result *one);

/* Results that nobody has taken yet. */
static inline unsigned operation_unread(const struct operation *op)
{
  return op->results.count;
}

/* `outcome` is set, and the event goes on. */
void operation_announce(struct operation *op);

/* The last CQE: `outcome` is set, and the event about to be free. */
void operation_complete(struct operation *op);

void operation_cancel(struct operation *op);

/* Pushes a handle that has no operation yet; the ring is at `ring_index`. */
struct operation *operation_push(lua_State *L, struct core *core,
                                 int ring_index);

/* Makes room for the results of a multishot operation. */
void operation_open_results(lua_State *L, struct operation *op);

/* Raises for a request that nobody could await at once. */
struct request;
void operation_check_awaitable(lua_State *L, const struct request *q);

/* Prepares and awaits outside of a task; the arguments are the stack.  Use as
** `return operation_call(…)`. */
int operation_call(lua_State *L, struct ring *r, const struct row *row);

/* Waits until the handle at index 1 has something to hand out; then `k` gives
** it.  Its ctx is the task that waited, or 0.  `operation_await_k` gives the
** results. */
int operation_await_ready(lua_State *L, struct operation *op, lua_KFunction k);
int operation_await_k(lua_State *L, int status, lua_KContext ctx);

/* In a task, for a ring that is not the home ring: reaps what there is; and
** parks the task in a queue until there is more, which k then looks for.  Use
** the second as `return operation_park_foreign(…)`; ready(arg) tells whether
** it would be parked for nothing. */
void operation_step_foreign(lua_State *L, struct ring *r);
int operation_park_foreign(lua_State *L, struct task *t, struct ring *r,
                           struct queue *queue, lua_KFunction k,
                           bool (*ready)(void *arg), void *arg);

/* ring:prepare(name | object, …) -> Operation */
int operation_prepare(lua_State *L);

/* Sets functions `prepare_for` and `preparer` of the module on the top. */
void prepare_register(lua_State *L);

/* ring:link { op, op, …, hard = false } */
int operation_link(lua_State *L);

void operation_register(lua_State *L);

#endif
