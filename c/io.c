/* The default files: what `io.read` and `io.write` are about.  One pair a Lua
** state, in its registry.
*/
#include "io.h"

#include "stream.h"

enum { INPUT, OUTPUT };

static const char *const names[] = {"input", "output", NULL};

/* The addresses are keys in the registry. */
static const char keys[2];

/* default_file("input" | "output" [, stream]) -> stream: sets it first */
static int default_file(lua_State *L)
{
  const char *key = &keys[luaL_checkoption(L, 1, NULL, names)];
  if (stream_test(L, 2) != NULL) {
    lua_settop(L, 2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, key);
  }
  lua_rawgetp(L, LUA_REGISTRYINDEX, key);
  return 1;
}

/* Puts it before the arguments: a method can go on from there. */
static void insert_default(lua_State *L, int which)
{
  const struct stream *s;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &keys[which]);
  s = stream_test(L, -1);
  if (s == NULL || !stream_is_open(s))
    luaL_error(L, "default %s file is closed", names[which]);
  lua_insert(L, 1);
}

/* default_read(…): as `read` of the default input */
static int default_read(lua_State *L)
{
  insert_default(L, INPUT);
  return stream_read(L);
}

/* default_write(…): as `write` of the default output */
static int default_write(lua_State *L)
{
  insert_default(L, OUTPUT);
  return stream_write(L);
}

static const luaL_Reg functions[] = {
    {"default_file", default_file},
    {"default_read", default_read},
    {"default_write", default_write},
    {NULL, NULL},
};

void io_register(lua_State *L)
{
  luaL_getmetatable(L, STREAM_TYPE);
  lua_pushvalue(L, -2);
  core_set_methods(L, functions, lua_gettop(L) - 1);
  lua_pop(L, 2);
}
