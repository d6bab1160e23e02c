/* Pools as Lua sees them. */
#include "pool_object.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "errors.h"
#include "near.h"
#include "pool.h"
#include "ring_object.h"

#define COUNT_MAX (1 << 15) /* entries of one ring of buffers */
#define BYTES_MAX (1 << 30)

struct pool *pool_test(lua_State *L, const struct core *core, int index)
{
  struct pool **box = lua_touserdata(L, index);
  bool same;
  if (box == NULL || !lua_getmetatable(L, index))
    return NULL;
  same = lua_topointer(L, -1) == core->pool_meta;
  lua_pop(L, 1);
  return same ? *box : NULL;
}

static struct pool *topool(lua_State *L)
{
  return *(struct pool **)luaL_checkudata(L, 1, POOL_TYPE);
}

static struct pool *open_pool(lua_State *L)
{
  struct pool *p = topool(L);
  if (p == NULL || !p->open)
    luaL_error(L, "attempt to use a closed pool");
  ring_object_check(L, p->ring);
  return p;
}

/*
** Opening
*/

static int unknown_option(lua_State *L, const char *name)
{
  static const char *const names[] = {"buffers", "size", "incremental",
                                      "outgoing"};
  struct near near;
  near_start(&near, name);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    near_offer(&near, names[i]);
  near_push(L, &near);
  return luaL_error(L,
                    "unknown option '%s' of pool%s; it takes buffers size "
                    "incremental outgoing",
                    name, lua_tostring(L, -1));
}

/* The value is on the top of the stack. */
static unsigned number(lua_State *L, const char *name, lua_Integer max)
{
  int exact = lua_type(L, -1) == LUA_TNUMBER;
  lua_Integer n = exact ? lua_tointegerx(L, -1, &exact) : 0;
  if (!exact || n < 1 || n > max)
    luaL_error(L, "option '%s' of pool: integer from 1 to %I expected, got %s",
               name, (LUAI_UACINT)max, luaL_tolstring(L, -1, NULL));
  return (unsigned)n;
}

static bool boolean(lua_State *L, const char *name)
{
  if (!lua_isboolean(L, -1))
    luaL_error(L, "option '%s' of pool: true or false expected, got %s", name,
               luaL_tolstring(L, -1, NULL));
  return lua_toboolean(L, -1);
}

static void read_option(lua_State *L, struct pool_options *o)
{
  const char *name =
      lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
  if (strcmp(name, "buffers") == 0)
    o->buffers = number(L, name, COUNT_MAX);
  else if (strcmp(name, "size") == 0)
    o->size = number(L, name, BYTES_MAX);
  else if (strcmp(name, "incremental") == 0)
    o->incremental = boolean(L, name);
  else if (strcmp(name, "outgoing") == 0)
    o->outgoing = boolean(L, name);
  else
    unknown_option(L, name);
}

static void read_options(lua_State *L, struct pool_options *o)
{
  o->buffers = 256;
  o->size = 4096;
  o->incremental = o->outgoing = o->uncleared = false;
  if (lua_isnoneornil(L, 2))
    return;
  luaL_checktype(L, 2, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1))
    read_option(L, o);
  if (o->incremental && o->outgoing)
    luaL_error(L, "a pool is incremental or outgoing, not both");
}

/* ring:pool { buffers = 256, size = 4096, incremental = false, outgoing =
** false } -> Pool | nil, message, errno */
static int pool_new(lua_State *L)
{
  struct pool_options o;
  struct pool **box;
  int err;
  ring_object_open(L, 1);
  read_options(L, &o);
  lua_settop(L, 1);
  box = lua_newuserdatauv(L, sizeof *box, 1);
  *box = NULL; /* closed until it is open */
  luaL_setmetatable(L, POOL_TYPE);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  buffer_tell_collector(L, (size_t)o.buffers * o.size);
  /* a finaliser may have closed the ring */
  *box = pool_open(ring_object_open(L, 1), &o, &err);
  if (*box == NULL && err == -ENOMEM) { /* dropped ones may be holding some */
    lua_gc(L, LUA_GCCOLLECT);
    *box = pool_open(ring_object_open(L, 1), &o, &err);
  }
  if (*box == NULL)
    return push_failure(L, "pool", -err);
  (*box)->object = true;
  return 1;
}

