/* uring.coroutine: the functions of `coroutine`, with which an await inside
** of a coroutine passes through to the task that runs it.
**
** A task awaits by yielding.  In a coroutine of the program's own that yield
** would end up at whoever has resumed it, as if it were a value for them.
** `resume` and `wrap` from here know the two apart: a coroutine that yields
** while its task is parked is awaiting, and they yield in turn, up to the
** task, and resume it when the task is resumed.  What the program yields
** itself is handed to it as ever.
**
** What a coroutine has to do with tasks once it has left off is in a table,
** the second upvalue of every function here, weak in its keys:
**
**   a task    it awaits, for that one.  The task lives as long as the
**             coroutine, whose continuations refer to it.
**   a number  it has yielded inside of so many shields, which shield
**             whoever resumes it, and meanwhile nobody.
**   false     nothing.  There is a place, so that none has to be made, and no
**             memory be wanting, when the coroutine leaves off.
*/
#include "coroutine.h"

#include <lualib.h>

#include "task.h"

/* Upvalues: the core, the table, and what else a function needs: the
** coroutine of one that wrap made, the original function. */
enum { UP_CORE = 1, UP_TABLE, UP_OWN };

/* What a resume remembers while its task is parked: was it by wrap, and how
** many shields was the task in. */
static lua_KContext context(bool wraps, unsigned shields)
{
  return (lua_KContext)shields << 1 | (lua_KContext)wraps;
}

static bool by_wrap(lua_KContext ctx)
{
  return (ctx & 1) != 0;
}

static uint8_t outer_shields(lua_KContext ctx)
{
  return (uint8_t)(ctx >> 1);
}

/* The entry of the coroutine at index 1 in the table, on the top. */
static int push_entry(lua_State *L)
{
  lua_pushvalue(L, 1);
  return lua_rawget(L, lua_upvalueindex(UP_TABLE));
}

/* Replaces that entry by what is on the top.  Where there is one already this
** needs no memory. */
static void set_entry(lua_State *L)
{
  lua_pushvalue(L, 1);
  lua_insert(L, -2);
  lua_rawset(L, lua_upvalueindex(UP_TABLE));
}

static void clear_entry(lua_State *L)
{
  lua_pushboolean(L, 0);
  set_entry(L);
}

static bool is_awaiting(lua_State *L)
{
  bool yes = push_entry(L) == LUA_TUSERDATA;
  lua_pop(L, 1);
  return yes;
}

/* The running task, if an await in a coroutine that is resumed here can pass
** through to it; else NULL. */
static struct task *passes_to(lua_State *L, const struct core *core)
{
  struct task *t = core->sched.current;
  return t != NULL && t->inner == L && lua_isyieldable(L) ? t : NULL;
}

/*
** Resuming
*/

static int goes_on_k(lua_State *L, int status, lua_KContext ctx);

/* The coroutine awaits, and so does who has resumed it. */
static int await_too(lua_State *L, const struct task *t, lua_KContext ctx)
{
  lua_rawgeti(L, LUA_REGISTRYINDEX, t->core->tasks_ref);
  lua_rawgeti(L, -1, t->slot);
  set_entry(L);
  lua_settop(L, 1);
  return lua_yieldk(L, 0, ctx, goes_on_k);
}

/* It has left off, but not to await: the shields that it is in go with it. */
static void take_shields(lua_State *L, struct task *t, lua_KContext ctx)
{
  int own = t->shields - outer_shields(ctx);
  t->shields = outer_shields(ctx);
  if (own > 0) {
    lua_pushinteger(L, own);
    set_entry(L);
  }
}

