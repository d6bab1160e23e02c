/* Descriptors on their way through unix sockets.
**
** A descriptor that has arrived exists before anybody has been told.  So both
** calls are made at once, once poll says that they will not wait: what comes
** is in the hands of its owners before anything can fail, and what is sent is
** open when it is named.
*/
#include "passing.h"

#include "compat.h"

#include <errno.h>
#include <lauxlib.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

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

static void fill_control(lua_State *L, struct msghdr *m, union control *c,
                         int count)
{
  struct cmsghdr *head = &c->align;
  int *fds = (int *)CMSG_DATA(head);
  memset(c, 0, sizeof *c);
  m->msg_control = c;
  m->msg_controllen = CMSG_LEN((size_t)count * sizeof *fds);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = m->msg_controllen;
  for (int i = 0; i < count; i++) {
    lua_rawgeti(L, 3, i + 1);
    fds[i] = (int)luaL_checkinteger(L, -1);
    lua_pop(L, 1);
  }
}

static int send_descriptors(lua_State *L)
{
  int fd = check_fd(L);
  size_t size;
  const char *data = luaL_checklstring(L, 2, &size);
  struct iovec iov = {.iov_base = (void *)data, .iov_len = size};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
  union control c;
  size_t count;
  ssize_t n;
  luaL_checktype(L, 3, LUA_TTABLE);
  count = lua_rawlen(L, 3);
  luaL_argcheck(L, count <= PASS_MAX, 3, "more than 253 descriptors");
  if (count > 0)
    fill_control(L, &m, &c, (int)count);
  n = sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n < 0)
    return push_failure(L, "sendmsg", errno);
  lua_pushinteger(L, n);
  return 1;
}

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
    {"send_descriptors", send_descriptors},
    {"receive_descriptors", receive_descriptors},
    {"file_kind", file_kind},
    {NULL, NULL},
};

void passing_register(lua_State *L)
{
  luaL_setfuncs(L, functions, 0);
}
