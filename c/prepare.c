/* Preparing operations: handles, linked groups, and calls that are made
** outside of tasks.
*/
#include <string.h>

#include "loop.h"
#include "op.h"
#include "operation.h"
#include "ring_object.h"
#include "task.h"

#define GROUP_MAX 128 /* operations that one call of link takes */

struct operation *operation_push(lua_State *L, struct core *core,
                                 int ring_index)
{
  struct operation *op;
  ring_index = lua_absindex(L, ring_index);
  op = lua_newuserdatauv(L, sizeof *op, HANDLE_VALUES);
  memset(op, 0, sizeof *op);
  op->core = core;
  luaL_setmetatable(L, OPERATION_TYPE);
  lua_pushvalue(L, ring_index);
  lua_setiuservalue(L, -2, HANDLE_RING);
  return op;
}

void operation_open_results(lua_State *L, struct operation *op)
{
  if (!results_open(op->core, &op->results))
    luaL_error(L, "not enough memory");
  op->multishot = true;
}

/* Makes the request the operation of a handle. */
static void fill_handle(lua_State *L, struct operation *op, struct ring *r,
                        struct request *q)
{
  struct event *e;
  if (q->multishot)
    operation_open_results(L, op);
  if (q->sqe.flags & SQE_LINKS && ring_group_is_full(r))
    luaL_error(L,
               "a group of linked operations is longer than the ring has "
               "entries (%d)",
               (int)r->io.sq.ring_entries);
  op->outcome.row = q->row;
  op->outcome.yields = event_yields(q->event_flags);
  op->outcome.ring = r->number;
  op->outcome.multishot = q->multishot;
  op->outcome.control_room = q->control_room;
  ring_catch_up(r);
  e = op_commit(L, r, q);
  e->op = op;
  op->ring = r;
  op->event = e;
  if (q->eager) /* a hint: whatever comes of it, the next step repeats it */
    (void)ring_submit(r);
}

/* The backlog is at its bound and this is no task of the ring's own: hands
** over and reaps until there is room. */
static void make_room(lua_State *L, struct ring *r)
{
  while (!ring_has_room(r))
    loop_relieve(L, r);
}

/* Is this call in a task that can wait for room in the ring? */
static bool can_wait_for_room(lua_State *L, const struct ring *r)
{
  const struct task *t = r->core->sched.current;
  return r == r->core->home && t != NULL && t->inner == L &&
         lua_isyieldable(L);
}

/* Keeps the value at a stack index until the operation is terminal, besides
** what it keeps already. */
static void keep_owner(lua_State *L, struct request *q, int owner)
{
  if (q->keep == 0) {
    q->keep = owner;
    return;
  }
  lua_createtable(L, 2, 0);
  lua_pushvalue(L, q->keep);
  lua_rawseti(L, -2, 1);
  lua_pushvalue(L, owner);
  lua_rawseti(L, -2, 2);
  q->keep = lua_gettop(L);
}

/* The stack is ring, name, with `owned` the owner, and the arguments. */
static int prepare(lua_State *L, bool may_wait, bool owned, lua_KFunction k)
{
  struct ring *r = ring_object_open(L, 1);
  const struct row *row = op_check(L, 2);
  struct operation *op;
  struct request q;
  if (may_wait && ring_is_crowded(r) && can_wait_for_room(L, r)) {
    struct task *t = task_awaiting(L, r->core);
    t->top = lua_gettop(L);
    return task_park(L, t, &r->space, k, (lua_KContext)t);
  }
  make_room(L, r);
  op = operation_push(L, r->core, 1);
  lua_insert(L, 3); /* ring; name; handle; [owner;] arguments */
  op_request(L, r->core, row, owned ? 5 : 4, &q);
  if (owned)
    keep_owner(L, &q, 4);
  fill_handle(L, op, r, &q);
  lua_settop(L, 3);
  return 1;
}

static int prepare_again(lua_State *L, lua_KContext ctx, bool owned,
                         lua_KFunction k)
{
  struct task *t = (struct task *)ctx;
  if (!task_is_resumed(t))
    return task_park_again(L, t, k);
  task_check_interrupted(L, t);
  lua_settop(L, t->top);
  return prepare(L, !ring_has_room(ring_object_open(L, 1)), owned, k);
}

static int prepare_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return prepare_again(L, ctx, false, prepare_k);
}

static int prepare_owned_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return prepare_again(L, ctx, true, prepare_owned_k);
}

