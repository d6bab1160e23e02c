/* The Stream object: its life, its limits. */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "errors.h"
#include "event.h"
#include "sockaddr.h"
#include "stream_call.h"
#include "timer.h"
#include "unwritten.h"

/* Bytes of a line, and of everything, where it comes from somebody else. */
#define LINE_MAX_BYTES (1u << 20)
#define ALL_MAX_BYTES  (1u << 28)

/* What a file keeps before it is written. */
#define FILE_ROOM 16384u

/* No other object has this address in it.  It is compared faster than a
** metatable, which has to be asked for at each call of a method. */
static const char mark = 's';

/*
** Making
*/

struct stream *stream_push(lua_State *L, struct core *core,
                           enum stream_kind kind, int name)
{
  struct stream *s;
  name = name != 0 ? lua_absindex(L, name) : 0;
  s = lua_newuserdatauv(L, sizeof *s, name != 0);
  memset(s, 0, sizeof *s);
  s->core = core;
  s->fd = -1;
  s->kind = (uint8_t)kind;
  s->writable = true;
  s->chunk = 4096;
  s->limits.line = kind == STREAM_FILE ? UNLIMITED : LINE_MAX_BYTES;
  s->limits.all = kind == STREAM_FILE ? UNLIMITED : ALL_MAX_BYTES;
  stream_adopt(s);
  if (name != 0) {
    lua_pushvalue(L, name);
    lua_setiuservalue(L, -2, 1);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, core->stream_meta_ref);
  lua_setmetatable(L, -2);
  s->mark = &mark;
  return s;
}

/* What is to be known of a file.  Neither call waits, for a file server
** either. */
static void look_at_file(struct stream *s)
{
  struct statx info;
  int flags = fcntl(s->fd, F_GETFL);
  s->appends = flags >= 0 && flags & O_APPEND;
  s->writable = flags < 0 || (flags & O_ACCMODE) != O_RDONLY;
  s->regular = statx(s->fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE,
                     &info) == 0 &&
               S_ISREG(info.stx_mode);
  if (s->regular) { /* a device is told at once */
    s->buffering = BUFFER_FULL;
    s->room = FILE_ROOM;
  }
}

void stream_open(struct stream *s, int fd)
{
  s->fd = fd;
  if (stream_is_file(s))
    look_at_file(s);
}

/*
** At hand
*/

struct stream *stream_test(lua_State *L, int index)
{
  return luaL_testudata(L, index, STREAM_TYPE);
}

struct stream *stream_self(lua_State *L)
{
  struct stream *s = lua_touserdata(L, 1);
  if (s != NULL && lua_rawlen(L, 1) == sizeof *s && s->mark == &mark)
    return s;
  return luaL_checkudata(L, 1, STREAM_TYPE);
}

struct stream *stream_open_self(lua_State *L)
{
  struct stream *s = stream_self(L);
  if (!stream_is_open(s))
    luaL_error(L, "attempt to use a closed %s", stream_kind_name(s));
  return s;
}

int stream_bad_argument(lua_State *L, int n, const char *method,
                        const char *why)
{
  return luaL_error(L, "bad argument #%d to '%s' (%s)", n, method, why);
}

int stream_failure(lua_State *L, const struct stream *s, const char *subject,
                   int err)
{
  lua_pushnil(L);
  if (err == STREAM_LATE) {
    lua_pushliteral(L, "timeout");
    err = -ETIMEDOUT;
  } else if (err == -ECANCELED && !stream_is_open(s)) {
    lua_pushliteral(L, "closed");
  } else if (stream_is_file(s)) {
    lua_pushstring(L, strerror(-err));
  } else {
    lua_pushfstring(L, "%s: %s", subject, strerror(-err));
  }
  lua_pushinteger(L, -err);
  return 3;
}

void stream_unread(struct stream *s)
{
  size_t ahead = input_size(&s->in);
  if (!s->regular || ahead == 0)
    return;
  (void)lseek(s->fd, -(off_t)ahead, SEEK_CUR);
  s->in.cursor = s->in.last;
  input_take(&s->in, true);
}

/*
** Closing
*/

static void let_go(struct stream *s)
{
  input_drop(&s->in);
  output_drop(&s->out);
  unwritten_leave(s);
  s->fd = -1;
}

