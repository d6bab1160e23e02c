/* Operations by hand: prepare, await, cancel, status, results, link.
**
** A handle's event points to it, and it to the event, until the terminal CQE
** or until the handle is collected, whichever comes first.
*/
#include "operation.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "gather.h"
#include "loop.h"
#include "op.h"
#include "pool.h"
#include "ring_object.h"
#include "task.h"

struct operation *operation_test(lua_State *L, int index)
{
  return luaL_testudata(L, index, OPERATION_TYPE);
}

static struct operation *tooperation(lua_State *L)
{
  struct operation *op = core_self(L);
  return op != NULL ? op : luaL_checkudata(L, 1, OPERATION_TYPE);
}

/* The handle at index 1 of a function that goes on: it has been checked. */
static struct operation *handle(lua_State *L)
{
  return lua_touserdata(L, 1);
}

uint64_t operation_user_data(const struct operation *op)
{
  return op->event ? event_user_data(op->event) : USER_DATA_NONE;
}

/* Raises where the operation cannot be waited for or cancelled any more: in a
** child of fork it is the parent's. */
static void check_usable(lua_State *L, const struct operation *op)
{
  core_enter(L, op->core);
  if (op->event != NULL)
    ring_object_check(L, op->ring);
}

#define SQE_LINKS (IOSQE_IO_LINK | IOSQE_IO_HARDLINK)

/*
** Completions
*/

/* Wakes everybody who waits.  A task of a foreign loop is woken by the poll it
** waits for, which therefore has to end. */
static void wake(struct operation *op)
{
  tasks_wake(&op->waiters);
  for (struct task *t = op->watchers.head; t != NULL; t = t->next)
    ring_cancel(op->core->home, t->event);
  gather_tell(op);
}

bool operation_deliver(struct operation *op, const struct result *one)
{
  if (!results_push(op->core, &op->results, one))
    return false;
  wake(op);
  return true;
}

void operation_announce(struct operation *op)
{
  op->announced = true;
  wake(op);
}

void operation_complete(struct operation *op)
{
  op->event = NULL;
  wake(op);
}

void operation_cancel(struct operation *op)
{
  op->cancelled = true;
  if (op->event != NULL)
    ring_cancel(op->ring, op->event);
}

/*
** Awaiting a handle
*/

/* Is there something to hand out? */
static bool is_ready(void *arg)
{
  struct operation *op = arg;
  if (op->event == NULL)
    return true;
  return !op->until_end && (operation_unread(op) > 0 || op->announced);
}

/* Takes the oldest result from the queue. */
static void take(struct operation *op)
{
  results_pop(&op->results);
  if (op->event != NULL)
    again_caught_up(op->ring, op->event, operation_unread(op));
}

/* Pushes the next result of a multishot operation that has one. */
static int push_next(lua_State *L, struct operation *op)
{
  struct result *one = results_first(&op->results);
  struct outcome o = op->outcome;
  int n;
  o.res = one->res;
  o.flags = one->flags;
  o.data = one->data;
  n = outcome_push(L, &o); /* may raise: the result is still there then */
  op->flags = o.flags;
  take(op);
  return n;
}

static int push_result(lua_State *L, struct operation *op)
{
  if (operation_unread(op) > 0)
    return push_next(L, op);
  op->flags = op->outcome.flags;
  if (op->multishot && op->outcome.state == OUTCOME_DELIVERED &&
      (op->outcome.res >= 0 || outcome_is_expiry(&op->outcome)) &&
      !outcome_is_end(&op->outcome))
    op->outcome.res = -ECANCELED; /* its last result is not one more */
  return outcome_push(L, &op->outcome);
}

static bool has_failed(const struct operation *op)
{
  return operation_unread(op) == 0 && op->outcome.res < 0 &&
         !outcome_is_expiry(&op->outcome);
}

/* The next result is asked for: what the last one brought goes back to the
** pool, if it is in the Buffer that is used again. */
static void reuse(const struct operation *op)
{
  if (op->reused != NULL)
    buffer_release(op->reused);
}

/* In the `k` of an await: was a waiting task resumed by somebody else? */
static bool too_early(lua_KContext ctx)
{
  const struct task *t = (const struct task *)ctx;
  return t != NULL && !task_is_resumed(t);
}

/* Raises where the await was cancelled together with its task; a result that
** was faster is delivered. */
static void check_cancelled(lua_State *L, const struct operation *op,
                            lua_KContext ctx)
{
  const struct task *t = (const struct task *)ctx;
  if (t != NULL && task_is_struck(t) && has_failed(op))
    task_raise_cancelled(L);
}

