/* The Timer object: a deadline that can be moved while tasks wait for it.
**
** The tasks stand in the object's queue and the object in the heap, so moving
** the deadline moves one entry, however many wait.  It leaves the heap with
** the last of them: a timer that nobody waits for wakes nobody up.
*/
#include "timer.h"

#include <errno.h>
#include <string.h>

#include "loop.h"
#include "ring.h"
#include "task.h"

#define TIMER_TYPE "uring.timer"

static struct timer_object *totimer(lua_State *L)
{
  return luaL_checkudata(L, 1, TIMER_TYPE);
}

/* Tasks from before a fork are the parent's: they are left alone. */
static void forget_parent(struct timer_object *t)
{
  if (t->epoch != *t->core->epoch)
    tasks_leave(&t->waiting);
  t->epoch = *t->core->epoch;
}

static struct timer_object *toopen(lua_State *L)
{
  struct timer_object *t = totimer(L);
  core_enter(L, t->core);
  forget_parent(t);
  if (t->closed)
    luaL_error(L, "attempt to use a closed timer");
  return t;
}

static bool is_due(const struct timer_object *t)
{
  return t->deadline_ns != NEVER_NS && t->deadline_ns <= now_ns();
}

static void wake(struct timer_object *t)
{
  t->rung++;
  tasks_wake(&t->waiting);
}

void timer_object_ring(struct timer *t)
{
  wake((struct timer_object *)((char *)t -
                               offsetof(struct timer_object, timer)));
}

/*
** The deadline
*/

/* The seconds at a stack index, NEVER_NS for more than a clock can tell. */
static uint64_t check_seconds(lua_State *L, int index)
{
  lua_Number seconds = luaL_checknumber(L, index);
  uint64_t ns = seconds_to_ns(seconds);
  luaL_argcheck(L, seconds == seconds, index, "not a number of seconds");
  return ns == (uint64_t)INT64_MAX ? NEVER_NS : ns;
}

static uint64_t opt_deadline(lua_State *L, int index)
{
  return lua_isnoneornil(L, index) ? NEVER_NS : check_seconds(L, index);
}

/* Puts the timer into the heap, where its deadline is. */
static void arm(lua_State *L, struct timer_object *t, uint64_t deadline_ns)
{
  if (!timer_reserve(t->core)) /* a slot that is given up is not free yet */
    luaL_error(L, "not enough memory for a timer");
  timer_disarm(t->core, &t->timer);
  timer_arm(t->core, &t->timer, TIMER_OBJECT, deadline_ns);
  t->deadline_ns = deadline_ns;
}

static void move(lua_State *L, struct timer_object *t, uint64_t deadline_ns)
{
  bool waited_for = !queue_empty(&t->waiting);
  if (waited_for && deadline_ns != NEVER_NS) {
    arm(L, t, deadline_ns);
    return;
  }
  timer_disarm(t->core, &t->timer);
  t->deadline_ns = deadline_ns;
}

/* timer:set(deadline | nil): the time of now() from which on waits return;
** nil for never */
static int timer_set(lua_State *L)
{
  struct timer_object *t = toopen(L);
  luaL_checkany(L, 2);
  move(L, t, opt_deadline(L, 2));
  return 0;
}

/* timer:after(seconds): the same, from now on */
static int timer_after(lua_State *L)
{
  struct timer_object *t = toopen(L);
  uint64_t ns = check_seconds(L, 2);
  luaL_argcheck(L, lua_tonumber(L, 2) >= 0, 2, "seconds are negative");
  move(L, t, ns == NEVER_NS ? ns : now_ns() + ns);
  return 0;
}

/* timer:deadline() -> the time of now() | nil */
static int timer_deadline(lua_State *L)
{
  const struct timer_object *t = totimer(L);
  if (t->deadline_ns == NEVER_NS)
    lua_pushnil(L);
  else
    lua_pushnumber(L, (lua_Number)t->deadline_ns / 1e9);
  return 1;
}

/*
** Waiting
*/

