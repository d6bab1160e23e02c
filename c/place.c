/* The name of the C function that a task is inside of, where Lua can only
** return from it and not suspend it.
*/
#include "place.h"

#include <stdbool.h>
#include <string.h>

/* C functions that Lua can suspend; they are never what is in the way. */
static bool can_be_suspended(const char *name)
{
  static const char *const names[] = {"_G.pcall", "_G.xpcall", "_G.dofile"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(name, names[i]) == 0)
      return true;
  return false;
}

/* If the module at the top has the function at index `function`, replaces
** that by "module.name". */
static bool name_in_module(lua_State *L, int function, const char *module)
{
  if (!lua_istable(L, -1))
    return false;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
    if (lua_type(L, -2) == LUA_TSTRING && lua_rawequal(L, -1, function)) {
      lua_pushfstring(L, "%s.%s", module, lua_tostring(L, -2));
      lua_replace(L, function);
      lua_settop(L, function);
      return true;
    }
  return false;
}

/* Pushes "module.name" of the function on the top, which it pops; false: it
** is in no loaded module.  Lua's own modules first: others repeat what is in
** them under other names. */
static bool push_global_name(lua_State *L)
{
  static const char *const own[] = {"_G", "table", "string", "coroutine",
                                    "io", "os",    "debug",  "utf8"};
  int function = lua_gettop(L);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
    lua_getfield(L, function + 1, own[i]);
    if (name_in_module(L, function, own[i]))
      return true;
    lua_settop(L, function + 1);
  }
  for (lua_pushnil(L); lua_next(L, function + 1); lua_pop(L, 1))
    if (lua_type(L, -2) == LUA_TSTRING &&
        name_in_module(L, function, lua_tostring(L, -2)))
      return true;
  lua_settop(L, function - 1);
  return false;
}

const char *place_push(lua_State *L, lua_State *stuck)
{
  lua_Debug ar;
  luaL_checkstack(L, LUA_MINSTACK, "naming a place");
  for (int level = 1; lua_getstack(stuck, level, &ar); level++) {
    lua_getinfo(stuck, "Sn", &ar);
    lua_getinfo(L, "f", &ar);
    if (ar.name != NULL && strcmp(ar.name, "__gc") == 0)
      return lua_pushliteral(L, "a __gc finaliser");
    if (*ar.what != 'C') {
      lua_pop(L, 1);
    } else if (push_global_name(L)) {
      if (!can_be_suspended(lua_tostring(L, -1)))
        return lua_tostring(L, -1);
    } else if (ar.name != NULL) {
      return lua_pushstring(L, ar.name);
    }
  }
  return lua_pushliteral(L, "a C function");
}