/* What is dropped without being closed. */
static int stream_gc(lua_State *L)
{
  struct stream *s = stream_self(L);
  int fd = s->fd;
  s->mark = NULL; /* its memory may be somebody else's next */
  if (fd < 0)
    return 0;
  stream_enter(s);
  if (output_size(&s->out) > 0)
    stream_end_operation(L, s, stream_is_file(s) ? LANE_READ : LANE_WRITE);
  stream_unread(s);
  unwritten_write(s);
  let_go(s);
  if (!s->borrowed)
    close(fd);
  return 0;
}

/* stream_closing(stream) -> is it to be closed?  Whoever uses it is
** interrupted, and nobody does from now on */
static int stream_closing(lua_State *L)
{
  struct stream *s = stream_test(L, 1);
  bool open;
  if (s == NULL) { /* in the name of who has called `close` */
    luaL_where(L, 2);
    lua_pushfstring(L, "bad argument #1 to 'close' (%s expected, got %s)",
                    STREAM_TYPE, luaL_typename(L, 1));
    lua_concat(L, 2);
    return lua_error(L);
  }
  open = stream_is_open(s);
  if (open) {
    stream_enter(s);
    s->closing = true;
    stream_interrupt(s);
    if (!stream_is_file(s) && s->lanes[LANE_READ].owner == NULL)
      input_drop(&s->in);
  }
  lua_pushboolean(L, open);
  return 1;
}

/* stream_give_up(stream): of what is buffered the peer gets what it takes at
** once */
static int stream_give_up(lua_State *L)
{
  unwritten_try(stream_self(L));
  return 0;
}

/* stream_closed(stream): its descriptor has been closed */
static int stream_closed(lua_State *L)
{
  let_go(stream_self(L));
  return 0;
}

/*
** Functions
*/

static const char *const kinds[] = {"socket", "pipe", "tty", "file", NULL};

/* stream(kind, name) -> Stream, without a descriptor; without a name it is a
** socket that is told of by its own address */
static int stream_new(lua_State *L)
{
  struct core *core = core_upvalue(L);
  int kind = luaL_checkoption(L, 1, NULL, kinds);
  core_enter(L, core);
  if (kind == STREAM_SOCKET && lua_isnone(L, 2)) {
    stream_push(L, core, STREAM_SOCKET, 0);
  } else {
    luaL_checkstring(L, 2);
    stream_push(L, core, (enum stream_kind)kind, 2);
  }
  return 1;
}

/* stream_open(stream, fd [, borrowed]) -> Stream, which owns the descriptor
** from now on, or has only borrowed it */
static int stream_open_lua(lua_State *L)
{
  struct stream *s = stream_self(L);
  lua_Integer fd = luaL_checkinteger(L, 2);
  luaL_argcheck(L, fd >= 0 && fd <= INT_MAX, 2, "descriptor out of range");
  luaL_argcheck(L, s->fd < 0, 1, "there is a descriptor in it");
  s->borrowed = lua_toboolean(L, 3);
  stream_open(s, (int)fd);
  lua_settop(L, 1);
  return 1;
}

/* stream_kind(x) -> kind, is it open?; nil: it is no stream */
static int stream_kind_of(lua_State *L)
{
  const struct stream *s = stream_test(L, 1);
  if (s == NULL) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushstring(L, stream_kind_name(s));
  lua_pushboolean(L, stream_is_open(s));
  return 2;
}

/* stream_in_hand(stream) -> bytes that have been read and not been taken */
static int stream_in_hand(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)input_size(&stream_self(L)->in));
  return 1;
}

/* stream_idle(stream, writing) -> does nobody read, or write, or wait for it? */
static int stream_idle(lua_State *L)
{
  const struct stream *s = stream_self(L);
  unsigned lane = lua_toboolean(L, 2) ? LANE_WRITE : LANE_READ;
  lua_pushboolean(L, stream_is_idle(s, lane));
  return 1;
}

/* stream_number(stream) -> descriptor, also of one that is being closed */
static int stream_number(lua_State *L)
{
  lua_pushinteger(L, stream_self(L)->fd);
  return 1;
}

