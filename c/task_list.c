/* What tasks there are. */
#include "task_list.h"

#include <string.h>

#include "operation.h"
#include "ring.h"
#include "rows.h"
#include "scope.h"

/* Registry key of a table: task -> its name.  Weak, and most have none. */
static const char names_key = 'n';

void task_push_name(lua_State *L, int index)
{
  index = lua_absindex(L, index);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &names_key);
  lua_pushvalue(L, index);
  lua_rawget(L, -2);
  lua_remove(L, -2);
}

void task_push_traceback(lua_State *L, int index, lua_State *co, int level)
{
  int top = lua_gettop(L);
  const char *message = NULL;
  task_push_name(L, index);
  if (!lua_isnil(L, -1))
    message = lua_pushfstring(L, "task %s", lua_tostring(L, -1));
  luaL_traceback(L, co, message, level);
  lua_insert(L, top + 1);
  lua_settop(L, top + 1);
}

/* task:name() -> its name | nil; task:name(name) -> the task */
static int task_name(lua_State *L)
{
  luaL_checkudata(L, 1, TASK_TYPE);
  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    task_push_name(L, 1);
    return 1;
  }
  luaL_checkstring(L, 2);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &names_key);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  lua_rawset(L, -3);
  lua_settop(L, 1);
  return 1;
}

/*
** What a task waits for
*/

/* Pushes the value at `n` of the C function that a coroutine stands in; nil
** where there is none. */
static void push_argument(lua_State *L, lua_State *co, int n)
{
  lua_Debug ar;
  if (lua_checkstack(co, 1) && lua_getstack(co, 0, &ar) &&
      lua_getlocal(co, &ar, n) != NULL)
    lua_xmove(co, L, 1);
  else
    lua_pushnil(L);
}

/* The innermost coroutine that runs for a task: what awaits in a coroutine of
** uring.coroutine stands in `resume`, whose argument that is. */
static lua_State *innermost(lua_State *L, lua_State *co)
{
  lua_State *inner;
  do {
    push_argument(L, co, 1);
    inner = lua_tothread(L, -1);
    lua_pop(L, 1); /* its frame keeps it */
    if (inner != NULL)
      co = inner;
  } while (inner != NULL);
  return co;
}

static void push_operation(lua_State *L, const struct event *e)
{
  if (e->row->args[0].kind == ARG_FD && e->fd >= 0)
    lua_pushfstring(L, "%s on fd %d", event_name(e), e->fd);
  else
    lua_pushstring(L, event_name(e));
}

/* The task stands in a queue of the object that its await was called with:
** pushes what that is. */
static void push_object(lua_State *L, lua_State *co)
{
  int top = lua_gettop(L);
  push_argument(L, co, 1);
  if (luaL_testudata(L, -1, TASK_TYPE)) {
    task_push_name(L, -1);
    if (lua_isnil(L, -1))
      lua_pushfstring(L, "task %p", lua_touserdata(L, -2));
    else
      lua_pushfstring(L, "task %s", lua_tostring(L, -1));
  } else if (luaL_getmetafield(L, -1, "__name") == LUA_TSTRING) {
    const char *type = lua_tostring(L, -1);
    lua_pushstring(L, strncmp(type, "uring.", 6) == 0 ? type + 6 : type);
  } else {
    lua_pushliteral(L, "something");
  }
  lua_insert(L, top + 1);
  lua_settop(L, top + 1);
}

static void push_waiting(lua_State *L, const struct task *t)
{
  if (t->event != NULL)
    push_operation(L, t->event);
  else if (t->op != NULL && t->op->event != NULL)
    push_operation(L, t->op->event);
  else if (t->timer.slot != 0 && !t->timed)
    lua_pushliteral(L, "sleep");
  else if (t->core->home != NULL && t->queue == &t->core->home->space)
    lua_pushliteral(L, "room in the ring");
  else if (t->nplaces > 0 && t->places != &t->place)
    lua_pushliteral(L, "select");
  else
    push_object(L, innermost(L, t->co));
}

/* Is this a file of the library's own: uring/NAME.lua, wherever it is? */
static bool is_library(const char *source)
{
  const char *name = strrchr(source, '/');
  return name != NULL && name - source >= 6 &&
         strncmp(name - 6, "/uring", 6) == 0;
}

/* Pushes "file.lua:12", the line where a coroutine stands, of the program if
** there is one; nil where it has not begun. */
static void push_where(lua_State *L, lua_State *co)
{
  lua_Debug ar;
  lua_pushnil(L);
  for (int level = 0; lua_getstack(co, level, &ar); level++) {
    lua_getinfo(co, "Sl", &ar);
    if (ar.currentline <= 0)
      continue;
    lua_pop(L, 1);
    lua_pushfstring(L, "%s:%d", ar.short_src, ar.currentline);
    if (!is_library(ar.source))
      return;
  }
}

/* The task is on the top: replaces it by what is told of it. */
static void describe(lua_State *L, uint64_t now)
{
  const struct task *t = lua_touserdata(L, -1);
  lua_createtable(L, 0, 6);
  lua_insert(L, -2); /* table; task */
  task_push_name(L, -1);
  lua_setfield(L, -3, "name");
  lua_pushstring(L, task_status_name(t));
  lua_setfield(L, -3, "status");
  push_where(L, innermost(L, t->co));
  lua_setfield(L, -3, "where");
  if (t->state == TASK_WAITING) {
    push_waiting(L, t);
    lua_setfield(L, -3, "waiting");
    lua_pushnumber(L, (lua_Number)task_parked_for(t, now) / 1e9);
    lua_setfield(L, -3, "since");
  }
  lua_setfield(L, -2, "task");
}

/* tasks() -> { { task =, name =, status =, waiting =, since =, where = }, … }
 */
static int list_tasks(lua_State *L)
{
  struct core *core = core_upvalue(L);
  uint64_t now = now_ns();
  lua_Integer n = 0;
  core_enter(L, core);
  lua_newtable(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, core->tasks_ref);
  for (unsigned i = 1; i <= core->sched.tasks_cap; i++) {
    lua_rawgeti(L, -1, i);
    if (lua_touserdata(L, -1) == NULL) {
      lua_pop(L, 1);
      continue;
    }
    describe(L, now);
    lua_rawseti(L, -3, ++n);
  }
  lua_pop(L, 1);
  return 1;
}

/* is_task(value) -> boolean */
static int is_task(lua_State *L)
{
  lua_pushboolean(L, luaL_testudata(L, 1, TASK_TYPE) != NULL);
  return 1;
}

static void make_names(lua_State *L)
{
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &names_key);
}

void task_list_register(lua_State *L, struct core *core)
{
  make_names(L);
  luaL_getmetatable(L, TASK_TYPE);
  lua_getfield(L, -1, "__index");
  lua_pushcfunction(L, task_name);
  lua_setfield(L, -2, "name");
  lua_pop(L, 2);
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, list_tasks, 1);
  lua_setfield(L, -2, "tasks");
  lua_pushcfunction(L, is_task);
  lua_setfield(L, -2, "is_task");
}
