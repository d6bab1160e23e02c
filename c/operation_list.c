/* What operations there are: prepared, with the kernel, or resting. */
#include "operation_list.h"

#include "operation.h"
#include "ring.h"
#include "rows.h"
#include "task.h"

static const char *state_of(const struct ring *r, const struct event *e)
{
  if (e->flags & EVENT_RESTING)
    return "resting";
  if (e->flags & EVENT_CANCELLING)
    return "cancelling";
  return ring_published(r, e) ? "submitted" : "prepared";
}

static size_t bytes_lent(const struct event *e)
{
  size_t bytes = e->flags & EVENT_ANCHORED ? e->string_bytes : 0;
  if (!(e->flags & EVENT_LENDS))
    return bytes;
  if (!(e->flags & EVENT_SHARES_LOAN) && e->loan.block != NULL)
    bytes += e->loan.size;
  if (e->aux != NULL)
    for (unsigned i = 0; i < e->aux->nvec; i++)
      if (e->aux->loans[i].block != NULL)
        bytes += e->aux->loans[i].size;
  return bytes;
}

/* What is told of an operation, apart from its task. */
struct described {
  const char *name, *status;
  bool awaited;       /* by a task, without a handle, */
  uint64_t waited_ns; /* for so long */
  size_t lent;
  int fd; /* -1: none */
  bool orphan;
};

static struct described look_at(const struct ring *r, const struct event *e)
{
  struct described d = {
      .name = event_name(e),
      .status = state_of(r, e),
      .awaited = e->task != NULL,
      .waited_ns = e->task != NULL ? task_parked_for(e->task, now_ns()) : 0,
      .lent = bytes_lent(e),
      .fd = e->row->args[0].kind == ARG_FD && e->fd >= 0 ? e->fd : -1,
      .orphan = e->task == NULL && e->op == NULL,
  };
  return d;
}

/* The task that waits for it without a handle is on the top, or nil, and below
** it the table to fill in. */
static void set_fields(lua_State *L, const struct described *d)
{
  lua_setfield(L, -2, "task");
  lua_pushstring(L, d->name);
  lua_setfield(L, -2, "name");
  lua_pushstring(L, d->status);
  lua_setfield(L, -2, "status");
  lua_pushinteger(L, (lua_Integer)d->lent);
  lua_setfield(L, -2, "lent");
  if (d->fd >= 0) {
    lua_pushinteger(L, d->fd);
    lua_setfield(L, -2, "fd");
  }
  if (d->awaited) {
    lua_pushnumber(L, (lua_Number)d->waited_ns / 1e9);
    lua_setfield(L, -2, "since");
  }
  if (d->orphan) {
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, "orphan");
  }
}

/* The ring numbered `number`, NULL where it is gone. */
static const struct ring *find_ring(const struct core *core, uint32_t number)
{
  const struct ring *r = core->rings;
  while (r != NULL && r->number != number)
    r = r->next;
  return r;
}

/* The event of a place in the table, NULL where there is none (now). */
static const struct event *event_at(const struct ring *r, unsigned i)
{
  const struct event *e;
  if (r == NULL || i / EVENT_CHUNK >= r->events.nchunks)
    return NULL;
  e = &r->events.chunks[i / EVENT_CHUNK]->events[i % EVENT_CHUNK];
  return e->flags & EVENT_USED ? e : NULL;
}

/* Pushes what is told of the operation at a place in a ring's table; false:
** there is none.  Making tables may collect, and a finaliser may end what was
** there, so it is looked at afterwards, in one go. */
static bool push_described(lua_State *L, const struct core *core,
                           uint32_t number, unsigned i)
{
  const struct event *e = event_at(find_ring(core, number), i);
  struct described d;
  if (e == NULL)
    return false;
  lua_createtable(L, 0, 8);
  lua_pushinteger(L, number);
  lua_setfield(L, -2, "ring");
  e = event_at(find_ring(core, number), i);
  if (e == NULL) {
    lua_pop(L, 1);
    return false;
  }
  d = look_at(find_ring(core, number), e);
  lua_rawgeti(L, LUA_REGISTRYINDEX, core->tasks_ref);
  if (e->task != NULL)
    lua_rawgeti(L, -1, e->task->slot);
  else
    lua_pushnil(L);
  lua_remove(L, -2);
  set_fields(L, &d);
  return true;
}

static unsigned places(const struct ring *r)
{
  return r != NULL ? r->events.nchunks * EVENT_CHUNK : 0;
}

/* operations() -> { { name =, status =, ring =, lent =, fd =, task =, since =,
** orphan = }, … } */
static int list_operations(lua_State *L)
{
  struct core *core = core_upvalue(L);
  lua_Integer n = 0;
  core_enter(L, core);
  lua_settop(L, 0);
  lua_newtable(L);
  for (uint32_t number = 1; number <= core->opened; number++)
    for (unsigned i = 0; i < places(find_ring(core, number)); i++)
      if (push_described(L, core, number, i))
        lua_rawseti(L, 1, ++n);
  return 1;
}

void operation_list_register(lua_State *L, struct core *core)
{
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, list_operations, 1);
  lua_setfield(L, -2, "operations");
}
