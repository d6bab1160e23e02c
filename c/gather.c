/* Gathering.
**
** A handle that is in a gathering stands in its line while it has something to
** hand out; one that is done, until it is removed.  What `next` tells of can
** be awaited without waiting.  For every handle the gathering keeps a table of
** the program's, which has to keep the handle.
*/
#include "gather.h"

#include <string.h>

#include "loop.h"
#include "task.h"

#define GATHERING_TYPE "uring.gathering"

/*
** The line
*/

static bool has_something(const struct operation *op)
{
  return op->event == NULL || operation_unread(op) > 0 ||
         op->outcome.state == OUTCOME_READY;
}

static void line_up(struct gathering *g, struct operation *op)
{
  op->in_line = true;
  op->line_next = NULL;
  op->line_prev = g->last;
  if (g->last != NULL)
    g->last->line_next = op;
  else
    g->first = op;
  g->last = op;
}

static void leave_line(struct gathering *g, struct operation *op)
{
  if (!op->in_line)
    return;
  op->in_line = false;
  if (op->line_prev != NULL)
    op->line_prev->line_next = op->line_next;
  else
    g->first = op->line_next;
  if (op->line_next != NULL)
    op->line_next->line_prev = op->line_prev;
  else
    g->last = op->line_prev;
}

void gather_tell(struct operation *op)
{
  struct gathering *g = op->gathering;
  if (g == NULL)
    return;
  if (!op->in_line)
    line_up(g, op);
  tasks_wake(&g->waiting);
  for (struct task *t = g->watching.head; t != NULL; t = t->next)
    ring_cancel(g->core->home, t->event);
}

static void enter(struct gathering *g, struct operation *op)
{
  op->gathering = g;
  op->member_prev = NULL;
  op->member_next = g->members;
  if (g->members != NULL)
    g->members->member_prev = op;
  g->members = op;
  g->count++;
}

void gather_forget(struct operation *op)
{
  struct gathering *g = op->gathering;
  if (g == NULL)
    return;
  leave_line(g, op);
  if (op->member_prev != NULL)
    op->member_prev->member_next = op->member_next;
  else
    g->members = op->member_next;
  if (op->member_next != NULL)
    op->member_next->member_prev = op->member_prev;
  op->gathering = NULL;
  g->count--;
}

/* Is there somebody in line?  Who has nothing left leaves. */
static bool is_ready(void *arg)
{
  struct gathering *g = arg;
  while (g->first != NULL && !has_something(g->first))
    leave_line(g, g->first);
  return g->first != NULL;
}

/*
** The tables that are kept, by slot.  Free slots are chained through their
** values, integers: the handles change with every operation, and keys that
** come and go would make a table of Lua's grow anew all the time.
*/

/* The table of slots is on the top.  May raise for lack of memory, and then
** the new slots are simply not there yet. */
static void slots_grow(lua_State *L, struct gathering *g)
{
  unsigned first = g->slots + 1;
  unsigned last = g->slots ? g->slots * 2 : 8;
  for (unsigned i = first; i <= last; i++) {
    lua_pushinteger(L, i < last ? i + 1 : 0);
    lua_rawseti(L, -2, i);
  }
  g->slots = last;
  g->free_slot = first;
}

/* Keeps the table at index 3 of the handle at index 2; cannot raise once there
** is a free slot. */
static void keep(lua_State *L, struct gathering *g, struct operation *op)
{
  lua_getiuservalue(L, 1, 1);
  if (g->free_slot == 0)
    slots_grow(L, g);
  op->slot = g->free_slot;
  lua_rawgeti(L, -1, op->slot);
  g->free_slot = (unsigned)lua_tointeger(L, -1);
  lua_pushvalue(L, 3);
  lua_rawseti(L, -3, op->slot);
}

static void let_go(lua_State *L, struct gathering *g, unsigned slot)
{
  lua_getiuservalue(L, 1, 1);
  lua_pushinteger(L, g->free_slot);
  lua_rawseti(L, -2, slot);
  g->free_slot = slot;
}

/*
** Waiting
*/

static struct gathering *togathering(lua_State *L)
{
  return luaL_checkudata(L, 1, GATHERING_TYPE);
}

/* Pushes the table of the first in line, which goes to the end. */
static int push_first(lua_State *L, struct gathering *g)
{
  struct operation *op = g->first;
  leave_line(g, op);
  line_up(g, op);
  lua_getiuservalue(L, 1, 1);
  lua_rawgeti(L, -1, op->slot);
  return 1;
}

static int next_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  struct gathering *g = togathering(L);
  (void)status;
  if (!task_is_resumed(t))
    return task_park_again(L, t, next_k);
  task_check_interrupted(L, t);
  if (!is_ready(g)) /* another task was faster */
    return task_park(L, t, &g->waiting, next_k, ctx);
  return push_first(L, g);
}

