/* Selecting among channels.
**
** Cases: a channel to receive from, or { channel, value } to send to.  The
** stack of one that waits: the cases, then for each of them its channel and its
** value, nil where it receives.
*/
#include "channel_parts.h"
#include "loop.h"
#include "ring.h"
#include "task.h"

#define CASES_MAX 256

static int case_channel(int which)
{
  return 2 * which;
}

static void push_case(lua_State *L, int which)
{
  int type = lua_rawgeti(L, 1, which);
  if (type == LUA_TTABLE) {
    lua_rawgeti(L, -1, 1);
    lua_rawgeti(L, -2, 2);
    lua_remove(L, -3);
    luaL_argcheck(L, !lua_isnil(L, -1), 1, "nil cannot be sent");
  } else {
    lua_pushnil(L);
  }
  luaL_argcheck(L, luaL_testudata(L, -2, CHANNEL_TYPE) != NULL, 1,
                "channels, or { channel, value }, expected");
}

/* Tries one case; pushes what select returns: which, and the value received,
** true for one sent, or nil, "closed".  0: it has to wait. */
static int try_case(lua_State *L, int which)
{
  int at = case_channel(which);
  struct channel *c = lua_touserdata(L, at);
  bool sends = !lua_isnil(L, at + 1);
  lua_pushinteger(L, which);
  if (sends && !c->closed && channel_send_now(L, at, c, at + 1)) {
    lua_pushboolean(L, 1);
    return 2;
  }
  if (!sends && channel_receive_now(L, at, c))
    return 2;
  if (c->closed)
    return 1 + channel_push_closed(L);
  lua_pop(L, 1);
  return 0;
}

/* Begins with another case each time, so that none is starved.  Not in turn:
** who selects every other time would begin with the same one again. */
static int try_cases(lua_State *L, struct core *core, int n)
{
  unsigned *seed = &core->sched.selects, begin;
  *seed = *seed * 1664525u + 1013904223u;
  begin = *seed >> 16;
  for (int i = 0; i < n; i++) {
    int values = try_case(L, (int)((begin + (unsigned)i) % (unsigned)n) + 1);
    if (values > 0)
      return values;
  }
  return 0;
}

static int select_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  (void)status;
  if (!task_is_resumed(t))
    return waiting_park_again(L, t, select_k);
  task_check_interrupted(L, t);
  lua_pushinteger(L, t->which);
  if (t->granted == GRANT_CLOSED)
    return 1 + channel_push_closed(L);
  if (!lua_isnil(L, case_channel(t->which) + 1)) {
    lua_pushboolean(L, 1); /* sent */
    return 2;
  }
  lua_insert(L, -2); /* below the value, which came first */
  return 2;
}

static int wait_in_lines(lua_State *L, struct task *t, int n)
{
  struct waiting *places;
  luaL_checkstack(L, 4, "no room for a value to come");
  places = mem_alloc(t->core, (size_t)n * sizeof *places);
  if (places == NULL)
    return luaL_error(L, "not enough memory to select");
  for (int i = 0; i < n; i++) {
    int at = case_channel(i + 1);
    struct channel *c = lua_touserdata(L, at);
    int value = lua_isnil(L, at + 1) ? 0 : at + 1;
    waiting_enter(
        value != 0 ? &c->senders : &c->receivers, &places[i],
        (struct waiting){.task = t, .L = L, .value = value, .which = i + 1});
  }
  waiting_take(t, places, n);
  return waiting_park(L, t, select_k);
}

struct selecting {
  lua_State *L;
  int n;
};

static bool can_select(void *arg)
{
  const struct selecting *s = arg;
  for (int i = 1; i <= s->n; i++) {
    int at = case_channel(i);
    struct channel *c = lua_touserdata(s->L, at);
    if (lua_isnil(s->L, at + 1) ? channel_can_receive(c) : channel_can_send(c))
      return true;
  }
  return false;
}

int select_lua(lua_State *L)
{
  struct core *core = core_upvalue(L);
  struct selecting s = {L, 0};
  struct task *t;
  int values;
  core_enter(L, core);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  s.n = (int)lua_rawlen(L, 1);
  luaL_argcheck(L, s.n > 0, 1, "there is nothing to select from");
  luaL_argcheck(L, s.n <= CASES_MAX, 1, "too many cases");
  luaL_checkstack(L, 2 * s.n + 8, "too many cases");
  for (int i = 1; i <= s.n; i++)
    push_case(L, i);
  t = channel_awaiting(L, core);
  while ((values = try_cases(L, core, s.n)) == 0) {
    if (t != NULL)
      return wait_in_lines(L, t, s.n);
    loop_until(L, core_home(L, core), UINT64_MAX, can_select, &s);
  }
  return values;
}
