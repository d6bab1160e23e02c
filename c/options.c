/* Options: the table of options of an operation, read once and then used as
** often as the program likes.  Nothing can change them.
*/
#include "options.h"

#include <string.h>

#include "reader.h"

/* Those of the last call of `options` are known by their address: most calls
** that are made often share one. */
const struct options *options_test(lua_State *L, const struct core *core,
                                   int index)
{
  const struct options *o = lua_touserdata(L, index);
  bool same;
  if (o == NULL || o == core->options_last)
    return o;
  if (!lua_getmetatable(L, index))
    return NULL;
  same = lua_topointer(L, -1) == core->options_meta;
  lua_pop(L, 1);
  return same ? o : NULL;
}

/* options { name = value, … } -> Options, which stand for that table in any
** call; what a row does not take is refused there */
static int options_new(lua_State *L)
{
  static const struct row every = {.name = "options", .options = UINT16_MAX};
  struct request q;
  struct reader in = {L, &q, 1, 1, NULL};
  struct options *o;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  q.row = &every;
  o = lua_newuserdatauv(L, sizeof *o, 0);
  memset(o, 0, sizeof *o);
  args_read_options(&in, o);
  luaL_setmetatable(L, OPTIONS_TYPE);
  core_upvalue(L)->options_last = o;
  return 1;
}

/* The address may be another object's from now on. */
static int options_gc(lua_State *L)
{
  struct core *core = core_upvalue(L);
  if (core->options_last == luaL_checkudata(L, 1, OPTIONS_TYPE))
    core->options_last = NULL;
  return 0;
}

static int options_tostring(lua_State *L)
{
  args_push_options(L, luaL_checkudata(L, 1, OPTIONS_TYPE));
  lua_pushfstring(L, "options (%s)", lua_tostring(L, -1));
  return 1;
}

void options_register(lua_State *L, struct core *core)
{
  luaL_newmetatable(L, OPTIONS_TYPE);
  core->options_meta = lua_topointer(L, -1);
  lua_pushcfunction(L, options_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, options_gc, 1);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, options_new, 1);
  lua_setfield(L, -2, "options");
}
