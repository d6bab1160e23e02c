/* Channels. */
#include "channel_parts.h"

#include <stdlib.h>
#include <string.h>

#include "loop.h"
#include "ring.h"
#include "task.h"

#define CAPACITY_MAX (1 << 24)

/* The buffer: a table, as user value 1 of the channel. */
enum { CHANNEL_BUFFER = 1 };

static struct channel *tochannel(lua_State *L, int index)
{
  return luaL_checkudata(L, index, CHANNEL_TYPE);
}

static struct channel *self(lua_State *L)
{
  struct channel *c = core_self(L);
  return c != NULL ? c : tochannel(L, 1);
}

/*
** Lines
*/

static void enter_line(struct waiting_list *list, struct waiting *w)
{
  w->list = list;
  w->next = NULL;
  w->prev = list->tail;
  if (list->tail != NULL)
    list->tail->next = w;
  else
    list->head = w;
  list->tail = w;
}

static void leave_line(struct waiting *w)
{
  struct waiting_list *list = w->list;
  if (list == NULL)
    return;
  if (w->prev != NULL)
    w->prev->next = w->next;
  else
    list->head = w->next;
  if (w->next != NULL)
    w->next->prev = w->prev;
  else
    list->tail = w->prev;
  w->list = NULL;
}

void waiting_leave(struct task *t)
{
  for (unsigned i = 0; i < t->nplaces; i++)
    leave_line(&t->places[i]);
  if (t->places != &t->place)
    mem_free(t->core, t->places, t->nplaces * sizeof *t->places);
  t->nplaces = 0;
  memset(&t->outcome, 0, sizeof t->outcome); /* it lies there again */
}

/* What the task waited for has come. */
static void grant(struct waiting *w, enum grant what)
{
  struct task *t = w->task;
  t->granted = (uint8_t)what;
  t->which = (uint16_t)w->which;
  waiting_leave(t);
  task_make_ready(t);
}

/* The program has closed the coroutine that waits, or its task's: its stack is
** lost. */
static bool is_lost(const struct waiting *w)
{
  return lua_status(w->L) != LUA_YIELD || lua_status(w->task->co) != LUA_YIELD;
}

/* Who waits longest, or NULL.  Those that are lost are woken to find out. */
static struct waiting *first(struct waiting_list *list)
{
  while (list->head != NULL && is_lost(list->head))
    grant(list->head, GRANT_NOTHING);
  return list->head;
}

/*
** Values
*/

/* Place `i` from the head, in the table. */
static lua_Integer place(const struct channel *c, unsigned i)
{
  return (lua_Integer)((c->head + i) % c->capacity) + 1;
}

static void push_buffer(lua_State *L, int channel)
{
  lua_getiuservalue(L, channel, CHANNEL_BUFFER);
}

/* The value at `value` on the stack of `from` becomes the last in the buffer;
** the channel is at `index` of L.  May raise, and then nothing has changed. */
static void put(lua_State *L, int index, struct channel *c, lua_State *from,
                int value)
{
  push_buffer(L, index);
  lua_pushvalue(from, value);
  if (from != L)
    lua_xmove(from, L, 1);
  lua_rawseti(L, -2, place(c, c->count));
  lua_pop(L, 1);
  c->count++;
}

/* Pushes the first in the buffer and takes it out. */
static void take(lua_State *L, int index, struct channel *c)
{
  push_buffer(L, index);
  lua_rawgeti(L, -1, place(c, 0));
  lua_pushboolean(L, 0);
  lua_rawseti(L, -3, place(c, 0));
  lua_remove(L, -2);
  c->head = (c->head + 1) % c->capacity;
  c->count--;
}

/* Gives the value at `value` of L to one that waits and has made room. */
static void hand_over(lua_State *L, struct waiting *w, int value)
{
  lua_pushvalue(L, value);
  lua_xmove(L, w->L, 1);
  grant(w, GRANT_VALUE);
}

/* Sends the value at a stack index if that can be done at once. */
bool channel_send_now(lua_State *L, int index, struct channel *c, int value)
{
  struct waiting *w = first(&c->receivers);
  if (w != NULL)
    hand_over(L, w, value);
  else if (c->count < c->capacity)
    put(L, index, c, L, value);
  else
    return false;
  return true;
}