/*
** In a task, an operation of a ring that is not the home ring: that ring's
** bell is polled from the home ring, and the ring reaped when it rings.
** Somebody else may reap it first, so the task also stands among the
** operation's watchers; see wake.  A ring that polls its devices rings no
** bell by itself: the task enters it in every turn.
*/

static int foreign_k(lua_State *L, int status, lua_KContext ctx);

void operation_step_foreign(lua_State *L, struct ring *r)
{
  int bell = ring_bell(r), rc;
  if (bell < 0)
    luaL_error(L, "eventfd: %s", strerror(-bell));
  rc = ring_step(r, false, 0);
  if (rc < 0)
    luaL_error(L, "io_uring_enter: %s", strerror(-rc));
  if (ring_has_unsent(r)) /* whoever steps may not be back: another is told */
    ring_ring_bell(r);
}

static void watch(lua_State *L, struct task *t, int fd)
{
  struct ring *home = core_home(L, t->core);
  struct request q;
  struct event *e;
  memset(&q, 0, sizeof q);
  q.row = op_find("poll_add");
  q.sqe.opcode = IORING_OP_POLL_ADD;
  q.sqe.fd = fd;
  q.sqe.poll_events = POLLIN;
  e = op_commit(L, home, &q);
  e->task = t;
  t->event = e;
}

int operation_park_foreign(lua_State *L, struct task *t, struct ring *r,
                           struct queue *queue, lua_KFunction k,
                           bool (*ready)(void *arg), void *arg)
{
  if (ring_is_polled(r)) {
    task_make_ready(t);
    return lua_yieldk(L, 0, (lua_KContext)t, k);
  }
  watch(L, t, ring_bell(r));
  if (ready(arg)) /* a finaliser reaped it meanwhile */
    ring_cancel(t->core->home, t->event);
  return task_park(L, t, queue, k, (lua_KContext)t);
}

static int await_foreign(lua_State *L, struct task *t, struct operation *op)
{
  if (!is_ready(op))
    operation_step_foreign(L, op->ring);
  if (is_ready(op))
    return t->then(L, LUA_OK, (lua_KContext)t);
  return operation_park_foreign(L, t, op->ring, &op->watchers, foreign_k,
                                is_ready, op);
}

static int foreign_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  struct operation *op = handle(L);
  (void)status;
  if (!task_is_resumed(t))
    return task_park_again(L, t, foreign_k);
  outcome_drop(t->core, &t->outcome);
  if (task_is_struck(t))
    operation_cancel(op);
  return await_foreign(L, t, op);
}

/* Waits until the handle at index 1 is ready; then `k` gives the results.
** `ctx` of k is the task that waited, or 0. */
int operation_await_ready(lua_State *L, struct operation *op, lua_KFunction k)
{
  struct task *t;
  if (is_ready(op))
    return k(L, LUA_OK, 0);
  t = task_awaiting(L, op->core);
  if (t == NULL) {
    loop_until(L, op->ring, UINT64_MAX, is_ready, op);
    return k(L, LUA_OK, 0);
  }
  if (is_ready(op)) /* a finaliser reaped it meanwhile */
    return k(L, LUA_OK, 0);
  if (op->ring != op->core->home) {
    t->then = k;
    return await_foreign(L, t, op);
  }
  t->op = op;
  return task_park(L, t, &op->waiters, k, (lua_KContext)t);
}

int operation_await_k(lua_State *L, int status, lua_KContext ctx)
{
  struct operation *op = handle(L);
  (void)status;
  if (too_early(ctx))
    return task_park_again(L, (struct task *)ctx, operation_await_k);
  if (!is_ready(op)) /* another task took the result first */
    return operation_await_ready(L, op, operation_await_k);
  check_cancelled(L, op, ctx);
  return push_result(L, op);
}

/* op:await() -> result ≥ 0 …, or nil, message, errno.  Of a multishot
** operation: the next result. */
static int operation_await(lua_State *L)
{
  struct operation *op = tooperation(L);
  check_usable(L, op);
  lua_settop(L, 1);
  reuse(op);
  return operation_await_ready(L, op, operation_await_k);
}

/*
** Iterating a multishot operation
*/