/* prepare_for(ring, name, owner, …) -> Operation, which keeps the owner until
** it is terminal */
static int prepare_for(lua_State *L)
{
  luaL_checkany(L, 3);
  return prepare(L, true, true, prepare_owned_k);
}

/*
** Objects that prepare themselves: Lua's to see to, see lua/uring/custom.lua
*/

/* Registry key of function(ring, object, …). */
static const char preparer_key = 'p';

static int prepare_object_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  (void)ctx;
  return lua_gettop(L);
}

static int prepare_object(lua_State *L)
{
  ring_object_open(L, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &preparer_key);
  lua_insert(L, 1); /* preparer; ring; object; … */
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, prepare_object_k);
  return prepare_object_k(L, LUA_OK, 0);
}

/* preparer(fn): fn(ring, object, …) prepares what is no name */
static int preparer(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &preparer_key);
  return 0;
}

/* ring:prepare(name | object, …) -> Operation */
int operation_prepare(lua_State *L)
{
  if (lua_istable(L, 2) || lua_isuserdata(L, 2))
    return prepare_object(L);
  return prepare(L, true, false, prepare_k);
}

/* reserve(ring, n) -> is there room for n operations without waiting for it?
** In a task that could wait it tells; elsewhere it makes room. */
static int reserve(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  lua_Integer n = luaL_checkinteger(L, 2);
  luaL_argcheck(L, n >= 0 && n <= r->backlog.limit, 2,
                "more operations at once than the backlog takes");
  while (r->backlog.limit - r->backlog.count < n || ring_is_crowded(r)) {
    if (can_wait_for_room(L, r)) {
      lua_pushboolean(L, 0);
      return 1;
    }
    loop_relieve(L, r);
  }
  lua_pushboolean(L, 1);
  return 1;
}

static const luaL_Reg prepare_functions[] = {
    {"reserve", reserve},
    {"prepare_for", prepare_for},
    {"preparer", preparer},
    {NULL, NULL},
};

void prepare_register(lua_State *L)
{
  luaL_setfuncs(L, prepare_functions, 0);
}

/* Who awaits an operation at once never prepares the one it is linked to, and
** takes one result and not many. */
void operation_check_awaitable(lua_State *L, const struct request *q)
{
  if (q->sqe.flags & SQE_LINKS)
    luaL_error(L,
               "%s: an operation that is linked to the next needs a handle: "
               "use prepare",
               q->row->name);
  if (q->multishot || q->event_flags & EVENT_REUSE)
    luaL_error(L, "%s: %s needs a handle: use prepare", q->row->name,
               q->multishot ? "a multishot operation"
                            : "a Buffer that is used again");
}

/* Outside of a task there is no coroutine to suspend: a handle holds the
** operation while the loop turns, and an error leaves it an orphan. */
int operation_call(lua_State *L, struct ring *r, const struct row *row)
{
  struct operation *op;
  struct request q;
  make_room(L, r);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->core->home_ref);
  op = operation_push(L, r->core, -1);
  lua_remove(L, -2); /* the handle keeps the ring */
  lua_insert(L, 1);
  op_request(L, r->core, row, 2, &q);
  operation_check_awaitable(L, &q);
  fill_handle(L, op, r, &q);
  lua_settop(L, 1);
  return operation_await_ready(L, op, operation_await_k);
}

/* ring:link { op, op, …, hard = false }: each starts when the one before it
** has succeeded; `hard`: when it has ended */
int operation_link(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  struct event *events[GROUP_MAX];
  lua_Integer count;
  const char *why;
  bool hard;
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  count = (lua_Integer)lua_rawlen(L, 2);
  luaL_argcheck(L, count >= 2, 2, "there are not two operations to link");
  luaL_argcheck(L, count <= GROUP_MAX, 2, "too many operations to link");
  lua_getfield(L, 2, "hard");
  hard = lua_toboolean(L, -1);
  for (lua_Integer i = 1; i <= count; i++) {
    const struct operation *op;
    lua_rawgeti(L, 2, i);
    op = operation_test(L, -1);
    luaL_argcheck(L, op != NULL, 2, "operations expected");
    luaL_argcheck(L, op->event != NULL, 2, "an operation is done already");
    luaL_argcheck(L, op->ring == r, 2, "an operation of another ring");
    events[i - 1] = op->event;
    lua_pop(L, 1);
  }
  why = ring_link(r, events, (unsigned)count, hard);
  return why != NULL ? luaL_error(L, "link: %s", why) : 0;
}
