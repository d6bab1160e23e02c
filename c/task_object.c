/* Tasks as Lua sees them: spawn, the Task object, and what suspends a task
** without an operation.
*/
#include <string.h>

#include "locals.h"
#include "loop.h"
#include "ring.h"
#include "scope.h"
#include "task_list.h"

/*
** The Task object
*/

static struct task *totask(lua_State *L)
{
  struct task *t = core_self(L);
  return t != NULL ? t : luaL_checkudata(L, 1, TASK_TYPE);
}

/* On the stack: the scope, what is called at the end if it finishes, the
** function, its arguments. */
static int spawn(lua_State *L, struct core *core, struct scope *scope,
                 bool finishes)
{
  int moved = lua_gettop(L) - 1;
  struct task *t;
  if (scope->left)
    return luaL_error(L, "the scope has been left: no task outlives it");
  t = lua_newuserdatauv(L, sizeof *t, TASK_VALUES);
  memset(t, 0, sizeof *t);
  t->core = core;
  t->state = TASK_ENDED; /* until it is whole */
  t->finishes = finishes;
  lua_rawgeti(L, LUA_REGISTRYINDEX, core->task_meta_ref);
  lua_setmetatable(L, -2);
  t->co = lua_newthread(L);
  lua_setiuservalue(L, -2, TASK_THREAD);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, TASK_MORE);
  if (moved + 3 > LUA_MINSTACK && !lua_checkstack(t->co, moved + 3))
    return luaL_error(L, "too many arguments to a task");
  lua_pushcfunction(t->co, task_main);
  lua_pushvalue(L, -1);
  lua_xmove(L, t->co, 1);
  lua_pushcfunction(t->co, task_note_traceback);
  lua_insert(L, 2); /* scope; task; the rest */
  lua_xmove(L, t->co, moved);
  t->nargs = moved + 2;
  if (core->has_locals)
    locals_inherit(L, t);
  task_anchor(L, t);
  task_make_ready(t);
  scope_adopt(scope, t);
  return 1;
}

/* spawn(scope, fn, …) -> Task */
static int task_spawn(lua_State *L)
{
  struct core *core = core_upvalue(L);
  core_enter(L, core);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  return spawn(L, core, luaL_checkudata(L, 1, SCOPE_TYPE), false);
}

/* spawn_finishing(scope, finish, a, b, fn, …) -> Task.  However fn ends,
** finish(a, b, err) is called then, as the last of the task, and may await; err
** is what fn failed with, or nil.  A task that is cancelled before it has begun
** calls neither.  It is for what each of many tasks does at its end: a function
** with <close> variables below fn would keep 80 bytes of every one that waits
*/
static int task_spawn_finishing(lua_State *L)
{
  struct core *core = core_upvalue(L);
  core_enter(L, core);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  luaL_checktype(L, 5, LUA_TFUNCTION);
  return spawn(L, core, luaL_checkudata(L, 1, SCOPE_TYPE), true);
}

/* spawn_here(fn, …) -> Task, in the current scope */
static int task_spawn_here(lua_State *L)
{
  struct core *core = core_upvalue(L);
  core_enter(L, core);
  luaL_checktype(L, 1, LUA_TFUNCTION);
  scope_push_current(L, core);
  lua_insert(L, 1);
  return spawn(L, core, lua_touserdata(L, 1), false);
}

/* Pushes what an ended task came to, or raises its error. */
static int push_results(lua_State *L, struct task *t)
{
  if (t->end == END_RETURNED && t->nresults == 0)
    return 0;
  luaL_checkstack(L, t->nresults + 1, "too many results");
  if (!lua_checkstack(t->co, t->nresults))
    return luaL_error(L, "not enough memory for the results of a task");
  if (t->end == END_RETURNED) {
    int first = lua_gettop(t->co) - t->nresults + 1;
    for (int i = 0; i < t->nresults; i++)
      lua_pushvalue(t->co, first + i);
    lua_xmove(t->co, L, t->nresults);
    return t->nresults;
  }
  t->observed = true;
  if (t->end == END_CANCELLED)
    return task_raise_cancelled(L);
  lua_pushvalue(t->co, -1);
  lua_xmove(t->co, L, 1);
  return lua_error(L);
}