static int next_k(lua_State *L, int status, lua_KContext ctx)
{
  struct operation *op = handle(L);
  (void)status;
  if (too_early(ctx))
    return task_park_again(L, (struct task *)ctx, next_k);
  if (!is_ready(op))
    return operation_await_ready(L, op, next_k);
  check_cancelled(L, op, ctx);
  if (operation_unread(op) == 0) {
    bool fresh = op->outcome.state == OUTCOME_READY;
    if (!fresh || op->outcome.res == -ECANCELED)
      return 0;
    if (outcome_is_end(&op->outcome))
      return 0;
    if (has_failed(op))
      return luaL_error(L, "%s: %s", op->outcome.row->name,
                        strerror(-op->outcome.res));
  }
  return push_result(L, op);
}

static int results_next(lua_State *L)
{
  struct operation *op = tooperation(L);
  check_usable(L, op);
  lua_settop(L, 1);
  reuse(op);
  return operation_await_ready(L, op, next_k);
}

/* for … in op:results(): every result; ends when the operation has ended or
** was cancelled, raises if it failed, and leaving the loop cancels it */
static int operation_results(lua_State *L)
{
  tooperation(L);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushcclosure(L, results_next, 1);
  lua_pushvalue(L, 1);
  lua_pushnil(L);
  lua_pushvalue(L, 1);
  return 4;
}

/*
** Cancelling by hand
*/

/* op:cancel() -> Cancellation */
static int operation_cancel_lua(lua_State *L)
{
  struct operation *op = tooperation(L);
  check_usable(L, op);
  lua_settop(L, 1);
  lua_newuserdatauv(L, 0, 1);
  luaL_setmetatable(L, CANCELLATION_TYPE);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  operation_cancel(op);
  return 1;
}

/* request_cancel(op): the same without a Cancellation, and without memory */
static int operation_request_cancel(lua_State *L)
{
  struct operation *op = tooperation(L);
  check_usable(L, op);
  operation_cancel(op);
  return 0;
}

/* Replaces the Cancellation at index 1 by its operation. */
static struct operation *cancellation_operation(lua_State *L)
{
  luaL_checkudata(L, 1, CANCELLATION_TYPE);
  lua_settop(L, 1);
  lua_getiuservalue(L, 1, 1);
  lua_replace(L, 1);
  return tooperation(L);
}

static int cancellation_k(lua_State *L, int status, lua_KContext ctx)
{
  struct operation *op = handle(L);
  (void)status;
  if (too_early(ctx))
    return task_park_again(L, (struct task *)ctx, cancellation_k);
  if (op->event != NULL &&
      !op->announced) /* one of many results: not the end yet */
    return operation_await_ready(L, op, cancellation_k);
  if (has_failed(op) && op->outcome.res == -ECANCELED) {
    op->outcome.state = OUTCOME_DELIVERED;
    lua_pushliteral(L, "cancelled");
    return 1;
  }
  lua_pushliteral(L, "completed");
  return 1 + push_result(L, op);
}

/* c:await() -> "cancelled", or "completed" and the results */
static int cancellation_await(lua_State *L)
{
  struct operation *op = cancellation_operation(L);
  check_usable(L, op);
  if (op->multishot && op->event != NULL)
    return luaL_error(L, "await a multishot operation through its results");
  return operation_await_ready(L, op, cancellation_k);
}

static const char *status_name(const struct operation *op)
{
  if (op->event == NULL)
    return "done";
  if (op->cancelled)
    return "cancelling";
  return ring_published(op->ring, op->event) ? "submitted" : "prepared";
}

static int notification_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  if (too_early(ctx))
    return task_park_again(L, (struct task *)ctx, notification_k);
  if (handle(L)->event != NULL)
    return operation_await_ready(L, handle(L), notification_k);
  lua_pushboolean(L, 1);
  return 1;
}

/* op:notification() -> true, when what the operation lent has come back.  Of
** a zero-copy send that is after its result; of others, with it. */
static int operation_notification(lua_State *L)
{
  struct operation *op = tooperation(L);
  check_usable(L, op);
  lua_settop(L, 1);
  if (op->multishot)
    return luaL_error(L, "await a multishot operation through its results");
  op->until_end = true;
  return operation_await_ready(L, op, notification_k);
}

/* op:status() -> "prepared" | "submitted" | "cancelling" | "done" */
static int operation_status(lua_State *L)
{
  lua_pushstring(L, status_name(tooperation(L)));
  return 1;
}

static int cancellation_status(lua_State *L)
{
  lua_pushstring(L, status_name(cancellation_operation(L)));
  return 1;
}

/* op:flags() -> IORING_CQE_F_* of the result that was handed out last; 0
** before the first */
static int operation_flags(lua_State *L)
{
  lua_pushinteger(L, tooperation(L)->flags);
  return 1;
}