static int foreign_k(lua_State *L, int status, lua_KContext ctx);

/* In a task of another loop: as an await of one operation does it. */
static int next_foreign(lua_State *L, struct task *t, struct gathering *g)
{
  if (!is_ready(g))
    operation_step_foreign(L, g->ring);
  if (is_ready(g))
    return push_first(L, g);
  return operation_park_foreign(L, t, g->ring, &g->watching, foreign_k,
                                is_ready, g);
}

static int foreign_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  (void)status;
  if (!task_is_resumed(t))
    return task_park_again(L, t, foreign_k);
  outcome_drop(t->core, &t->outcome);
  if (task_is_struck(t))
    return task_raise_cancelled(L);
  return next_foreign(L, t, togathering(L));
}

/* gathering:next() -> the table of the operation that has something to hand
** out | nil where there are no operations */
static int gathering_next(lua_State *L)
{
  struct gathering *g = togathering(L);
  struct task *t;
  core_enter(L, g->core);
  lua_settop(L, 1);
  if (is_ready(g))
    return push_first(L, g);
  if (g->count == 0)
    return 0;
  t = task_awaiting(L, g->core);
  if (is_ready(g)) /* a finaliser reaped it meanwhile */
    return push_first(L, g);
  if (t == NULL) {
    loop_until(L, g->ring, UINT64_MAX, is_ready, g);
    return push_first(L, g);
  }
  if (g->ring != g->core->home)
    return next_foreign(L, t, g);
  return task_park(L, t, &g->waiting, next_k, (lua_KContext)t);
}

/*
** Coming and going
*/

static struct operation *check_operation(lua_State *L)
{
  return luaL_checkudata(L, 2, OPERATION_TYPE);
}

/* gathering:add(operation, table): all are of one ring.  The table refers to
** the operation. */
static int gathering_add(lua_State *L)
{
  struct gathering *g = togathering(L);
  struct operation *op = check_operation(L);
  luaL_checktype(L, 3, LUA_TTABLE);
  luaL_argcheck(L, op->gathering == NULL, 2, "gathered already");
  luaL_argcheck(L, op->event == NULL || g->count == 0 || g->ring == op->ring,
                2, "an operation of another ring");
  keep(L, g, op);
  if (op->event != NULL)
    g->ring = op->ring;
  enter(g, op);
  if (has_something(op))
    gather_tell(op);
  return 0;
}

/* gathering:remove(operation) */
static int gathering_remove(lua_State *L)
{
  struct gathering *g = togathering(L);
  struct operation *op = check_operation(L);
  luaL_argcheck(L, op->gathering == g, 2, "not gathered here");
  gather_forget(op);
  let_go(L, g, op->slot);
  return 0;
}

/* gathering:tables() -> a list of all that are kept */
static int gathering_tables(lua_State *L)
{
  struct gathering *g = togathering(L);
  lua_Integer n = 0;
  lua_settop(L, 1);
  lua_getiuservalue(L, 1, 1);
  lua_createtable(L, (int)g->count, 0);
  for (unsigned i = 1; i <= g->slots; i++) {
    if (lua_rawgeti(L, 2, i) == LUA_TTABLE)
      lua_rawseti(L, 3, ++n);
    else
      lua_pop(L, 1);
  }
  return 1;
}

/* gathering:cancel(): asks for the cancellation of all; needs no memory */
static int gathering_cancel(lua_State *L)
{
  const struct gathering *g = togathering(L);
  for (struct operation *op = g->members; op != NULL; op = op->member_next)
    operation_cancel(op);
  return 0;
}

/* Its operations may outlive it. */
static int gathering_gc(lua_State *L)
{
  struct gathering *g = togathering(L);
  while (g->members != NULL)
    gather_forget(g->members);
  /* whoever waits has lost its stack: the program closed its coroutine */
  tasks_wake(&g->waiting);
  tasks_leave(&g->watching);
  return 0;
}

static int gathering_new(lua_State *L)
{
  struct core *core = core_upvalue(L);
  struct gathering *g;
  core_enter(L, core);
  lua_settop(L, 0);
  lua_newtable(L);
  g = lua_newuserdatauv(L, sizeof *g, 1);
  memset(g, 0, sizeof *g);
  g->core = core;
  lua_insert(L, 1);
  lua_setiuservalue(L, 1, 1);
  luaL_setmetatable(L, GATHERING_TYPE);
  return 1;
}

static const luaL_Reg gathering_methods[] = {
    {"add", gathering_add},       {"remove", gathering_remove},
    {"tables", gathering_tables}, {"cancel", gathering_cancel},
    {"next", gathering_next},     {NULL, NULL},
};

void gather_register(lua_State *L, struct core *core)
{
  luaL_newmetatable(L, GATHERING_TYPE);
  lua_pushcfunction(L, gathering_gc);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, gathering_methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, gathering_new, 1);
  lua_setfield(L, -2, "gathering");
}
