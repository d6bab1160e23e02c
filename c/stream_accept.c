/* Accepting a connection as a stream. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "op.h"
#include "operation.h"
#include "stream_call.h"
#include "task.h"

/* The stack of a call: descriptor, name, stream. */
enum { AT_FD = 1, AT_NAME, AT_STREAM };

static int accept_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  struct outcome *o = &t->outcome;
  (void)status;
  if (!task_is_resumed(t))
    return task_park_again(L, t, accept_k);
  if (o->res >= 0) {
    stream_open(lua_touserdata(L, AT_STREAM), o->res);
    o->state = OUTCOME_DELIVERED;
    lua_settop(L, AT_STREAM);
    return 1;
  }
  if (task_is_struck(t))
    return task_raise_cancelled(L);
  return outcome_push(L, o);
}

static int accept_here(lua_State *L, struct ring *r, struct task *t);

static int room_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  (void)status;
  if (!task_is_resumed(t))
    return task_park_again(L, t, room_k);
  task_check_interrupted(L, t);
  return accept_here(L, ring_home(L, t->core), t);
}

static int accept_here(lua_State *L, struct ring *r, struct task *t)
{
  struct io_uring_sqe sqe;
  struct event *e = NULL;
  if (!ring_has_room(r))
    return task_park(L, t, &r->space, room_k, (lua_KContext)t);
  if (ring_reserve(r))
    e = stream_event(L, r, IORING_OP_ACCEPT, (int)lua_tointeger(L, AT_FD),
                     &sqe);
  if (e == NULL)
    return luaL_error(L, "not enough memory");
  e->flags |= EVENT_YIELDS_FD;
  sqe.accept_flags = SOCK_CLOEXEC;
  sqe.user_data = event_user_data(e);
  ring_queue(r, e, &sqe);
  e->task = t;
  t->event = e;
  return task_park(L, t, NULL, accept_k, (lua_KContext)t);
}

/* Prepares and awaits: descriptor, flags -> fd, peer | nil, message, errno */
static int operate(lua_State *L)
{
  struct ring *r = core_home(L, core_of(L));
  return operation_call(L, r, op_find("accept"));
}

static int accept_outside(lua_State *L)
{
  lua_pushcfunction(L, operate);
  lua_pushvalue(L, AT_FD);
  lua_pushinteger(L, SOCK_CLOEXEC);
  lua_call(L, 2, 3);
  if (!lua_isinteger(L, -3))
    return 3;
  stream_open(lua_touserdata(L, AT_STREAM), (int)lua_tointeger(L, -3));
  lua_settop(L, AT_STREAM);
  return 1;
}

int stream_accept(lua_State *L)
{
  struct core *core = core_upvalue(L);
  lua_Integer fd = luaL_checkinteger(L, AT_FD);
  struct ring *r;
  struct task *t;
  luaL_argcheck(L, fd >= 0 && fd <= INT_MAX, AT_FD, "descriptor out of range");
  luaL_checkstring(L, AT_NAME);
  lua_settop(L, AT_NAME);
  r = ring_home(L, core);
  t = task_awaiting(L, core);
  stream_push(L, core, STREAM_SOCKET, AT_NAME);
  if (t == NULL)
    return accept_outside(L);
  if (ring_is_crowded(r))
    return task_park(L, t, &r->space, room_k, (lua_KContext)t);
  return accept_here(L, r, t);
}