static int await_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *self = (struct task *)ctx;
  (void)status;
  if (!task_is_resumed(self))
    return task_park_again(L, self, await_k);
  task_check_interrupted(L, self);
  return push_results(L, totask(L));
}

static bool has_ended(void *arg)
{
  return ((struct task *)arg)->state == TASK_ENDED;
}

/* task:await() -> results, or raises what the task raised */
static int task_await(lua_State *L)
{
  struct task *t = totask(L);
  struct core *core = t->core;
  struct task *self;
  core_enter(L, core);
  if (t->state == TASK_ENDED) /* nothing to wait for: success wins */
    return push_results(L, t);
  self = task_awaiting(L, core);
  if (self == t)
    return luaL_error(L, "a task cannot await itself");
  if (self != NULL)
    return task_park(L, self, &t->awaiting, await_k, (lua_KContext)self);
  t->observed = true; /* its failure is raised here, and not reported */
  loop_until(L, core_home(L, core), UINT64_MAX, has_ended, t);
  return push_results(L, t);
}

/* task:cancel(): asks it to end; await tells when it has */
static int task_cancel_lua(lua_State *L)
{
  struct task *t = totask(L);
  core_enter(L, t->core);
  task_cancel(t);
  return 0;
}

const char *task_status_name(const struct task *t)
{
  static const char *const ends[] = {"ready", "returned", "failed",
                                     "cancelled"};
  static const char *const states[] = {"ready", "running", "waiting"};
  return t->state == TASK_ENDED ? ends[t->end] : states[t->state];
}

/* task:status() -> "ready" | "running" | "waiting" | "returned" | "failed" |
** "cancelled" */
static int task_status(lua_State *L)
{
  lua_pushstring(L, task_status_name(totask(L)));
  return 1;
}

/* task:traceback() -> where it failed, or where it stands */
static int task_traceback(lua_State *L)
{
  struct task *t = totask(L);
  task_push_extra(L, 1, EXTRA_TRACEBACK);
  if (lua_isnil(L, -1))
    task_push_traceback(L, 1, t->co, 0);
  return 1;
}

static int task_tostring(lua_State *L)
{
  struct task *t = totask(L);
  task_push_name(L, 1);
  if (lua_isnil(L, -1))
    lua_pushfstring(L, "task (%s, %p)", task_status_name(t), (void *)t);
  else
    lua_pushfstring(L, "task %s (%s, %p)", lua_tostring(L, -1),
                    task_status_name(t), (void *)t);
  return 1;
}

/*
** Suspending without an operation
*/

static int wait_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  (void)status;
  if (!task_is_resumed(t))
    return task_park_again(L, t, wait_k);
  task_check_interrupted(L, t);
  return 0;
}

static bool is_past(void *arg)
{
  return now_ns() >= *(const uint64_t *)arg;
}

/* sleep(seconds) */
static int task_sleep(lua_State *L)
{
  struct core *core = core_upvalue(L);
  lua_Number seconds = luaL_checknumber(L, 1);
  struct task *t;
  uint64_t deadline;
  luaL_argcheck(L, seconds >= 0, 1, "seconds are negative");
  core_enter(L, core);
  t = task_awaiting(L, core);
  deadline = now_ns() + seconds_to_ns(seconds);
  if (t == NULL) {
    loop_turn(L, core_home(L, core), false, 0); /* sleep(0), too, is a turn */
    loop_until(L, core_home(L, core), deadline, is_past, &deadline);
    return 0;
  }
  if (!timer_reserve(core))
    return luaL_error(L, "not enough memory for a timer");
  timer_arm(core, &t->timer, TIMER_TASK, deadline);
  return task_park(L, t, NULL, wait_k, (lua_KContext)t);
}

