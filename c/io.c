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

static struct stream *push_default(lua_State *L, int which)
{
  struct stream *s;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &keys[which]); /* none but a stream */
  s = lua_touserdata(L, -1);
  if (s == NULL || !stream_is_open(s))
    luaL_error(L, "default %s file is closed", names[which]);
  return s;
}

/* default_read(…): as `read` of the default input */
static int default_read(lua_State *L)
{
  push_default(L, INPUT);
  lua_insert(L, 1); /* the method goes on from there */
  return stream_read(L);
}

/* default_write(…): as `write` of the default output */
static int default_write(lua_State *L)
{
  const int last = lua_gettop(L);
  struct stream *s = push_default(L, OUTPUT);
  if (stream_keep(L, s, 1, last))
    return 1;
  lua_insert(L, 1);
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
