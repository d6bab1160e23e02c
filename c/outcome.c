/* What results mean. */
#include "outcome.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "direct.h"
#include "errors.h"
#include "event.h"
#include "op.h"
#include "pool.h"
#include "sockaddr.h"
#include "statx.h"

static void set_integer(lua_State *L, const char *name, uint64_t n)
{
  lua_pushinteger(L, (lua_Integer)n);
  lua_setfield(L, -2, name);
}

/* A message in a buffer of a pool stands behind a header, the sender's address
** and control data, for both of which the call has set room aside
** (io_uring_recvmsg_out). */
static int push_pool_message(lua_State *L, struct outcome *o)
{
  struct pool_message m;
  pool_message(&o->data, o->control_room, &m);
  lua_pushinteger(L, m.size);
  lua_createtable(L, 0, 4);
  if (m.name_size > 0) {
    sockaddr_push(L, &m.name, m.name_size);
    lua_setfield(L, -2, "from");
  }
  set_integer(L, "flags", m.flags);
  set_integer(L, "control_length", m.control_size);
  if (m.control_size > 0) {
    lua_pushlstring(L, m.control, m.control_size);
    lua_setfield(L, -2, "control");
  }
  data_push(L, &o->data, m.offset, m.size);
  o->res = (int32_t)m.size; /* asked again, there is only that */
  return 3;
}

static void push_message(lua_State *L, const struct aux *aux)
{
  lua_createtable(L, 0, 3);
  if (aux->msg.msg_namelen > 0) {
    sockaddr_push(L, &aux->addr, aux->msg.msg_namelen);
    lua_setfield(L, -2, "from");
  }
  set_integer(L, "flags", (unsigned)aux->msg.msg_flags);
  set_integer(L, "control_length", aux->msg.msg_controllen);
}

/* What waitid(2) tells of a child.  pid is 0 where none has changed. */
static void push_child(lua_State *L, const siginfo_t *child)
{
  lua_createtable(L, 0, 5);
  set_integer(L, "pid", (uint64_t)child->si_pid);
  set_integer(L, "uid", child->si_uid);
  set_integer(L, "signo", (uint64_t)child->si_signo);
  set_integer(L, "code", (uint64_t)child->si_code);
  set_integer(L, "status", (uint64_t)child->si_status);
}

static void push_epoll(lua_State *L, const struct epoll_event *events, int n)
{
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_createtable(L, 0, 2);
    set_integer(L, "events", events[i].events);
    set_integer(L, "data", events[i].data.u64);
    lua_rawseti(L, -2, i + 1);
  }
}

static void push_files(lua_State *L, const int *slots, int n)
{
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_pushinteger(L, slots[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

/* An option shorter than an int is the first bytes of one. */
static void push_option(lua_State *L, int value, int32_t size)
{
  lua_pushinteger(L, size == 1 ? *(unsigned char *)&value : value);
}

static int push_fields(lua_State *L, const struct outcome *o)
{
  lua_pushinteger(L, o->res);
  switch ((enum result_kind)o->row->result) {
  case RESULT_STATX:
    statx_push(L, &o->aux->statx);
    return 2;
  case RESULT_PEER:
    if (!o->wants_peer)
      return 1;
    sockaddr_push(L, &o->aux->addr, o->aux->addr_len);
    return 2;
  case RESULT_MESSAGE:
    push_message(L, o->aux);
    return 2;
  case RESULT_PIPE:
    lua_pushinteger(L, aux_extra(o->aux)->fds[0]);
    lua_pushinteger(L, aux_extra(o->aux)->fds[1]);
    return 3;
  case RESULT_OPTION:
    if (o->aux == NULL)
      return 1;
    push_option(L, aux_extra(o->aux)->value, o->res);
    return 2;
  case RESULT_CHILD:
    push_child(L, &aux_extra(o->aux)->child);
    return 2;
  case RESULT_EPOLL:
    push_epoll(L, aux_extra(o->aux)->events, o->res);
    return 2;
  case RESULT_FILES:
    if (o->yields != YIELDS_SLOT)
      return 1;
    push_files(L, aux_extra(o->aux)->files, o->res);
    return 2;
  case RESULT_WORD:
    lua_pushinteger(L, o->flags);
    return 2;
  case RESULT_INTEGER:
  case RESULT_PROVIDED:
  case RESULT_REMOVED:
  case RESULT_TIMEOUT:
    break;
  }
  return 1;
}

/* The number of a buffer that the program has provided by itself. */
static int push_number(lua_State *L, const struct outcome *o)
{
  if (o->data.shape != DATA_NUMBER)
    return 0;
  lua_pushinteger(L, o->flags >> IORING_CQE_BUFFER_SHIFT);
  return 1;
}

static int push_success(lua_State *L, struct outcome *o)
{
  int n;
  if (o->multishot && o->row->result == RESULT_MESSAGE) {
    if (o->data.block != NULL)
      return push_pool_message(L, o);
    lua_pushinteger(L, o->res);
    return 1;
  }
  n = push_fields(L, o);
  if (o->data.block == NULL)
    return n + push_number(L, o);
  data_push(L, &o->data, 0, o->data.size);
  return n + 1;
}

bool outcome_is_end(const struct outcome *o)
{
  if (!o->multishot || !o->row->streams)
    return false;
  return o->row->result == RESULT_MESSAGE
             ? o->res >= 0 && pool_message_is_end(&o->data)
             : o->res == 0;
}

bool outcome_is_expiry(const struct outcome *o)
{
  return o->row->result == RESULT_TIMEOUT && o->res == -ETIME;
}

static int push_failed(lua_State *L, const struct outcome *o)
{
  const struct row *row = o->row;
  if (outcome_is_expiry(o)) {
    lua_pushinteger(L, 0); /* time is up: what was asked for */
    return 1;
  }
  if (o->res == -ENOSYS && row->since != NULL) {
    lua_pushfstring(L, "not supported by this kernel (needs %s)", row->since);
    return push_failure_text(L, row->name, lua_tostring(L, -1), ENOSYS);
  }
  if (o->expired && o->res == -ETIMEDOUT)
    return push_failure_text(L, row->name, "timeout", ETIMEDOUT);
  return push_failure(L, row->name, -o->res);
}

int outcome_push(lua_State *L, struct outcome *o)
{
  int n = o->res >= 0 ? push_success(L, o) : push_failed(L, o);
  o->state = OUTCOME_DELIVERED;
  return n;
}

void outcome_lose(struct core *core, const struct outcome *from, int32_t res)
{
  if (res < 0)
    return;
  if (from->yields == YIELDS_FD)
    close(res);
  else if (from->yields == YIELDS_SLOT)
    direct_free(core, from->ring, res);
}

/* Where the result itself is not what it yields. */
static void lose_many(struct core *core, const struct outcome *o,
                      const int *many, int32_t count)
{
  for (int32_t i = 0; i < count; i++)
    outcome_lose(core, o, many[i]);
}

static void lose(struct core *core, const struct outcome *o)
{
  if (o->row->result == RESULT_PIPE)
    lose_many(core, o, aux_extra(o->aux)->fds, 2);
  else if (o->row->result == RESULT_FILES)
    lose_many(core, o, aux_extra(o->aux)->files, o->res);
  else
    outcome_lose(core, o, o->res);
}

void outcome_drop(struct core *core, struct outcome *o)
{
  if (o->state == OUTCOME_READY && o->res >= 0)
    lose(core, o);
  data_drop(&o->data);
  aux_free(core, o->aux);
  o->aux = NULL;
  o->state = OUTCOME_NONE;
}