/* Raises the error on the top of L, as coroutine.wrap does it. */
static int rethrow(lua_State *L, bool no_memory)
{
  if (!no_memory && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

/* Its error is on the top of its stack. */
static int failed(lua_State *L, lua_State *co, bool wraps)
{
  int status = lua_status(co);
  if (!wraps) {
    lua_xmove(co, L, 1); /* which may be the same */
    lua_pushboolean(L, 0);
    lua_insert(L, -2);
    return 2;
  }
  if (status != LUA_OK && status != LUA_YIELD) /* it was run, and has failed */
    lua_resetthread(co);                       /* its error stays */
  lua_xmove(co, L, 1);
  return rethrow(L, status == LUA_ERRMEM);
}

/* Resumes the coroutine at index 1, which has its nargs values; awaits in it
** pass to t, if there is one. */
static int resume(lua_State *L, struct task *t, int nargs, lua_KContext ctx)
{
  lua_State *co = lua_tothread(L, 1);
  int status, n = 0;
  if (t != NULL)
    t->inner = co;
  status = lua_resume(co, L, nargs, &n);
  if (t != NULL) {
    if (status == LUA_YIELD && t->state != TASK_RUNNING)
      return await_too(L, t, ctx); /* and t->inner is what awaits */
    t->inner = L;
    take_shields(L, t, ctx);
  }
  if (status != LUA_OK && status != LUA_YIELD)
    return failed(L, co, by_wrap(ctx));
  if (!lua_checkstack(L, n + 1)) {
    lua_pop(co, n);
    lua_pushliteral(co, "too many results to resume");
    return failed(L, co, by_wrap(ctx));
  }
  lua_pushboolean(L, 1);
  lua_xmove(co, L, n);
  return by_wrap(ctx) ? n : n + 1;
}

/* The task has been resumed, and resumes it; or somebody else did. */
static int goes_on_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = passes_to(L, core_upvalue(L));
  (void)status;
  lua_settop(L, 1);
  if (t == NULL)
    return lua_yieldk(L, 0, ctx, goes_on_k);
  clear_entry(L);
  return resume(L, t, 0, ctx);
}

/* Takes the entry of the coroutine at index 1, of which a number of shields
** is left out.  NULL, or why it cannot be resumed. */
static const char *begin(lua_State *L, struct task *t)
{
  lua_Integer shields = 0;
  switch (push_entry(L)) {
  case LUA_TUSERDATA:
    return "cannot resume a coroutine that awaits";
  case LUA_TNUMBER:
    shields = lua_tointeger(L, -1);
    break;
  case LUA_TNIL:
    if (t != NULL)
      clear_entry(L);
    break;
  default:
    break;
  }
  lua_pop(L, 1);
  if (t == NULL || shields == 0)
    return NULL;
  if (t->shields + shields > UINT8_MAX)
    return "too many shields inside one another";
  t->shields += (uint8_t)shields;
  clear_entry(L);
  return NULL;
}

/* The coroutine is at index 1, and its arguments above it. */
static int start(lua_State *L, bool wraps)
{
  lua_State *co = lua_tothread(L, 1);
  struct task *t = passes_to(L, core_upvalue(L));
  lua_KContext ctx = context(wraps, t != NULL ? t->shields : 0);
  int nargs = lua_gettop(L) - 1;
  const char *why = NULL;
  luaL_checkstack(L, 4, "resuming a coroutine");
  if (!lua_checkstack(co, nargs))
    why = "too many arguments to resume";
  else
    why = begin(L, t);
  if (why == NULL) {
    lua_xmove(L, co, nargs);
    return resume(L, t, nargs, ctx);
  }
  lua_pushboolean(L, 0);
  lua_pushstring(L, why);
  return wraps ? rethrow(L, false) : 2;
}

/* resume(co, …) -> true, values | false, error */
static int coroutine_resume(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTHREAD);
  return start(L, false);
}

/*
** wrap
*/

static int body_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)ctx;
  if (status != LUA_OK && status != LUA_YIELD)
    return lua_error(L);
  return lua_gettop(L);
}

/* What a coroutine that a task wraps runs.  If it fails its <close> variables
** are closed from here, where they can still await; coroutine.wrap closes them
** itself, where they cannot. */
static int body(lua_State *L)
{
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  return body_k(L, lua_pcallk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, 0, body_k),
                0);
}

static int wrapped(lua_State *L)
{
  lua_pushvalue(L, lua_upvalueindex(UP_OWN));
  lua_insert(L, 1);
  return start(L, true);
}

/* wrap(fn) -> function that resumes a coroutine of fn each time it is called.
** Outside of tasks nothing awaits, and coroutines may nest twice as deep. */
static int coroutine_wrap(lua_State *L)
{
  const struct core *core = core_upvalue(L);
  lua_State *co;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_pushvalue(L, lua_upvalueindex(UP_CORE));
  lua_pushvalue(L, lua_upvalueindex(UP_TABLE));
  co = lua_newthread(L);
  lua_pushvalue(L, 1);
  if (core->sched.current != NULL)
    lua_pushcclosure(L, body, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, wrapped, UP_OWN);
  return 1;
}

/*
** The others
*/

static int call_original(lua_State *L)
{
  lua_pushvalue(L, lua_upvalueindex(UP_OWN));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

/* status(co): of one that awaits, "normal": it is in the midst of something,
** and cannot be resumed */
static int coroutine_status(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTHREAD);
  if (!is_awaiting(L))
    return call_original(L);
  lua_pushliteral(L, "normal");
  return 1;
}

/* close(co): as coroutine.close; one that awaits cannot be closed */
static int coroutine_close(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTHREAD);
  if (is_awaiting(L))
    return luaL_error(L, "cannot close a coroutine that awaits");
  return call_original(L);
}

static const luaL_Reg functions[] = {
    {"resume", coroutine_resume},
    {"wrap", coroutine_wrap},
    {"status", coroutine_status},
    {"close", coroutine_close},
    {NULL, NULL},
};

/* A copy of the library's table, on the top. */
static void push_copy(lua_State *L)
{
  lua_newtable(L);
  luaL_requiref(L, LUA_COLIBNAME, luaopen_coroutine, 0);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, -6);
  }
  lua_pop(L, 1);
}

static void push_weak_table(lua_State *L)
{
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
}

void coroutine_register(lua_State *L, struct core *core)
{
  push_copy(L);
  push_weak_table(L);
  for (const luaL_Reg *f = functions; f->name != NULL; f++) {
    lua_pushlightuserdata(L, core);
    lua_pushvalue(L, -2);
    lua_getfield(L, -4, f->name); /* the original */
    lua_pushcclosure(L, f->func, UP_OWN);
    lua_setfield(L, -3, f->name);
  }
  lua_pop(L, 1);
  lua_setfield(L, -2, "coroutine");
}
