/* The table that uring.ring takes. */
#include "ring_options.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "multishot.h"
#include "near.h"
#include "op.h"
#include "ring_object.h"

enum option_type {
  OPTION_UNSIGNED,
  OPTION_BOOLEAN,
  OPTION_SECONDS,
  OPTION_MILLISECONDS,
  OPTION_CPU,
  OPTION_DRIVER,
  OPTION_RING,
  OPTION_TABLE
};

static void read_fault(lua_State *L, int table, struct ring_options *o);
static void read_without(lua_State *L, int table, struct ring_options *o);

#define AT(field) offsetof(struct ring_options, field)

static const struct option {
  const char *name;
  uint8_t type;
  size_t where;
  void (*read)(lua_State *L, int table, struct ring_options *o);
} options[] = {
    {"entries", OPTION_UNSIGNED, AT(entries), NULL},
    {"cq_entries", OPTION_UNSIGNED, AT(cq_entries), NULL},
    {"backlog", OPTION_UNSIGNED, AT(backlog), NULL},
    {"sqpoll", OPTION_BOOLEAN, AT(sqpoll), NULL},
    {"iopoll", OPTION_BOOLEAN, AT(iopoll), NULL},
    {"attach", OPTION_RING, AT(attach), NULL},
    {"sq_thread_idle", OPTION_MILLISECONDS, AT(sq_thread_idle_ms), NULL},
    {"sq_thread_cpu", OPTION_CPU, AT(sq_thread_cpu), NULL},
    {"drain_timeout", OPTION_SECONDS, AT(drain_timeout), NULL},
    {"driver", OPTION_DRIVER, AT(driver), NULL},
    {"fault", OPTION_TABLE, 0, read_fault},
    {"without", OPTION_TABLE, 0, read_without},
};

#define NOPTIONS (sizeof options / sizeof *options)

static const struct option *find_option(lua_State *L, const char *name)
{
  struct near near;
  near_start(&near, name);
  for (size_t i = 0; i < NOPTIONS; i++) {
    if (strcmp(options[i].name, name) == 0)
      return &options[i];
    near_offer(&near, options[i].name);
  }
  near_push(L, &near);
  lua_pushfstring(L, "unknown option '%s' of ring%s; it takes", name,
                  lua_tostring(L, -1));
  for (size_t i = 0; i < NOPTIONS; i++)
    lua_pushfstring(L, "%s %s", lua_tostring(L, -1), options[i].name);
  luaL_error(L, "%s", lua_tostring(L, -1));
  return NULL;
}

/* The value is on the top of the stack. */
static int bad_option(lua_State *L, const char *name, const char *expected)
{
  return luaL_error(L, "option '%s' of ring: %s expected, got %s", name,
                    expected, luaL_tolstring(L, -1, NULL));
}

static bool is_integer(lua_State *L, lua_Integer min, lua_Integer max)
{
  int exact = lua_type(L, -1) == LUA_TNUMBER;
  lua_Integer n = exact ? lua_tointegerx(L, -1, &exact) : 0;
  return exact && n >= min && n <= max;
}

static lua_Integer integer_option(lua_State *L, const char *name,
                                  lua_Integer min, lua_Integer max)
{
  char expected[64];
  if (!is_integer(L, min, max)) {
    snprintf(expected, sizeof expected, "integer from %lld to %lld",
             (long long)min, (long long)max);
    bad_option(L, name, expected);
  }
  return lua_tointeger(L, -1);
}

static lua_Number seconds_option(lua_State *L, const char *name)
{
  if (lua_type(L, -1) != LUA_TNUMBER || !(lua_tonumber(L, -1) >= 0))
    bad_option(L, name, "seconds ≥ 0");
  return lua_tonumber(L, -1);
}

static const struct ring *ring_option(lua_State *L, const char *name)
{
  if (luaL_testudata(L, -1, RING_TYPE) == NULL)
    bad_option(L, name, "ring");
  return ring_object_open(L, lua_gettop(L));
}

