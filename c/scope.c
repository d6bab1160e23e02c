/* Scopes. */
#include "scope.h"

#include <string.h>

#include "loop.h"
#include "ring.h"

/* Registry keys. */
static const char background_key = 'b'; /* the main chunk's scope */
static const char report_key = 'r';     /* function(error, traceback) */

static bool is_shielded(const struct core *core)
{
  return core->sched.current != NULL && core->sched.current->shields > 0;
}

void scope_adopt(struct scope *s, struct task *t)
{
  t->scope = s;
  t->sibling_prev = NULL;
  t->sibling_next = s->children;
  if (s->children != NULL)
    s->children->sibling_prev = t;
  s->children = t;
  s->live++;
  if (s->cancelled && !is_shielded(s->core))
    task_cancel(t);
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

void scope_forget(struct task *t)
{
  if (t->scope != NULL)
    disown(t->scope, t);
}

static void cancel_children(struct scope *s)
{
  s->cancelled = true;
  for (struct task *t = s->children; t != NULL; t = t->sibling_next)
    task_cancel(t);
}

void scope_expire(struct timer *t)
{
  struct scope *s =
      (struct scope *)((char *)t - offsetof(struct scope, timer));
  s->expired = true;
  cancel_children(s);
}

/* Pushes the error that a failed task ended with. */
static void push_error(lua_State *L, struct task *t)
{
  lua_pushvalue(t->co, -1);
  lua_xmove(t->co, L, 1);
}

/* Nobody waits for a task that failed: tell the handler.  A handler that fails
** itself has nobody to tell.  The scope and the task are on the top. */
static void report(lua_State *L, struct task *t)
{
  if (lua_getiuservalue(L, -2, SCOPE_REPORT) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &report_key);
  }
  push_error(L, t);
  task_push_extra(L, -3, EXTRA_TRACEBACK); /* task; handler; error; trace */
  if (lua_pcall(L, 2, 0, 0) != LUA_OK)
    lua_pop(L, 1);
  t->observed = true;
}

/* The task and its scope are on the top of the stack: it becomes the last of
** those that failed.  Allocates nothing. */
static void chain_failure(lua_State *L)
{
  if (lua_getiuservalue(L, -1, SCOPE_LAST_FAILED) == LUA_TNIL) {
    lua_pushvalue(L, -3);
    lua_setiuservalue(L, -3, SCOPE_FIRST_FAILED);
  } else {
    lua_pushvalue(L, -3);
    task_set_link(L, -2);
  }
  lua_pop(L, 1);
  lua_pushvalue(L, -2);
  lua_setiuservalue(L, -2, SCOPE_LAST_FAILED);
}

/* The first failure is what leaves the scope; it cancels the siblings.  Of a
** race that has been won it is none, and still does not disappear. */
static void failed(lua_State *L, struct scope *s, struct task *t)
{
  if (s->background || s->won) {
    lua_insert(L, -2); /* scope; task */
    report(L, t);
    lua_insert(L, -2);
    return;
  }
  chain_failure(L);
  if (!s->failed) {
    s->failed = true;
    cancel_children(s);
  }
}

/* The task and its scope are on the top of the stack. */
static void won(lua_State *L, struct scope *s)
{
  s->won = true;
  lua_pushvalue(L, -2);
  lua_setiuservalue(L, -2, SCOPE_WINNER);
  cancel_children(s);
}

void scope_child_ended(lua_State *L, struct task *t)
{
  struct scope *s = t->scope;
  const bool fails = t->end == END_FAILED && !t->observed;
  const bool decides =
      t->end == END_RETURNED && s->races && !s->won && !s->failed;
  disown(s, t);
  if (fails || decides)
    task_push_link(L, -1);
  lua_pushnil(L); /* an ended task does not keep its scope */
  task_set_link(L, fails || decides ? -3 : -2);
  if (fails)
    failed(L, s, t);
  else if (decides)
    won(L, s);
  if (fails || decides)
    lua_pop(L, 1);
  if (s->live == 0)
    tasks_wake(&s->joining);
}

void scope_push_current(lua_State *L, struct core *core)
{
  struct task *t = core->sched.current;
  if (t == NULL) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &background_key);
    return;
  }
  task_push(L, t);
  task_push_link(L, -1);
  lua_remove(L, -2);
}

static struct scope *push_scope(lua_State *L, struct core *core)
{
  struct scope *s = lua_newuserdatauv(L, sizeof *s, SCOPE_VALUES);
  memset(s, 0, sizeof *s);
  s->core = core;
  luaL_setmetatable(L, SCOPE_TYPE);
  return s;
}

/* scope() -> Scope.  Raises where it could not be joined. */
static int scope_new(lua_State *L)
{
  struct core *core = core_upvalue(L);
  core_enter(L, core);
  task_awaiting(L, core);
  push_scope(L, core);
  return 1;
}

static struct scope *toscope(lua_State *L)
{
  return luaL_checkudata(L, 1, SCOPE_TYPE);
}

/*
** Leaving
**
** Whoever joins waits until the last child has ended, whatever happens:
**
** 1. It is cancelled while it waits, or was before: the children are
**    cancelled, and it goes on waiting.  `join` does not raise that, it tells.
** 2. The last child ends: it is made ready.  Until it runs, another task may
**    spawn in the scope: it looks again, and goes on waiting.
** 3. It runs and nobody is left: it leaves in the same breath, so that nobody
**    can be spawned in between, and from then on nobody can be at all.
** 4. The deadline may come at any time until then.  That is a fact about this
**    scope and no other (`expired`), so timeouts inside of one another are
**    told apart; and what it cancels may have returned meanwhile, or return
**    all the same: success wins.
*/