/* Pushes a value if one can be had at once.  The sender that waits longest is
** next: its value takes the place that gets free. */
bool channel_receive_now(lua_State *L, int index, struct channel *c)
{
  struct waiting *w = first(&c->senders);
  if (c->count > 0) {
    take(L, index, c);
    if (w != NULL)
      put(L, index, c, w->L, w->value); /* where there was one: cannot raise */
  } else if (w != NULL) {
    lua_pushvalue(w->L, w->value);
    lua_xmove(w->L, L, 1);
  } else {
    return false;
  }
  if (w != NULL)
    grant(w, GRANT_SENT);
  return true;
}

int channel_push_closed(lua_State *L)
{
  lua_pushnil(L);
  lua_pushliteral(L, "closed");
  return 2;
}

static struct channel *usable(lua_State *L)
{
  struct channel *c = self(L);
  core_enter(L, c->core);
  return c;
}

/*
** Sending
*/

static void check_value(lua_State *L, int index)
{
  luaL_checkany(L, index);
  luaL_argcheck(L, !lua_isnil(L, index), index,
                "nil is what a closed channel gives");
}

/* A coroutine inside of the task, whose stack the places refer to, lives as long as the task from here on, or
** until another takes its place; what that allocates may run finalisers, so
** it comes before anything is looked at. */
struct task *channel_awaiting(lua_State *L, struct core *core)
{
  struct task *t = task_awaiting(L, core);
  if (t != NULL && L != t->co) {
    task_push(L, t);
    lua_pushthread(L);
    task_set_extra(L, -2, EXTRA_INNER);
    lua_pop(L, 1);
  }
  return t;
}

int waiting_park(lua_State *L, struct task *t, lua_KFunction k)
{
  t->granted = GRANT_NOTHING;
  t->top = lua_gettop(L);
  return task_park(L, t, NULL, k, (lua_KContext)t);
}

int waiting_park_again(lua_State *L, struct task *t, lua_KFunction k)
{
  lua_settop(L, t->top + (t->granted == GRANT_VALUE ? 1 : 0));
  return task_park_again(L, t, k);
}

void waiting_enter(struct waiting_list *list, struct waiting *w,
                   struct waiting as)
{
  *w = as;
  enter_line(list, w);
}

void waiting_take(struct task *t, struct waiting *places, int n)
{
  outcome_clear(t->core, &t->outcome); /* which lies there, too */
  t->places = places;
  t->nplaces = (uint16_t)n;
}

static int wait_in_line(lua_State *L, struct task *t,
                        struct waiting_list *list, int value, lua_KFunction k)
{
  luaL_checkstack(L, 4, "no room for a value to come");
  waiting_take(t, &t->place, 1);
  waiting_enter(list, &t->place,
                (struct waiting){.task = t, .L = L, .value = value});
  return waiting_park(L, t, k);
}

static int send_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  (void)status;
  if (!task_is_resumed(t))
    return waiting_park_again(L, t, send_k);
  task_check_interrupted(L, t);
  if (t->granted == GRANT_CLOSED)
    return channel_push_closed(L);
  lua_pushboolean(L, 1);
  return 1;
}

/* Perhaps: those who wait may turn out to be lost. */
bool channel_can_send(void *arg)
{
  const struct channel *c = arg;
  return c->closed || c->receivers.head != NULL || c->count < c->capacity;
}

/* channel:send(value) -> true, when somebody has it or it is in the buffer |
** nil, "closed" */
static int channel_send(lua_State *L)
{
  struct channel *c = usable(L);
  struct task *t;
  check_value(L, 2);
  lua_settop(L, 2);
  t = channel_awaiting(L, c->core);
  while (!c->closed && !channel_send_now(L, 1, c, 2)) {
    if (t != NULL)
      return wait_in_line(L, t, &c->senders, 2, send_k);
    loop_until(L, core_home(L, c->core), UINT64_MAX, channel_can_send, c);
  }
  if (c->closed)
    return channel_push_closed(L);
  lua_pushboolean(L, 1);
  return 1;
}

/* channel:try_send(value) -> true; false: it would have to wait | nil,
** "closed" */
static int channel_try_send(lua_State *L)
{
  struct channel *c = usable(L);
  check_value(L, 2);
  if (c->closed)
    return channel_push_closed(L);
  lua_pushboolean(L, channel_send_now(L, 1, c, 2));
  return 1;
}

/*
** Receiving
*/

static int receive_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  (void)status;
  if (!task_is_resumed(t))
    return waiting_park_again(L, t, receive_k);
  task_check_interrupted(L, t);
  return t->granted == GRANT_CLOSED ? channel_push_closed(L) : 1;
}