/* yield(): lets everybody else who is ready run first */
static int task_yield(lua_State *L)
{
  struct core *core = core_upvalue(L);
  struct task *t;
  core_enter(L, core);
  t = task_awaiting(L, core);
  if (t == NULL) {
    loop_turn(L, core_home(L, core), false, UINT64_MAX);
    return 0;
  }
  t->interrupted = false;
  task_make_ready(t);
  return lua_yieldk(L, 0, (lua_KContext)t, wait_k);
}

/* The task that leaves a shield need not be the one that entered it: a
** coroutine of uring.coroutine takes its shields along, see there. */
static int shield_k(lua_State *L, int status, lua_KContext ctx)
{
  const struct core *core = (const struct core *)ctx;
  struct task *t = core->sched.current;
  if (t != NULL && t->inner == L && t->shields > 0)
    t->shields--;
  if (status != LUA_OK && status != LUA_YIELD)
    return lua_error(L);
  return lua_gettop(L);
}

static int unshielded_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  (void)ctx;
  return lua_gettop(L);
}

/* shield(fn, …) -> its results: cancellation is held back until fn returns,
** and strikes at the first await after it */
static int task_shield(lua_State *L)
{
  struct core *core = core_upvalue(L);
  struct task *t = core->sched.current;
  int status;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  if (t == NULL || t->inner != L) { /* nobody there to be cancelled */
    lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, unshielded_k);
    return lua_gettop(L);
  }
  if (t->shields == UINT8_MAX)
    return luaL_error(L, "too many shields inside one another");
  t->shields++;
  status = lua_pcallk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, (lua_KContext)core,
                      shield_k);
  return shield_k(L, status, (lua_KContext)core);
}

/* now() -> seconds of the monotonic clock */
static int task_now(lua_State *L)
{
  lua_pushnumber(L, (lua_Number)now_ns() / 1e9);
  return 1;
}

/* current() -> the running Task, nil outside of tasks */
static int task_current(lua_State *L)
{
  struct core *core = core_upvalue(L);
  struct task *t = core->sched.current;
  if (t == NULL) {
    lua_pushnil(L);
    return 1;
  }
  task_push(L, t);
  return 1;
}

static int cancelled_tostring(lua_State *L)
{
  lua_pushliteral(L, "cancelled");
  return 1;
}

/* The object that a cancelled task sees as its error; also field
** `cancelled` of the module on the top of the stack. */
static void make_cancelled(lua_State *L)
{
  lua_newuserdatauv(L, 0, 0);
  lua_createtable(L, 0, 2);
  lua_pushcfunction(L, cancelled_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushliteral(L, "uring.cancelled");
  lua_setfield(L, -2, "__name");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &task_cancelled_key);
  lua_setfield(L, -2, "cancelled");
}

static const luaL_Reg task_methods[] = {
    {"await", task_await},
    {"cancel", task_cancel_lua},
    {"status", task_status},
    {"traceback", task_traceback},
    {NULL, NULL},
};

static const luaL_Reg task_functions[] = {
    {"spawn_finishing", task_spawn_finishing},
    {"spawn", task_spawn},
    {"spawn_here", task_spawn_here},
    {"sleep", task_sleep},
    {"yield", task_yield},
    {"now", task_now},
    {"shield", task_shield},
    {"current", task_current},
    {NULL, NULL},
};

void task_register(lua_State *L, struct core *core)
{
  luaL_newmetatable(L, TASK_TYPE);
  lua_pushcfunction(L, task_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_newtable(L);
  core_set_methods(L, task_methods, lua_absindex(L, -2));
  lua_setfield(L, -2, "__index");
  core->task_meta_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  luaL_getmetatable(L, SCOPE_TYPE); /* scope:spawn(fn, …) */
  lua_getfield(L, -1, "__index");
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, task_spawn, 1);
  lua_setfield(L, -2, "spawn");
  lua_pop(L, 2);
  make_cancelled(L);
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, task_functions, 1);
  lua_newtable(L);
  core->tasks_ref = luaL_ref(L, LUA_REGISTRYINDEX);
}
