/* System calls that never block, and Descriptor: the owner of a file
** descriptor, which closes it when nobody else did.
*/
#include "system.h"

#include "compat.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "errors.h"
#include "signals.h"

static int check_fd(lua_State *L, int arg)
{
  lua_Integer fd = luaL_checkinteger(L, arg);
  luaL_argcheck(L, fd >= 0 && fd <= INT_MAX, arg, "descriptor out of range");
  return (int)fd;
}

/*
** Descriptor
*/

/* descriptor() -> Descriptor, which owns nothing yet.  Made before there is a
** descriptor to own: between the two nothing can fail. */
static int descriptor_new(lua_State *L)
{
  int *d = lua_newuserdatauv(L, sizeof *d, 0);
  *d = -1;
  luaL_setmetatable(L, DESCRIPTOR_TYPE);
  return 1;
}

int *descriptor_room(lua_State *L, int arg)
{
  int *d = luaL_checkudata(L, arg, DESCRIPTOR_TYPE);
  luaL_argcheck(L, *d < 0, arg, "there is a descriptor in it");
  return d;
}

/* put(fd): owns it from now on */
static int descriptor_put(lua_State *L)
{
  int *d = descriptor_room(L, 1);
  *d = check_fd(L, 2);
  return 0;
}

/* take() -> fd, which the caller owns from now on; nil: it was taken */
static int descriptor_take(lua_State *L)
{
  int *d = luaL_checkudata(L, 1, DESCRIPTOR_TYPE);
  if (*d < 0)
    lua_pushnil(L);
  else
    lua_pushinteger(L, *d);
  *d = -1;
  return 1;
}

/* number() -> the descriptor, which stays its; nil: there is none */
static int descriptor_number(lua_State *L)
{
  const int *d = luaL_checkudata(L, 1, DESCRIPTOR_TYPE);
  if (*d < 0)
    lua_pushnil(L);
  else
    lua_pushinteger(L, *d);
  return 1;
}

/* Also __close: what was not taken is closed. */
static int descriptor_gc(lua_State *L)
{
  int *d = luaL_checkudata(L, 1, DESCRIPTOR_TYPE);
  if (*d >= 0)
    close(*d);
  *d = -1;
  return 0;
}

/*
** Calls
*/

/* Pushes two descriptors; owners, where there are any, own them. */
static int put_pair(lua_State *L, int *one, int *other, const int fds[2])
{
  if (one != NULL && other != NULL) {
    *one = fds[0];
    *other = fds[1];
  }
  lua_pushinteger(L, fds[0]);
  lua_pushinteger(L, fds[1]);
  return 2;
}

/* pipe([Descriptor, Descriptor]) -> fd to read, fd to write, which those two
** own | nil, message, errno */
static int system_pipe(lua_State *L)
{
  int *r = luaL_testudata(L, 1, DESCRIPTOR_TYPE);
  int *w = luaL_testudata(L, 2, DESCRIPTOR_TYPE);
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) < 0)
    return push_failure(L, "pipe", errno);
  signals_tame_sigpipe();
  return put_pair(L, r, w, fds);
}

/* socketpair([Descriptor, Descriptor] | [type]) -> fd, fd, which those two own
** | nil, message, errno */
static int system_socketpair(lua_State *L)
{
  int *one = luaL_testudata(L, 1, DESCRIPTOR_TYPE);
  int *other = luaL_testudata(L, 2, DESCRIPTOR_TYPE);
  int type = one ? SOCK_STREAM : (int)luaL_optinteger(L, 1, SOCK_STREAM);
  int fds[2];
  if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) < 0)
    return push_failure(L, "socketpair", errno);
  return put_pair(L, one, other, fds);
}

/* seek(fd, whence, offset) -> position | nil, message, errno */
static int system_seek(lua_State *L)
{
  static const int whences[] = {SEEK_SET, SEEK_CUR, SEEK_END};
  static const char *const names[] = {"set", "cur", "end", NULL};
  int fd = check_fd(L, 1);
  int whence = whences[luaL_checkoption(L, 2, "cur", names)];
  off_t at = lseek(fd, (off_t)luaL_optinteger(L, 3, 0), whence);
  if (at < 0)
    return push_failure(L, "seek", errno);
  lua_pushinteger(L, at);
  return 1;
}