static bool is_empty(void *arg)
{
  return ((struct scope *)arg)->live == 0;
}

static int push_struck(lua_State *L, const struct task *t)
{
  lua_pushboolean(L, task_is_struck(t));
  return 1;
}

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
  return push_struck(L, t);
}

/* scope:join() -> was the caller cancelled?  Waits until every child has
** ended */
static int scope_join(lua_State *L)
{
  struct scope *s = toscope(L);
  struct task *t = s->core->sched.current;
  core_enter(L, s->core);
  if (t == NULL) {
    loop_until(L, core_home(L, s->core), UINT64_MAX, is_empty, s);
    lua_pushboolean(L, 0);
    return 1;
  }
  if (t->scope == s)
    return luaL_error(L, "a task cannot wait for the scope it belongs to");
  if (task_is_struck(t)) /* not the way to get away early */
    cancel_children(s);
  else
    task_awaiting(L, s->core);
  if (s->live == 0)
    return push_struck(L, t);
  return task_park(L, t, &s->joining, join_k, (lua_KContext)t);
}

/* Pushes { error = …, traceback = …, task = … } of the task on the top. */
static void push_failure(lua_State *L)
{
  lua_createtable(L, 0, 3);
  push_error(L, lua_touserdata(L, -2));
  lua_setfield(L, -2, "error");
  task_push_extra(L, -2, EXTRA_TRACEBACK);
  lua_setfield(L, -2, "traceback");
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "task");
}

/* scope:failures() -> a list of { error = …, traceback = …, task = … }, in
** the order in which they failed; what somebody awaited is theirs */
static int scope_failures(lua_State *L)
{
  toscope(L);
  lua_newtable(L);
  lua_getiuservalue(L, 1, SCOPE_FIRST_FAILED);
  for (lua_Integer i = 1; !lua_isnil(L, -1); i++) {
    push_failure(L); /* list; task; failure */
    lua_rawseti(L, -3, i);
    task_push_link(L, -1);
    lua_remove(L, -2);
  }
  lua_pop(L, 1);
  return 1;
}

/* scope:leave() -> its failures; nil: there are none.  Nothing is spawned in
** it any more */
static int scope_leave(lua_State *L)
{
  struct scope *s = toscope(L);
  s->left = true;
  timer_disarm(s->core, &s->timer);
  if (s->failed)
    return scope_failures(L);
  lua_pushnil(L);
  return 1;
}

/* scope:cancel(): cancels every child */
static int scope_cancel(lua_State *L)
{
  struct scope *s = toscope(L);
  core_enter(L, s->core);
  cancel_children(s);
  return 0;
}

/* scope:deadline(seconds): so long from now its children are cancelled */
static int scope_deadline(lua_State *L)
{
  struct scope *s = toscope(L);
  lua_Number seconds = luaL_checknumber(L, 2);
  luaL_argcheck(L, seconds >= 0, 2, "seconds are negative");
  core_enter(L, s->core);
  if (s->left)
    return luaL_error(L, "the scope has been left");
  timer_disarm(s->core, &s->timer);
  if (!timer_reserve(s->core))
    return luaL_error(L, "not enough memory for a timer");
  timer_arm(s->core, &s->timer, TIMER_SCOPE,
            now_ns() + seconds_to_ns(seconds));
  return 0;
}

/* scope:race(): the first child that ends decides, and the others are
** cancelled */
static int scope_race(lua_State *L)
{
  toscope(L)->races = true;
  return 0;
}

/* scope:winner() -> Task | nil */
static int scope_winner(lua_State *L)
{
  toscope(L);
  lua_getiuservalue(L, 1, SCOPE_WINNER);
  return 1;
}

/* scope:report_to(function(error, traceback)): a failure does not cancel the
** others, and is told */
static int scope_report_to(lua_State *L)
{
  struct scope *s = toscope(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  lua_setiuservalue(L, 1, SCOPE_REPORT);
  s->background = true;
  return 0;
}

/* scope:status() -> "open" | "expired" | "cancelled" | "failed": what has
** happened to it, the last first */
static int scope_status(lua_State *L)
{
  const struct scope *s = toscope(L);
  lua_pushstring(L, s->failed      ? "failed"
                    : s->expired   ? "expired"
                    : s->cancelled ? "cancelled"
                                   : "open");
  return 1;
}

static int scope_gc(lua_State *L)
{
  struct scope *s = toscope(L);
  timer_disarm(s->core, &s->timer);
  return 0;
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
    {"join", scope_join},           {"leave", scope_leave},
    {"cancel", scope_cancel},       {"status", scope_status},
    {"deadline", scope_deadline},   {"failures", scope_failures},
    {"race", scope_race},           {"winner", scope_winner},
    {"report_to", scope_report_to}, {NULL, NULL},
};

void scope_register(lua_State *L, struct core *core)
{
  luaL_newmetatable(L, SCOPE_TYPE);
  lua_pushcfunction(L, scope_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushcfunction(L, scope_gc);
  lua_setfield(L, -2, "__gc");
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
