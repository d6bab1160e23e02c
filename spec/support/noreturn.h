/* Read before every source that clang-tidy looks at: Lua's headers do not say
** that these functions never return, and its analyser goes on after them. */
#include <lauxlib.h>
#include <lua.h>

__attribute__((noreturn)) int lua_error(lua_State *L);
__attribute__((noreturn)) int luaL_error(lua_State *L, const char *fmt, ...);
__attribute__((noreturn)) int luaL_argerror(lua_State *L, int arg,
                                            const char *message);
__attribute__((noreturn)) int luaL_typeerror(lua_State *L, int arg,
                                             const char *name);