/* stream_limits(stream, line | nil, all | nil) -> both, in bytes; math.huge:
** there is none */
static int stream_limits(lua_State *L)
{
  struct stream *s = stream_self(L);
  uint32_t *const limits[] = {&s->limits.line, &s->limits.all};
  lua_settop(L, 3);
  for (int i = 0; i < 2; i++) {
    lua_Integer n = luaL_optinteger(L, i + 2, *limits[i]);
    *limits[i] = n < UNLIMITED ? (uint32_t)n : UNLIMITED;
    if (*limits[i] < UNLIMITED)
      lua_pushinteger(L, n);
    else
      lua_pushnumber(L, HUGE_VAL);
  }
  return 2;
}

/*
** Methods
*/

/* stream:fd() -> descriptor */
static int stream_fd(lua_State *L)
{
  lua_pushinteger(L, stream_open_self(L)->fd);
  return 1;
}

/* stream:timeout([seconds]) -> stream: every single call on it has so long;
** nil: there is no limit */
static int stream_timeout(lua_State *L)
{
  struct stream *s = stream_open_self(L);
  lua_Number seconds = 0;
  if (!lua_isnoneornil(L, 2)) {
    if (lua_type(L, 2) != LUA_TNUMBER) {
      lua_pushfstring(L, "seconds or nil expected, got %s",
                      luaL_typename(L, 2));
      return stream_bad_argument(L, 1, "timeout", lua_tostring(L, -1));
    }
    seconds = lua_tonumber(L, 2);
    if (!(seconds >= 0))
      return stream_bad_argument(L, 1, "timeout", "seconds are negative");
    s->timeout_ns = seconds_to_ns(seconds);
    s->timeout_ns += s->timeout_ns == 0;
  } else {
    s->timeout_ns = 0;
  }
  lua_settop(L, 1);
  return 1;
}

/* Pushes its name; without one, its own address. */
static void push_name(lua_State *L, const struct stream *s)
{
  struct sockaddr_storage addr;
  socklen_t length = sizeof addr;
  if (lua_getiuservalue(L, 1, 1) != LUA_TNONE)
    return;
  lua_pop(L, 1);
  if (getsockname(s->fd, (struct sockaddr *)&addr, &length) < 0)
    length = 0;
  sockaddr_push(L, &addr, length);
}

static int stream_tostring(lua_State *L)
{
  struct stream *s = stream_self(L);
  if (!stream_is_open(s)) {
    lua_pushfstring(L, "%s (closed)", stream_kind_name(s));
    return 1;
  }
  push_name(L, s);
  lua_pushfstring(L, "%s (%s, fd %d)", stream_kind_name(s),
                  lua_tostring(L, -1), s->fd);
  return 1;
}

static const luaL_Reg methods[] = {
    {"fd", stream_fd},
    {"timeout", stream_timeout},
    {"tie", stream_tie},
    {NULL, NULL},
};

static const luaL_Reg meta[] = {
    {"__gc", stream_gc},
    {"__tostring", stream_tostring},
    {NULL, NULL},
};

static const luaL_Reg of_streams[] = {
    {"stream_open", stream_open_lua},
    {"stream_closing", stream_closing},
    {"stream_closed", stream_closed},
    {"stream_give_up", stream_give_up},
    {"stream_finish", stream_finish},
    {"stream_pass", stream_pass},
    {"stream_number", stream_number},
    {"stream_limits", stream_limits},
    {"stream_kind", stream_kind_of},
    {"stream_lines", stream_lines_closing},
    {"stream_in_hand", stream_in_hand},
    {"stream_idle", stream_idle},
    {"stream_readable", stream_wait_readable},
    {"stream_writable", stream_wait_writable},
    {NULL, NULL},
};

/* Sets `stream` and functions on streams, and `stream_meta`, the metatable
** whose __index has the methods, in the table on the top. */
void stream_register(lua_State *L, struct core *core)
{
  stream_io_register();
  luaL_setfuncs(L, of_streams, 0);
  luaL_newmetatable(L, STREAM_TYPE);
  luaL_setfuncs(L, meta, 0);
  lua_newtable(L);
  luaL_setfuncs(L, methods, 0);
  stream_read_register(L);
  stream_write_register(L);
  stream_flush_register(L);
  lua_setfield(L, -2, "__index");
  lua_pushvalue(L, -1);
  core->stream_meta_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_setfield(L, -2, "stream_meta");
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, stream_new, 1);
  lua_setfield(L, -2, "stream");
}
