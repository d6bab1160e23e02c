/* Channels, and selecting among several. */
#include "channel.h"

#include <stdlib.h>
#include <string.h>

#include "loop.h"
#include "ring.h"
#include "task.h"

#define CHANNEL_TYPE "uring.channel"
#define CAPACITY_MAX (1 << 24)
#define CASES_MAX    256

struct channel {
  struct core *core;
  unsigned capacity;
  unsigned head, count; /* of the buffer, a circle from place 1 on */
  bool closed;
  struct waiting_list receivers, senders;
};

/* The buffer: a table, as user value 1 of the channel. */
enum { CHANNEL_BUFFER = 1 };

/* What a task that waited is woken with.  A value is on its stack. */
enum grant { GRANT_NOTHING, GRANT_SENT, GRANT_VALUE, GRANT_CLOSED };

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
static bool send_now(lua_State *L, int index, struct channel *c, int value)
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
static bool receive_now(lua_State *L, int index, struct channel *c)
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

static int push_closed(lua_State *L)
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

/* Who would have to wait, as task_awaiting.  A coroutine inside of the task,
** whose stack the places refer to, lives as long as the task from here on, or
** until another takes its place; what that allocates may run finalisers, so
** it comes before anything is looked at. */
static struct task *who_awaits(lua_State *L, struct core *core)
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

/* Parks the task, which has taken its places; there is room on the stack. */
static int wait_there(lua_State *L, struct task *t, lua_KFunction k)
{
  t->granted = GRANT_NOTHING;
  t->top = lua_gettop(L);
  return task_park(L, t, NULL, k, (lua_KContext)t);
}

/* Somebody but the turn has resumed it: drops what they passed.  A value that
** has come meanwhile stays. */
static int wait_again(lua_State *L, struct task *t, lua_KFunction k)
{
  lua_settop(L, t->top + (t->granted == GRANT_VALUE ? 1 : 0));
  return task_park_again(L, t, k);
}

static void enter_as(struct waiting_list *list, struct waiting *w,
                     struct waiting as)
{
  *w = as;
  enter_line(list, w);
}

/* Takes `n` places for a task that stands nowhere. */
static void set_places(struct task *t, struct waiting *places, int n)
{
  t->places = places;
  t->nplaces = (uint16_t)n;
}

static int wait_in_line(lua_State *L, struct task *t,
                        struct waiting_list *list, int value, lua_KFunction k)
{
  luaL_checkstack(L, 4, "no room for a value to come");
  outcome_clear(t->core, &t->outcome);
  enter_as(list, &t->place,
           (struct waiting){.task = t, .L = L, .value = value});
  set_places(t, &t->place, 1);
  return wait_there(L, t, k);
}

static int send_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  (void)status;
  if (!task_is_resumed(t))
    return wait_again(L, t, send_k);
  task_check_interrupted(L, t);
  if (t->granted == GRANT_CLOSED)
    return push_closed(L);
  lua_pushboolean(L, 1);
  return 1;
}

/* Perhaps: those who wait may turn out to be lost. */
static bool can_send(void *arg)
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
  t = who_awaits(L, c->core);
  while (!c->closed && !send_now(L, 1, c, 2)) {
    if (t != NULL)
      return wait_in_line(L, t, &c->senders, 2, send_k);
    loop_until(L, core_home(L, c->core), UINT64_MAX, can_send, c);
  }
  if (c->closed)
    return push_closed(L);
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
    return push_closed(L);
  lua_pushboolean(L, send_now(L, 1, c, 2));
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
    return wait_again(L, t, receive_k);
  task_check_interrupted(L, t);
  return t->granted == GRANT_CLOSED ? push_closed(L) : 1;
}

/* As above. */
static bool can_receive(void *arg)
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
  t = who_awaits(L, c->core);
  while (!receive_now(L, 1, c)) {
    if (c->closed)
      return push_closed(L);
    if (t != NULL)
      return wait_in_line(L, t, &c->receivers, 0, receive_k);
    loop_until(L, core_home(L, c->core), UINT64_MAX, can_receive, c);
  }
  return 1;
}

/* channel:try_receive() -> value; nil: there is none now | nil, "closed" */
static int channel_try_receive(lua_State *L)
{
  struct channel *c = usable(L);
  if (receive_now(L, 1, c))
    return 1;
  if (c->closed)
    return push_closed(L);
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
** Selecting.  Cases: a channel to receive from, or { channel, value } to send
** to.  The stack of one that waits: the cases, then for each of them its
** channel and its value, nil where it receives.
*/

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
  struct channel *c = tochannel(L, at);
  bool sends = !lua_isnil(L, at + 1);
  lua_pushinteger(L, which);
  if (sends && !c->closed && send_now(L, at, c, at + 1)) {
    lua_pushboolean(L, 1);
    return 2;
  }
  if (!sends && receive_now(L, at, c))
    return 2;
  if (c->closed)
    return 1 + push_closed(L);
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
    return wait_again(L, t, select_k);
  task_check_interrupted(L, t);
  lua_pushinteger(L, t->which);
  if (t->granted == GRANT_CLOSED)
    return 1 + push_closed(L);
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
    enter_as(
        value != 0 ? &c->senders : &c->receivers, &places[i],
        (struct waiting){.task = t, .L = L, .value = value, .which = i + 1});
  }
  outcome_clear(t->core, &t->outcome);
  set_places(t, places, n);
  return wait_there(L, t, select_k);
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
    if (lua_isnil(s->L, at + 1) ? can_receive(c) : can_send(c))
      return true;
  }
  return false;
}

/* select { case, … } -> which, value | which, true | which, nil, "closed" */
static int channel_select(lua_State *L)
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
  t = who_awaits(L, core);
  while ((values = try_cases(L, core, s.n)) == 0) {
    if (t != NULL)
      return wait_in_lines(L, t, s.n);
    loop_until(L, core_home(L, core), UINT64_MAX, can_select, &s);
  }
  return values;
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
    {"select", channel_select},
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
