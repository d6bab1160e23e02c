/* Calls without a handle: uring.op.NAME(…).
**
** The fast path.  In a task the event points to the task itself, and between
** the call and its results nothing is allocated and nothing looked up.
*/
#include "call.h"

#include "op.h"
#include "operation.h"
#include "task.h"

static int call_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  struct outcome *o = &t->outcome;
  int n;
  (void)status;
  if (!task_is_resumed(t))
    return task_park_again(L, t, call_k);
  if (o->res < 0 && task_is_struck(t))
    return task_raise_cancelled(L);
  n = outcome_push(L, o);
  if (o->aux != NULL)
    outcome_drop(t->core, o);
  return n;
}

/* What a call is a closure over. */
struct call_site {
  struct core *core;
  const struct row *row;
};

static int call(lua_State *L, bool may_wait);

static int call_again_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  (void)status;
  if (!task_is_resumed(t))
    return task_park_again(L, t, call_again_k);
  task_check_interrupted(L, t);
  lua_settop(L, t->top);
  return call(L, false);
}

static inline int call(lua_State *L, bool may_wait)
{
  const struct call_site *site = lua_touserdata(L, lua_upvalueindex(1));
  const struct row *row = site->row;
  struct ring *r = ring_home(L, site->core);
  struct task *t = task_awaiting(L, site->core);
  struct request q;
  struct event *e;
  if (t == NULL)
    return operation_call(L, r, row);
  if (!ring_has_room(r) || (may_wait && ring_is_crowded(r))) {
    t->top = lua_gettop(L);
    return task_park(L, t, &r->space, call_again_k, (lua_KContext)t);
  }
  op_request(L, r->core, row, 1, &q);
  operation_check_awaitable(L, &q);
  q.behind = row->streams;
  e = op_commit(L, r, &q);
  e->task = t;
  t->event = e;
  if (q.eager) /* see fill_handle */
    (void)ring_submit(r);
  return task_park(L, t, NULL, call_k, (lua_KContext)t);
}

static int op_call(lua_State *L)
{
  return call(L, true);
}

/* The table of calls: op.read, op.write … */
static void push_calls(lua_State *L, struct core *core)
{
  const struct row *row = NULL;
  lua_newtable(L);
  while ((row = op_next(row)) != NULL) {
    struct call_site *site = lua_newuserdatauv(L, sizeof *site, 0);
    site->core = core;
    site->row = row;
    lua_pushcclosure(L, op_call, 1);
    lua_setfield(L, -2, row->name);
  }
}

/* unknown(table, name): __index of that table */
static int unknown_call(lua_State *L)
{
  return op_unknown(L, luaL_checkstring(L, 2));
}

void call_register(lua_State *L, struct core *core)
{
  push_calls(L, core);
  lua_newtable(L);
  lua_pushcfunction(L, unknown_call);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
  lua_setfield(L, -2, "op");
}
