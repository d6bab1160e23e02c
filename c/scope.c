/* Scopes. */
#include "scope.h"

#include <string.h>

#include "loop.h"
#include "ring.h"

/* Registry keys. */
static const char background_key = 'b'; /* the main chunk's scope */
static const char report_key = 'r';     /* function(error, traceback) */

void scope_adopt(struct scope *s, struct task *t)
{
  t->scope = s;
  t->sibling_prev = NULL;
  t->sibling_next = s->children;
  if (s->children != NULL)
    s->children->sibling_prev = t;
  s->children = t;
  s->live++;
}

static void disown(struct scope *s, struct task *t)
{
  if (t->sibling_prev != NULL)
    t->sibling_prev->sibling_next = t->sibling_next;
  else
    s->children = t->sibling_next;
  if (t->sibling_next != NULL)
    t->sibling_next->sibling_prev = t->sibling_prev;
  t->scope = NULL;
  s->live--;
}

static void cancel_children(struct scope *s)
{
  for (struct task *t = s->children; t != NULL; t = t->sibling_next)
    task_cancel(t);
}

/* Pushes the error that a failed task ended with. */
static void push_error(lua_State *L, struct task *t)
{
  lua_pushvalue(t->co, -1);
  lua_xmove(t->co, L, 1);
}

/* Nobody waits for a task of the main chunk that failed: tell the handler.
** A handler that fails itself has nobody to tell. */
static void report(lua_State *L, struct task *t)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &report_key);
  push_error(L, t);
  lua_getiuservalue(L, -3, TASK_TRACEBACK); /* task; handler; error; trace */
  if (lua_pcall(L, 2, 0, 0) != LUA_OK)
    lua_pop(L, 1);
  t->observed = true;
}

/* The first failure is what leaves the scope; it cancels the siblings. */
static void fail(lua_State *L, struct scope *s, struct task *t)
{
  s->failed = true;
  lua_getiuservalue(L, -1, TASK_SCOPE); /* task; scope */
  push_error(L, t);
  lua_setiuservalue(L, -2, SCOPE_ERROR);
  lua_getiuservalue(L, -2, TASK_TRACEBACK);
  lua_setiuservalue(L, -2, SCOPE_TRACEBACK);
  lua_pop(L, 1);
  cancel_children(s);
}

void scope_child_ended(lua_State *L, struct task *t)
{
  struct scope *s = t->scope;
  disown(s, t);
  if (t->end == END_FAILED && !t->observed) {
    if (s->background)
      report(L, t);
    else if (!s->failed)
      fail(L, s, t);
  }
  if (s->live == 0)
    tasks_wake(&s->joining);
  lua_pushnil(L); /* an ended task does not keep its scope */
  lua_setiuservalue(L, -2, TASK_SCOPE);
}

void scope_push_current(lua_State *L, struct core *core)
{
  struct task *t = core->sched.current;
  if (t == NULL) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &background_key);
    return;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, core->tasks_ref);
  lua_rawgeti(L, -1, t->slot);
  lua_getiuservalue(L, -1, TASK_SCOPE);
  lua_replace(L, -3);
  lua_pop(L, 1);
}

static struct scope *push_scope(lua_State *L, struct core *core)
{
  struct scope *s = lua_newuserdatauv(L, sizeof *s, SCOPE_VALUES);
  memset(s, 0, sizeof *s);
  s->core = core;
  luaL_setmetatable(L, SCOPE_TYPE);
  return s;
}

/* scope() -> Scope */
static int scope_new(lua_State *L)
{
  push_scope(L, core_upvalue(L));
  return 1;
}

static struct scope *toscope(lua_State *L)
{
  return luaL_checkudata(L, 1, SCOPE_TYPE);
}

static bool is_empty(void *arg)
{
  return ((struct scope *)arg)->live == 0;
}

/* A joining task that is cancelled cancels the children, and still waits for
** them: no task outlives its scope. */
static int join_k(lua_State *L, int status, lua_KContext ctx)
{
  struct scope *s = toscope(L);
  struct task *t = (struct task *)ctx;
  (void)status;
  if (!task_is_resumed(t))
    return task_park_again(L, t, join_k);
  if (t->interrupted)
    cancel_children(s);
  if (s->live > 0)
    return task_park(L, t, &s->joining, join_k, ctx);
  if (task_is_struck(t))
    return task_raise_cancelled(L);
  return 0;
}

/* scope:join(): waits until every child has ended */
static int scope_join(lua_State *L)
{
  struct scope *s = toscope(L);
  struct task *t = s->core->sched.current;
  core_enter(L, s->core);
  if (t == NULL || t->inner != L) {
    loop_until(L, core_home(L, s->core), UINT64_MAX, is_empty, s);
    return 0;
  }
  if (s->live == 0)
    return 0;
  if (task_is_struck(
          t)) { /* cancelled already: not the way to get away early */
    cancel_children(s);
    if (!lua_isyieldable(L))
      return 0;
    return task_park(L, t, &s->joining, join_k, (lua_KContext)t);
  }
  t = task_awaiting(L, s->core);
  return task_park(L, t, &s->joining, join_k, (lua_KContext)t);
}

/* scope:cancel(): cancels every child */
static int scope_cancel(lua_State *L)
{
  struct scope *s = toscope(L);
  core_enter(L, s->core);
  cancel_children(s);
  return 0;
}

/* scope:failure() -> failed, error, traceback */
static int scope_failure(lua_State *L)
{
  struct scope *s = toscope(L);
  lua_pushboolean(L, s->failed);
  lua_getiuservalue(L, 1, SCOPE_ERROR);
  lua_getiuservalue(L, 1, SCOPE_TRACEBACK);
  return 3;
}

static bool no_tasks(void *arg)
{
  return ((struct core *)arg)->sched.ntasks == 0;
}

/* cancel_all(): cancels every task there is, and waits until they have ended
 */
static int cancel_all(lua_State *L)
{
  struct core *core = core_upvalue(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, core->tasks_ref);
  for (unsigned i = 1; i <= core->sched.tasks_cap; i++) {
    struct task *t;
    lua_rawgeti(L, -1, i);
    t = lua_touserdata(L, -1);
    if (t != NULL)
      task_cancel(t);
    lua_pop(L, 1);
  }
  loop_until(L, core_home(L, core), UINT64_MAX, no_tasks, core);
  return 0;
}

static int scope_tostring(lua_State *L)
{
  struct scope *s = toscope(L);
  lua_pushfstring(L, "scope (%d tasks, %p)", (int)s->live, (void *)s);
  return 1;
}

/* on_error(function(error, traceback)): who hears of a failed task that
** belongs to the main chunk and that nobody waits for */
static int on_error(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &report_key);
  return 0;
}

static const luaL_Reg scope_methods[] = {
    {"join", scope_join},
    {"cancel", scope_cancel},
    {"failure", scope_failure},
    {NULL, NULL},
};

void scope_register(lua_State *L, struct core *core)
{
  luaL_newmetatable(L, SCOPE_TYPE);
  lua_pushcfunction(L, scope_tostring);
  lua_setfield(L, -2, "__tostring");
  luaL_newlib(L, scope_methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  push_scope(L, core)->background = true;
  lua_rawsetp(L, LUA_REGISTRYINDEX, &background_key);
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, scope_new, 1);
  lua_setfield(L, -2, "scope");
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, cancel_all, 1);
  lua_setfield(L, -2, "cancel_all");
  lua_pushcfunction(L, on_error);
  lua_setfield(L, -2, "on_error");
}
