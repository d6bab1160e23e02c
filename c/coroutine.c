/* uring.coroutine: the functions of `coroutine`, with which an await inside
** of a coroutine passes through to the task that runs it.
**
** A task awaits by yielding.  In a coroutine of the program's own that yield
** would end up at whoever has resumed it, as if it were a value for them.
** `resume` and `wrap` from here know the two apart: a coroutine that yields
** while its task is parked is awaiting, and they yield in turn, up to the
** task, and resume it when the task is resumed.  What the program yields
** itself is handed to it as ever.
*/
#include "coroutine.h"

#include <lualib.h>

#include "task.h"

/* Registry key of a table: coroutine -> true while it awaits. */
static const char awaiting_key = 'a';

/* User values of the closure that wrap makes: the core and the coroutine. */
enum { WRAP_COROUTINE = 2 };

static bool is_awaiting(lua_State *L, lua_State *co)
{
  bool yes;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &awaiting_key);
  lua_pushthread(co);
  lua_xmove(co, L, 1);
  lua_rawget(L, -2);
  yes = lua_toboolean(L, -1);
  lua_pop(L, 2);
  return yes;
}

/* The coroutine is at index 1. */
static void set_awaiting(lua_State *L, bool yes)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &awaiting_key);
  lua_pushvalue(L, 1);
  lua_pushboolean(L, yes);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

/* Makes a place in the table, so that none has to be made when the task is
** parked. */
static void reserve_awaiting(lua_State *L)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &awaiting_key);
  lua_pushvalue(L, 1);
  if (lua_rawget(L, -2) == LUA_TNIL)
    set_awaiting(L, false);
  lua_pop(L, 2);
}

/* Can awaits in a coroutine that is resumed here pass through? */
static bool passes(lua_State *L, const struct core *core)
{
  const struct task *t = core->sched.current;
  return t != NULL && t->inner == L && lua_isyieldable(L);
}

/* Why the coroutine at index 1 cannot be resumed; NULL: it can. */
static const char *refusal(lua_State *L, lua_State *co)
{
  lua_Debug ar;
  if (lua_status(co) == LUA_OK &&
      (lua_getstack(co, 0, &ar) || lua_gettop(co) == 0))
    return lua_getstack(co, 0, &ar) ? "cannot resume non-suspended coroutine"
                                    : "cannot resume dead coroutine";
  if (lua_status(co) != LUA_OK && lua_status(co) != LUA_YIELD)
    return "cannot resume dead coroutine";
  return is_awaiting(L, co) ? "cannot resume a coroutine that awaits" : NULL;
}

static int goes_on_k(lua_State *L, int status, lua_KContext ctx);

/* It failed; its error is on the top of its stack. */
static int failed(lua_State *L, lua_State *co, bool wraps)
{
  if (!wraps) {
    lua_pushboolean(L, 0);
    lua_xmove(co, L, 1);
    return 2;
  }
  lua_resetthread(co); /* closes its variables; the error stays */
  lua_xmove(co, L, 1);
  if (lua_type(L, -1) == LUA_TSTRING) { /* as coroutine.wrap does */
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

/* Resumes the coroutine at index 1, which has nargs values on its stack. */
static int resume(lua_State *L, struct core *core, int nargs, bool wraps)
{
  lua_State *co = lua_tothread(L, 1);
  struct task *t = passes(L, core) ? core->sched.current : NULL;
  int status, n = 0;
  if (t != NULL)
    t->inner = co;
  status = lua_resume(co, L, nargs, &n);
  if (t != NULL)
    t->inner = L;
  if (status == LUA_YIELD && t != NULL && t->state != TASK_RUNNING) {
    set_awaiting(L, true);
    return lua_yieldk(L, 0, (lua_KContext)wraps, goes_on_k);
  }
  if (status != LUA_OK && status != LUA_YIELD)
    return failed(L, co, wraps);
  if (!lua_checkstack(L, n + 1)) {
    lua_pop(co, n);
    return luaL_error(L, "too many results to resume");
  }
  lua_pushboolean(L, 1);
  lua_xmove(co, L, n);
  return wraps ? n : n + 1;
}

static int goes_on_k(lua_State *L, int status, lua_KContext ctx)
{
  struct core *core = core_of(L);
  const struct task *t = core->sched.current;
  (void)status;
  if (t == NULL || t->inner != L) /* somebody else has resumed us */
    return lua_yieldk(L, 0, ctx, goes_on_k);
  set_awaiting(L, false);
  return resume(L, core, 0, ctx != 0);
}

/* resume(co, …) -> true, values | false, error */
static int coroutine_resume(lua_State *L)
{
  lua_State *co;
  const char *why;
  int nargs = lua_gettop(L) - 1;
  luaL_checktype(L, 1, LUA_TTHREAD);
  co = lua_tothread(L, 1);
  why = refusal(L, co);
  if (why == NULL && !lua_checkstack(co, nargs))
    why = "too many arguments to resume";
  if (why != NULL) {
    lua_pushboolean(L, 0);
    lua_pushstring(L, why);
    return 2;
  }
  reserve_awaiting(L);
  lua_xmove(L, co, nargs);
  return resume(L, core_upvalue(L), nargs, false);
}

static int wrapped(lua_State *L)
{
  lua_State *co;
  const char *why;
  int nargs = lua_gettop(L);
  lua_pushvalue(L, lua_upvalueindex(WRAP_COROUTINE));
  lua_insert(L, 1);
  co = lua_tothread(L, 1);
  why = refusal(L, co);
  if (why == NULL && !lua_checkstack(co, nargs))
    why = "too many arguments to resume";
  if (why != NULL)
    return luaL_error(L, "%s", why);
  reserve_awaiting(L);
  lua_xmove(L, co, nargs);
  return resume(L, core_upvalue(L), nargs, true);
}

/* wrap(fn) -> function that resumes a coroutine of fn each time it is called
 */
static int coroutine_wrap(lua_State *L)
{
  lua_State *co;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_pushvalue(L, lua_upvalueindex(1));
  co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, wrapped, 2);
  return 1;
}

/* status(co): of one that awaits, "normal": it is in the midst of something,
** and cannot be resumed */
static int coroutine_status(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTHREAD);
  if (is_awaiting(L, lua_tothread(L, 1))) {
    lua_pushliteral(L, "normal");
    return 1;
  }
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

/* close(co): as coroutine.close; one that awaits cannot be closed */
static int coroutine_close(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTHREAD);
  if (is_awaiting(L, lua_tothread(L, 1)))
    return luaL_error(L, "cannot close a coroutine that awaits");
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

static const luaL_Reg functions[] = {
    {"resume", coroutine_resume},
    {"wrap", coroutine_wrap},
    {NULL, NULL},
};

/* Those that ask something first and then do what the original does. */
static const luaL_Reg around[] = {
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

static void make_awaiting(lua_State *L)
{
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &awaiting_key);
}

void coroutine_register(lua_State *L, struct core *core)
{
  make_awaiting(L);
  push_copy(L);
  for (const luaL_Reg *f = around; f->name != NULL; f++) {
    lua_pushlightuserdata(L, core);
    lua_getfield(L, -2, f->name);
    lua_pushcclosure(L, f->func, 2);
    lua_setfield(L, -2, f->name);
  }
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, functions, 1);
  lua_setfield(L, -2, "coroutine");
}
