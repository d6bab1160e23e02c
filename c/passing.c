/* Descriptors on their way through unix sockets.
**
** A descriptor that has arrived exists before anybody has been told.  So both
** calls are made at once, once poll says that they will not wait: what comes
** is in the hands of its owners before anything can fail.  What is sent is what
** its numbers stood for when that was asked for: where it has to wait, it is
** duplicated.
*/
#include "passing.h"

#include "compat.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "errors.h"
#include "system.h"

#define PASS_MAX 253 /* SCM_MAX_FD */

union control {
  struct cmsghdr align;
  char room[CMSG_SPACE(PASS_MAX * sizeof(int))];
};

static int check_fd(lua_State *L)
{
  lua_Integer fd = luaL_checkinteger(L, 1);
  luaL_argcheck(L, fd >= 0 && fd <= INT_MAX, 1, "descriptor out of range");
  return (int)fd;
}

/*
** Sending
*/

struct passing *passing_at(lua_State *L, int index)
{
  return luaL_checkudata(L, index, PASSING_TYPE);
}

ssize_t passing_send(const struct passing *p, int fd, const char *data,
                     size_t size)
{
  struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
  union control c;
  ssize_t n;
  memset(&c, 0, sizeof c);
  m.msg_control = &c;
  m.msg_controllen = CMSG_LEN((size_t)p->count * sizeof *p->fds);
  c.align.cmsg_level = SOL_SOCKET;
  c.align.cmsg_type = SCM_RIGHTS;
  c.align.cmsg_len = m.msg_controllen;
  memcpy(CMSG_DATA(&c.align), p->fds, (size_t)p->count * sizeof *p->fds);
  do
    n = sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}

static void close_first(struct passing *p, int count)
{
  for (int i = 0; i < count; i++)
    close(p->fds[i]);
}

int passing_own(struct passing *p)
{
  if (p->owned)
    return 0;
  for (int i = 0; i < p->count; i++) {
    int copy = fcntl(p->fds[i], F_DUPFD_CLOEXEC, 0), err = errno;
    if (copy < 0) {
      close_first(p, i);
      p->count = 0;
      return -err;
    }
    p->fds[i] = copy;
  }
  p->owned = true;
  return 0;
}

static int passing_close(lua_State *L)
{
  struct passing *p = passing_at(L, 1);
  if (p->owned)
    close_first(p, p->count);
  p->owned = false;
  p->count = 0;
  return 0;
}

/* passing { fd, … } -> Passing */
static int passing_new(lua_State *L)
{
  struct passing *p;
  int count;
  luaL_checktype(L, 1, LUA_TTABLE);
  count = (int)lua_rawlen(L, 1);
  luaL_argcheck(L, count >= 1 && count <= PASS_MAX, 1,
                "1 to 253 descriptors expected");
  p = lua_newuserdatauv(L, sizeof *p + (size_t)count * sizeof *p->fds, 0);
  p->owned = false;
  p->err = 0;
  p->count = count;
  for (int i = 0; i < count; i++) {
    lua_rawgeti(L, 1, i + 1);
    p->fds[i] = (int)luaL_checkinteger(L, -1);
    lua_pop(L, 1);
  }
  luaL_setmetatable(L, PASSING_TYPE);
  return 1;
}

/*
** Receiving
*/

/* Gives what has come to the owners, of which there are `room`: so much room
** the kernel was given, and what it had none for it has closed. */
static int own(int *const owners[PASS_MAX], int room, struct msghdr *m)
{
  int count = 0;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
    const int *fds = (const int *)CMSG_DATA(c);
    int n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof *fds);
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    for (int i = 0; i < n && count < room; i++)
      *owners[count++] = fds[i];
  }
  return count;
}

static int receive_descriptors(lua_State *L)
{
  int fd = check_fd(L);
  lua_Integer size = luaL_checkinteger(L, 2);
  int room = lua_gettop(L) - 2, count;
  int *owners[PASS_MAX] = {0};
  struct iovec iov = {.iov_len = (size_t)size};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
  union control c;
  luaL_Buffer b;
  ssize_t n;
  luaL_argcheck(L, size >= 1 && size <= INT_MAX, 2, "out of range");
  luaL_argcheck(L, room <= PASS_MAX, 3, "more than 253 descriptors");
  for (int i = 0; i < room; i++)
    owners[i] = descriptor_room(L, i + 3);
  iov.iov_base = luaL_buffinitsize(L, &b, (size_t)size);
  m.msg_control = &c;
  /* not CMSG_SPACE, whose padding takes one more */
  m.msg_controllen = room > 0 ? CMSG_LEN((size_t)room * sizeof(int)) : 0;
  n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0)
    return push_failure(L, "recvmsg", errno);
  count = own(owners, room, &m);
  luaL_pushresultsize(&b, (size_t)n);
  lua_pushinteger(L, count);
  lua_pushboolean(L, (m.msg_flags & MSG_CTRUNC) != 0);
  return 3;
}

static int option(int fd, int name)
{
  int value = 0;
  socklen_t len = sizeof value;
  getsockopt(fd, SOL_SOCKET, name, &value, &len);
  return value;
}

static const char *socket_kind(int fd)
{
  if (option(fd, SO_TYPE) == SOCK_DGRAM)
    return "datagram";
  return option(fd, SO_ACCEPTCONN) ? "listener" : "socket";
}

static int file_kind(lua_State *L)
{
  int fd = check_fd(L);
  struct stat st;
  if (fstat(fd, &st) < 0)
    return push_failure(L, "fstat", errno);
  lua_pushstring(L, S_ISSOCK(st.st_mode) ? socket_kind(fd)
                    : S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) ? "file"
                                                                 : "pipe");
  return 1;
}

static const luaL_Reg functions[] = {
    {"passing", passing_new},
    {"receive_descriptors", receive_descriptors},
    {"file_kind", file_kind},
    {NULL, NULL},
};

static const luaL_Reg meta[] = {
    {"__close", passing_close}, {"__gc", passing_close}, {NULL, NULL}};

void passing_register(lua_State *L)
{
  luaL_newmetatable(L, PASSING_TYPE);
  luaL_setfuncs(L, meta, 0);
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