/* setsockopt(fd, level, name, integer) -> true | nil, message, errno */
static int system_setsockopt(lua_State *L)
{
  int value = (int)luaL_checkinteger(L, 4);
  if (setsockopt(check_fd(L, 1), (int)luaL_checkinteger(L, 2),
                 (int)luaL_checkinteger(L, 3), &value, sizeof value) < 0)
    return push_failure(L, "setsockopt", errno);
  lua_pushboolean(L, 1);
  return 1;
}

/* Sets O_NONBLOCK of a file, or takes it away again; false: nothing was to be
** changed. */
static bool switch_nonblocking(int fd, bool on)
{
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || ((flags & O_NONBLOCK) != 0) == on)
    return false;
  return fcntl(fd, F_SETFL, flags ^ O_NONBLOCK) == 0;
}

/* splice(from, to, bytes) -> bytes | nil, message, errno: one is a pipe, and
** the other a socket or pipe.  It never waits: a socket is made to say so for
** as long as the call takes, in which nothing else of this thread runs. */
static int system_splice(lua_State *L)
{
  int from = check_fd(L, 1), to = check_fd(L, 2);
  lua_Integer bytes = luaL_checkinteger(L, 3);
  bool from_set, to_set;
  ssize_t n;
  int err;
  luaL_argcheck(L, bytes >= 0, 3, "out of range");
  from_set = switch_nonblocking(from, true);
  to_set = switch_nonblocking(to, true);
  n = splice(from, NULL, to, NULL, (size_t)bytes, SPLICE_F_NONBLOCK);
  err = errno;
  if (from_set)
    switch_nonblocking(from, false);
  if (to_set)
    switch_nonblocking(to, false);
  if (n < 0)
    return push_failure(L, "splice", err);
  lua_pushinteger(L, n);
  return 1;
}

/* chmod(path, mode) -> true | nil, message, errno */
static int system_chmod(lua_State *L)
{
  const char *path = luaL_checkstring(L, 1);
  if (chmod(path, (mode_t)luaL_checkinteger(L, 2)) < 0)
    return push_failure(L, path, errno);
  lua_pushboolean(L, 1);
  return 1;
}

/* shutdown(fd, SHUT_*) -> true | nil, message, errno: as the operation, but
** done when it returns.  That one is for a thread of the ring's, which looks
** the descriptor up when it gets there: by then it may be another's. */
static int system_shutdown(lua_State *L)
{
  if (shutdown(check_fd(L, 1), (int)luaL_checkinteger(L, 2)) < 0)
    return push_failure(L, "shutdown", errno);
  lua_pushboolean(L, 1);
  return 1;
}

/* isatty(fd) -> boolean */
static int system_isatty(lua_State *L)
{
  lua_pushboolean(L, isatty(check_fd(L, 1)));
  return 1;
}

static const luaL_Reg functions[] = {
    {"descriptor", descriptor_new}, {"pipe", system_pipe},
    {"splice", system_splice},      {"socketpair", system_socketpair},
    {"seek", system_seek},          {"setsockopt", system_setsockopt},
    {"chmod", system_chmod},        {"shutdown", system_shutdown},
    {"isatty", system_isatty},      {NULL, NULL},
};

void system_register(lua_State *L)
{
  luaL_newmetatable(L, DESCRIPTOR_TYPE);
  lua_pushcfunction(L, descriptor_gc);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "__close");
  lua_setfield(L, -2, "__gc");
  lua_newtable(L);
  lua_pushcfunction(L, descriptor_take);
  lua_setfield(L, -2, "take");
  lua_pushcfunction(L, descriptor_put);
  lua_setfield(L, -2, "put");
  lua_pushcfunction(L, descriptor_number);
  lua_setfield(L, -2, "number");
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