static int push_result(lua_State *L, const struct timer_object *t)
{
  if (t->closed) {
    lua_pushnil(L);
    lua_pushliteral(L, "closed");
    lua_pushinteger(L, ECANCELED);
    return 3;
  }
  lua_pushnumber(L, (lua_Number)now_ns() / 1e9);
  return 1;
}

static int wait_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *self = (struct task *)ctx;
  struct timer_object *t = totimer(L);
  (void)status;
  if (!task_is_resumed(self))
    return task_park_again(L, self, wait_k);
  if (queue_empty(&t->waiting))
    timer_disarm(t->core, &t->timer);
  task_check_interrupted(L, self);
  return push_result(L, t);
}

/* Outside of tasks: turns the loop, whose tasks may move the deadline. */
static int wait_turning(lua_State *L, const struct timer_object *t)
{
  const unsigned rung = t->rung;
  while (t->rung == rung && !is_due(t)) {
    loop_turn(L, core_home(L, t->core), true, t->deadline_ns);
    core_breathe(L, t->core);
  }
  return push_result(L, t);
}

/* timer:wait() -> now(), when the deadline has come | nil, "closed",
** ECANCELED */
static int timer_wait(lua_State *L)
{
  struct timer_object *t = toopen(L);
  struct task *self = task_awaiting(L, t->core);
  lua_settop(L, 1);
  if (is_due(t))
    return push_result(L, t);
  if (self == NULL)
    return wait_turning(L, t);
  if (t->timer.slot == 0 && t->deadline_ns != NEVER_NS)
    arm(L, t, t->deadline_ns);
  return task_park(L, self, &t->waiting, wait_k, (lua_KContext)self);
}

/*
** The object
*/

/* timer:close(): who waits gets nil, "closed"; idempotent */
static int timer_close(lua_State *L)
{
  struct timer_object *t = totimer(L);
  core_enter(L, t->core);
  forget_parent(t);
  if (!t->closed) {
    t->closed = true;
    timer_disarm(t->core, &t->timer);
    wake(t);
  }
  return 0;
}

/* Whoever waits has lost its stack: the program closed its coroutine. */
static int timer_gc(lua_State *L)
{
  struct timer_object *t = totimer(L);
  timer_disarm(t->core, &t->timer);
  forget_parent(t);
  tasks_wake(&t->waiting);
  return 0;
}

static int timer_tostring(lua_State *L)
{
  const struct timer_object *t = totimer(L);
  if (t->closed)
    lua_pushliteral(L, "timer (closed)");
  else if (t->deadline_ns == NEVER_NS)
    lua_pushliteral(L, "timer (never)");
  else
    lua_pushfstring(L, "timer (at %f)", (lua_Number)t->deadline_ns / 1e9);
  return 1;
}

/* timer([deadline]) -> Timer */
static int timer_new(lua_State *L)
{
  struct core *core = core_upvalue(L);
  uint64_t deadline_ns = opt_deadline(L, 1);
  struct timer_object *t;
  core_enter(L, core);
  t = lua_newuserdatauv(L, sizeof *t, 0);
  memset(t, 0, sizeof *t);
  t->core = core;
  t->epoch = *core->epoch;
  t->deadline_ns = deadline_ns;
  luaL_setmetatable(L, TIMER_TYPE);
  return 1;
}

static const luaL_Reg timer_methods[] = {
    {"set", timer_set},   {"after", timer_after}, {"deadline", timer_deadline},
    {"wait", timer_wait}, {"close", timer_close}, {NULL, NULL},
};

static const luaL_Reg timer_meta[] = {
    {"__gc", timer_gc},
    {"__close", timer_close},
    {"__tostring", timer_tostring},
    {NULL, NULL},
};

void timer_register(lua_State *L, struct core *core)
{
  luaL_newmetatable(L, TIMER_TYPE);
  luaL_setfuncs(L, timer_meta, 0);
  luaL_newlib(L, timer_methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, timer_new, 1);
  lua_setfield(L, -2, "timer");
}