/*
** Methods
*/

/* close(): the kernel gets no more buffers of it.  What is received already
** stays; operations that wait for data of it end with ENOBUFS when there is
** some. */
static int pool_close_lua(lua_State *L)
{
  struct pool *p = topool(L);
  if (p != NULL)
    pool_close(p);
  return 0;
}

static int pool_gc(lua_State *L)
{
  struct pool **box = luaL_checkudata(L, 1, POOL_TYPE);
  if (*box != NULL)
    pool_dispose(*box);
  *box = NULL;
  return 0;
}

static void set_count(lua_State *L, const char *name, uint64_t n)
{
  lua_pushinteger(L, (lua_Integer)n);
  lua_setfield(L, -2, name);
}

/* stats() -> table: buffers, size, provided (to the kernel), out (with
** completions and the program), starved (times that it was found empty),
** incremental, outgoing */
static int pool_stats(lua_State *L)
{
  const struct pool *p = topool(L);
  if (p == NULL)
    return luaL_error(L, "attempt to use a closed pool");
  lua_createtable(L, 0, 7);
  set_count(L, "buffers", p->count);
  set_count(L, "size", p->size);
  set_count(L, "provided", p->provided);
  set_count(L, "out", p->out);
  set_count(L, "starved", p->starved);
  lua_pushboolean(L, p->incremental);
  lua_setfield(L, -2, "incremental");
  lua_pushboolean(L, p->outgoing);
  lua_setfield(L, -2, "outgoing");
  return 1;
}

/* group() -> the number that the kernel knows it by, for raw operations */
static int pool_group(lua_State *L)
{
  lua_pushinteger(L, open_pool(L)->group);
  return 1;
}

/* push(string | Buffer) -> true, it is to be sent behind what was pushed
** before; false: no buffer is free.  Of an outgoing pool. */
static int pool_push(lua_State *L)
{
  struct pool *p = open_pool(L);
  const struct buffer *b = buffer_test(L, p->core, 2);
  const void *bytes;
  size_t size;
  if (!p->outgoing)
    return luaL_error(L, "the pool is not for sending");
  if (b != NULL) {
    bytes = buffer_read_access(L, b);
    size = b->size;
  } else {
    bytes = luaL_checklstring(L, 2, &size);
  }
  luaL_argcheck(L, size > 0, 2, "nothing to send");
  if (size > p->size)
    return luaL_error(L, "%I bytes do not fit a pool's buffer of %I",
                      (LUAI_UACINT)size, (LUAI_UACINT)p->size);
  lua_pushboolean(L, pool_fill(p, bytes, size));
  return 1;
}

static int pool_len(lua_State *L)
{
  lua_pushinteger(L, open_pool(L)->count);
  return 1;
}

static int pool_tostring(lua_State *L)
{
  const struct pool *p = topool(L);
  if (p == NULL || !p->open)
    lua_pushliteral(L, "pool (closed)");
  else
    lua_pushfstring(L, "pool (%d of %d buffers of %d bytes)", (int)p->provided,
                    (int)p->count, (int)p->size);
  return 1;
}

static const luaL_Reg pool_methods[] = {
    {"close", pool_close_lua}, {"stats", pool_stats}, {"group", pool_group},
    {"push", pool_push},       {NULL, NULL},
};

static const luaL_Reg pool_meta[] = {
    {"__len", pool_len},
    {"__gc", pool_gc},
    {"__close", pool_close_lua},
    {"__tostring", pool_tostring},
    {NULL, NULL},
};

void pool_register(lua_State *L, struct core *core)
{
  luaL_newmetatable(L, POOL_TYPE);
  core->pool_meta = lua_topointer(L, -1);
  luaL_setfuncs(L, pool_meta, 0);
  luaL_newlib(L, pool_methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushcfunction(L, pool_new);
  lua_setfield(L, -2, "pool");
}