/* As above. */
bool channel_can_receive(void *arg)
{
  const struct channel *c = arg;
  return c->closed || c->senders.head != NULL || c->count > 0;
}

/* channel:receive() -> value | nil, "closed" */
static int channel_receive(lua_State *L)
{
  struct channel *c = usable(L);
  struct task *t;
  lua_settop(L, 1);
  t = channel_awaiting(L, c->core);
  while (!channel_receive_now(L, 1, c)) {
    if (c->closed)
      return channel_push_closed(L);
    if (t != NULL)
      return wait_in_line(L, t, &c->receivers, 0, receive_k);
    loop_until(L, core_home(L, c->core), UINT64_MAX, channel_can_receive, c);
  }
  return 1;
}

/* channel:try_receive() -> value; nil: there is none now | nil, "closed" */
static int channel_try_receive(lua_State *L)
{
  struct channel *c = usable(L);
  if (channel_receive_now(L, 1, c))
    return 1;
  if (c->closed)
    return channel_push_closed(L);
  lua_pushnil(L);
  return 1;
}

/* for value in channel:values(): until it is closed and empty */
static int channel_values(lua_State *L)
{
  self(L);
  lua_getfield(L, lua_upvalueindex(2), "receive");
  lua_pushvalue(L, 1);
  return 2;
}

/*
** The object
*/

/* channel([capacity = 0]) -> Channel */
static int channel_new(lua_State *L)
{
  struct core *core = core_upvalue(L);
  lua_Integer capacity = luaL_optinteger(L, 1, 0);
  struct channel *c;
  luaL_argcheck(L, capacity >= 0 && capacity <= CAPACITY_MAX, 1,
                "capacity is out of range");
  c = lua_newuserdatauv(L, sizeof *c, 1);
  memset(c, 0, sizeof *c);
  c->core = core;
  c->capacity = (unsigned)capacity;
  lua_createtable(L, capacity < 64 ? (int)capacity : 64, 0);
  lua_setiuservalue(L, -2, CHANNEL_BUFFER);
  luaL_setmetatable(L, CHANNEL_TYPE);
  return 1;
}

/* channel:close(): nothing more is sent.  What is in the buffer can still be
** received; everybody who waits gets nil, "closed".  Idempotent; also __close
*/
static int channel_close(lua_State *L)
{
  struct channel *c = self(L);
  c->closed = true;
  while (c->receivers.head != NULL)
    grant(c->receivers.head, GRANT_CLOSED);
  while (c->senders.head != NULL)
    grant(c->senders.head, GRANT_CLOSED);
  return 0;
}

/* channel:is_closed() -> boolean */
static int channel_is_closed(lua_State *L)
{
  lua_pushboolean(L, self(L)->closed);
  return 1;
}

static int channel_len(lua_State *L)
{
  lua_pushinteger(L, self(L)->count);
  return 1;
}

static int channel_tostring(lua_State *L)
{
  const struct channel *c = self(L);
  lua_pushfstring(L, "channel (%d of %d%s, %p)", (int)c->count,
                  (int)c->capacity, c->closed ? ", closed" : "",
                  (const void *)c);
  return 1;
}

/* Nobody has it, so whoever waits has lost its stack: the program closed its
** coroutine. */
static int channel_gc(lua_State *L)
{
  struct channel *c = tochannel(L, 1);
  while (c->receivers.head != NULL)
    grant(c->receivers.head, GRANT_NOTHING);
  while (c->senders.head != NULL)
    grant(c->senders.head, GRANT_NOTHING);
  return 0;
}

static const luaL_Reg methods[] = {
    {"send", channel_send},
    {"try_send", channel_try_send},
    {"receive", channel_receive},
    {"try_receive", channel_try_receive},
    {"close", channel_close},
    {"is_closed", channel_is_closed},
    {NULL, NULL},
};

static const luaL_Reg meta[] = {
    {"__gc", channel_gc},   {"__close", channel_close},
    {"__len", channel_len}, {"__tostring", channel_tostring},
    {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"channel", channel_new},
    {"select", select_lua},
    {NULL, NULL},
};

void channel_register(lua_State *L, struct core *core)
{
  luaL_newmetatable(L, CHANNEL_TYPE);
  core_set_methods(L, meta, -1);
  luaL_newlibtable(L, methods);
  core_set_methods(L, methods, -2);
  lua_pushlightuserdata(L, (void *)(uintptr_t)lua_topointer(L, -2));
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, channel_values, 2);
  lua_setfield(L, -2, "values");
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, functions, 1);
}
