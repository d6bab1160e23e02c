/* Task-local storage.
**
** A task and those that it has spawned refer to one table until one of them
** writes: that one gets a copy.  So a child keeps what was set when it was
** spawned, whoever sets what later, and inheriting costs a reference.
*/
#include "locals.h"

/* Registry key of the main chunk's table. */
static const char main_key = 'l';

/* Pushes the table of a task, or of the main chunk; nil: it has none yet. */
static void push_table(lua_State *L, const struct task *t)
{
  if (t == NULL) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &main_key);
    return;
  }
  task_push(L, t);
  task_push_extra(L, -1, EXTRA_LOCALS);
  lua_remove(L, -2);
}

/* Sets it to the one on the top, which stays there. */
static void set_table(lua_State *L, const struct task *t)
{
  if (t == NULL) {
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &main_key);
    return;
  }
  task_push(L, t);
  lua_pushvalue(L, -2);
  task_set_extra(L, -2, EXTRA_LOCALS);
  lua_pop(L, 1);
}

/* Is its table another's, too? */
static bool *shared(struct core *core, struct task *t)
{
  return t != NULL ? &t->locals_shared : &core->locals_shared;
}

void locals_inherit(lua_State *L, struct task *t)
{
  struct task *from = t->core->sched.current;
  push_table(L, from);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return;
  }
  task_set_extra(L, -2, EXTRA_LOCALS);
  *shared(t->core, from) = t->locals_shared = true;
}

/* Pushes a copy of the table on the top, or an empty one for nil. */
static void push_copy(lua_State *L)
{
  lua_newtable(L);
  if (!lua_istable(L, -2))
    return;
  for (lua_pushnil(L); lua_next(L, -3); lua_pop(L, 1)) {
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, -5);
  }
}

/* locals[key] */
static int locals_index(lua_State *L)
{
  struct core *core = core_upvalue(L);
  push_table(L, core->sched.current);
  if (lua_istable(L, -1)) {
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
  }
  return 1;
}

/* locals[key] = value */
static int locals_newindex(lua_State *L)
{
  struct core *core = core_upvalue(L);
  struct task *t = core->sched.current;
  if (lua_isnil(L, 2))
    return luaL_error(L, "index is nil");
  push_table(L, t);
  if (lua_isnil(L, -1) || *shared(core, t)) {
    push_copy(L);
    set_table(L, t);
    *shared(core, t) = false;
    core->has_locals = true;
  }
  lua_pushvalue(L, 2);
  lua_pushvalue(L, 3);
  lua_rawset(L, -3);
  return 0;
}

/* pairs(locals): of a copy, so they may be changed meanwhile */
static int locals_pairs(lua_State *L)
{
  struct core *core = core_upvalue(L);
  lua_getglobal(L, "next");
  push_table(L, core->sched.current);
  push_copy(L);
  lua_replace(L, -2);
  return 2;
}

/* keep_locals() -> what the task has now, for reset_locals */
static int locals_keep(lua_State *L)
{
  struct core *core = core_upvalue(L);
  push_table(L, core->sched.current);
  *shared(core, core->sched.current) = true;
  return 1;
}

/* reset_locals(kept): the task has that again, and nothing else */
static int locals_reset(lua_State *L)
{
  struct core *core = core_upvalue(L);
  lua_settop(L, 1);
  push_table(L, core->sched.current);
  if (!lua_rawequal(L, 1, 2)) {
    lua_pushvalue(L, 1);
    set_table(L, core->sched.current);
    *shared(core, core->sched.current) = true;
  }
  return 0;
}

static const luaL_Reg functions[] = {
    {"keep_locals", locals_keep},
    {"reset_locals", locals_reset},
    {NULL, NULL},
};

static const luaL_Reg meta[] = {
    {"__index", locals_index},
    {"__newindex", locals_newindex},
    {"__pairs", locals_pairs},
    {NULL, NULL},
};

void locals_register(lua_State *L, struct core *core)
{
  lua_newtable(L);
  luaL_newlibtable(L, meta);
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, meta, 1);
  lua_pushliteral(L, "uring.locals");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_setmetatable(L, -2);
  lua_setfield(L, -2, "locals");
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, functions, 1);
}