/* progress(op) -> is there something to come that was not handed out yet? was
** cancel asked for? is it multishot? what is it called? */
static int operation_progress(lua_State *L)
{
  const struct operation *op = tooperation(L);
  lua_pushboolean(L, op->event != NULL || operation_unread(op) > 0 ||
                         op->outcome.state == OUTCOME_READY);
  lua_pushboolean(L, op->cancelled);
  lua_pushboolean(L, op->multishot);
  lua_pushstring(L, op->outcome.row ? op->outcome.row->name : "none");
  return 4;
}

static int operation_tostring(lua_State *L)
{
  struct operation *op = tooperation(L);
  const struct row *row = op->outcome.row;
  lua_pushfstring(L, "operation (%s, %s, %p)", row ? row->name : "none",
                  status_name(op), (void *)op);
  return 1;
}

static int cancellation_tostring(lua_State *L)
{
  struct operation *op = cancellation_operation(L);
  lua_pushfstring(L, "cancellation (%s, %s)", op->outcome.row->name,
                  status_name(op));
  return 1;
}

/*
** The end of a handle
*/

/* Results that nobody took: what they yield is closed, buffers go back to
** their pool. */
static void drop_results(struct operation *op)
{
  while (operation_unread(op) > 0) {
    struct result *one = results_first(&op->results);
    outcome_lose(op->core, &op->outcome, one->res);
    data_drop(&one->data);
    take(op);
  }
}

static int close_k(lua_State *L, int status, lua_KContext ctx)
{
  struct operation *op = handle(L);
  (void)status;
  if (too_early(ctx))
    return task_park_again(L, (struct task *)ctx, close_k);
  drop_results(op);
  if (op->event != NULL)
    return operation_await_ready(L, op, close_k);
  outcome_drop(op->core, &op->outcome);
  op->outcome.state = OUTCOME_DELIVERED;
  if (op->outcome.res >= 0) /* given up, whatever it was */
    op->outcome.res = -ECANCELED;
  return 0;
}

/* __close: cancels, and waits until the memory is back. */
static int operation_close(lua_State *L)
{
  struct operation *op = tooperation(L);
  check_usable(L, op);
  lua_settop(L, 1);
  operation_cancel(op);
  op->until_end = true;
  return close_k(L, LUA_OK, 0);
}

static int operation_gc(lua_State *L)
{
  struct operation *op = tooperation(L);
  struct event *e = op->event;
  op->event = NULL;
  if (e != NULL && op->announced)
    e->op = NULL; /* sent: only the memory is still to come back */
  else if (e != NULL)
    ring_orphan(op->ring, e);
  outcome_drop(op->core, &op->outcome);
  drop_results(op);
  results_close(op->core, &op->results);
  gather_forget(op);
  /* whoever waits has lost its stack: the program closed its coroutine */
  tasks_wake(&op->waiters);
  tasks_leave(&op->watchers);
  return 0;
}

static const luaL_Reg operation_methods[] = {
    {"await", operation_await},
    {"cancel", operation_cancel_lua},
    {"status", operation_status},
    {"results", operation_results},
    {"notification", operation_notification},
    {"flags", operation_flags},
    {NULL, NULL},
};

static const luaL_Reg operation_meta[] = {
    {"__gc", operation_gc},
    {"__close", operation_close},
    {"__tostring", operation_tostring},
    {NULL, NULL},
};

static const luaL_Reg cancellation_methods[] = {
    {"await", cancellation_await},
    {"status", cancellation_status},
    {NULL, NULL},
};

void operation_register(lua_State *L)
{
  luaL_newmetatable(L, OPERATION_TYPE);
  luaL_setfuncs(L, operation_meta, 0);
  luaL_newlibtable(L, operation_methods);
  core_set_methods(L, operation_methods, -2);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_newmetatable(L, CANCELLATION_TYPE);
  lua_pushcfunction(L, cancellation_tostring);
  lua_setfield(L, -2, "__tostring");
  luaL_newlib(L, cancellation_methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushcfunction(L, operation_prepare);
  lua_setfield(L, -2, "prepare");
  lua_pushcfunction(L, operation_link);
  lua_setfield(L, -2, "link");
  lua_pushcfunction(L, operation_progress);
  lua_setfield(L, -2, "progress");
  lua_pushcfunction(L, operation_request_cancel);
  lua_setfield(L, -2, "request_cancel");
  prepare_register(L);
}