/* The value is on the top of the stack. */
static void read_option(lua_State *L, const struct option *option,
                        struct ring_options *o)
{
  char *at = (char *)o + option->where;
  const char *name = option->name;
  lua_Number seconds;
  switch ((enum option_type)option->type) {
  case OPTION_UNSIGNED:
    *(unsigned *)at = (unsigned)integer_option(L, name, 1, 1 << 20);
    break;
  case OPTION_BOOLEAN:
    if (!lua_isboolean(L, -1))
      bad_option(L, name, "true or false");
    *(bool *)at = lua_toboolean(L, -1);
    break;
  case OPTION_SECONDS:
    *(lua_Number *)at = seconds_option(L, name);
    break;
  case OPTION_MILLISECONDS:
    seconds = seconds_option(L, name) * 1000;
    *(unsigned *)at = seconds < UINT_MAX ? (unsigned)seconds : UINT_MAX;
    break;
  case OPTION_CPU:
    *(int *)at = (int)integer_option(L, name, 0, 1 << 16);
    break;
  case OPTION_DRIVER:
    if (lua_type(L, -1) == LUA_TSTRING)
      o->driver = driver_find(lua_tostring(L, -1));
    if (lua_type(L, -1) != LUA_TSTRING || o->driver == NULL)
      bad_option(L, name, "'kernel' or 'fault'");
    break;
  case OPTION_RING:
    *(const struct ring **)at = ring_option(L, name);
    break;
  case OPTION_TABLE:
    if (!lua_istable(L, -1))
      bad_option(L, name, "table");
    option->read(L, lua_gettop(L), o);
    break;
  }
}

static void unknown_fault_field(lua_State *L, const char *name)
{
  struct near near;
  near_start(&near, name);
  near_offer(&near, "seed");
  near_offer(&near, "rate");
  near_offer(&near, "errno");
  near_push(L, &near);
  luaL_error(L,
             "unknown field '%s' of option 'fault'%s; it takes seed rate "
             "errno",
             name, lua_tostring(L, -1));
}

/* fault = { seed = integer, rate = 0..1, errno = integer } */
static void read_fault(lua_State *L, int table, struct ring_options *o)
{
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    const char *name =
        lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    if (strcmp(name, "seed") == 0) {
      o->fault_seed =
          integer_option(L, "fault.seed", LUA_MININTEGER, LUA_MAXINTEGER);
    } else if (strcmp(name, "errno") == 0) {
      o->fault_errno = (int)integer_option(L, "fault.errno", 0, 4095);
    } else if (strcmp(name, "rate") == 0) {
      o->fault_rate = lua_tonumber(L, -1);
      if (lua_type(L, -1) != LUA_TNUMBER ||
          !(o->fault_rate >= 0 && o->fault_rate <= 1))
        bad_option(L, "fault.rate", "number from 0 to 1");
    } else {
      unknown_fault_field(L, name);
    }
  }
}

/* without = { "bind", … }: treats these as missing from the kernel */
static void read_without(lua_State *L, int table, struct ring_options *o)
{
  lua_Integer count = (lua_Integer)lua_rawlen(L, table);
  for (lua_Integer i = 1; i <= count; i++) {
    const struct row *row;
    lua_rawgeti(L, table, i);
    if (lua_type(L, -1) != LUA_TSTRING)
      bad_option(L, "without", "names of operations");
    if (multishot_without(o, lua_tostring(L, -1))) {
      lua_pop(L, 1);
      continue;
    }
    row = op_check(L, -1);
    o->without[row->opcode / 8] |= (uint8_t)(1u << (row->opcode % 8));
    lua_pop(L, 1);
  }
}

void ring_options_read(lua_State *L, int table, struct ring_options *o)
{
  ring_default_options(o);
  if (lua_isnoneornil(L, table))
    return;
  luaL_checktype(L, table, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      luaL_error(L, "options of ring have names");
    read_option(L, find_option(L, lua_tostring(L, -2)), o);
  }
  if (o->attach && o->sqpoll && !(o->attach->io.flags & IORING_SETUP_SQPOLL))
    luaL_error(L, "option 'attach' of ring: with sqpoll it takes a ring that "
                  "has sqpoll, too");
}
