/* Options of sockets by their names: what the kernel calls them, without the
** prefix, in lower case.  None of these calls blocks.
*/
#include "sockopt.h"

#include "compat.h"

#include <arpa/inet.h>
#include <errno.h>
#include <lauxlib.h>
#include <limits.h>
#include <math.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "errors.h"
#include "near.h"

#define TEXT_MAX 256 /* longer than the name of a device or an algorithm */

enum kind {
  BOOLEAN,
  INTEGER,
  MILLISECONDS, /* seconds in Lua */
  LINGER,       /* seconds, or false */
  TEXT,
  CREDENTIALS /* { pid = …, uid = …, gid = … }, only to be read */
};

/* Where IPv6 has an option of its own for the same thing, `level6` and
** `number6` are it. */
static const struct option {
  const char *name;
  enum kind kind;
  int level, number, level6, number6;
} options[] = {
    {"acceptconn", BOOLEAN, SOL_SOCKET, SO_ACCEPTCONN, 0, 0},
    {"bindtodevice", TEXT, SOL_SOCKET, SO_BINDTODEVICE, 0, 0},
    {"broadcast", BOOLEAN, SOL_SOCKET, SO_BROADCAST, 0, 0},
    {"busy_poll", INTEGER, SOL_SOCKET, SO_BUSY_POLL, 0, 0},
    {"domain", INTEGER, SOL_SOCKET, SO_DOMAIN, 0, 0},
    {"dontroute", BOOLEAN, SOL_SOCKET, SO_DONTROUTE, 0, 0},
    {"error", INTEGER, SOL_SOCKET, SO_ERROR, 0, 0},
    {"incoming_cpu", INTEGER, SOL_SOCKET, SO_INCOMING_CPU, 0, 0},
    {"keepalive", BOOLEAN, SOL_SOCKET, SO_KEEPALIVE, 0, 0},
    {"linger", LINGER, SOL_SOCKET, SO_LINGER, 0, 0},
    {"mark", INTEGER, SOL_SOCKET, SO_MARK, 0, 0},
    {"oobinline", BOOLEAN, SOL_SOCKET, SO_OOBINLINE, 0, 0},
    {"peercred", CREDENTIALS, SOL_SOCKET, SO_PEERCRED, 0, 0},
    {"priority", INTEGER, SOL_SOCKET, SO_PRIORITY, 0, 0},
    {"protocol", INTEGER, SOL_SOCKET, SO_PROTOCOL, 0, 0},
    {"rcvbuf", INTEGER, SOL_SOCKET, SO_RCVBUF, 0, 0},
    {"rcvlowat", INTEGER, SOL_SOCKET, SO_RCVLOWAT, 0, 0},
    {"reuseaddr", BOOLEAN, SOL_SOCKET, SO_REUSEADDR, 0, 0},
    {"reuseport", BOOLEAN, SOL_SOCKET, SO_REUSEPORT, 0, 0},
    {"sndbuf", INTEGER, SOL_SOCKET, SO_SNDBUF, 0, 0},
    {"type", INTEGER, SOL_SOCKET, SO_TYPE, 0, 0},
    {"congestion", TEXT, IPPROTO_TCP, TCP_CONGESTION, 0, 0},
    {"cork", BOOLEAN, IPPROTO_TCP, TCP_CORK, 0, 0},
    {"defer_accept", INTEGER, IPPROTO_TCP, TCP_DEFER_ACCEPT, 0, 0},
    {"fastopen", INTEGER, IPPROTO_TCP, TCP_FASTOPEN, 0, 0},
    {"fastopen_connect", BOOLEAN, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 0, 0},
    {"keepcnt", INTEGER, IPPROTO_TCP, TCP_KEEPCNT, 0, 0},
    {"keepidle", INTEGER, IPPROTO_TCP, TCP_KEEPIDLE, 0, 0},
    {"keepintvl", INTEGER, IPPROTO_TCP, TCP_KEEPINTVL, 0, 0},
    {"linger2", INTEGER, IPPROTO_TCP, TCP_LINGER2, 0, 0},
    {"maxseg", INTEGER, IPPROTO_TCP, TCP_MAXSEG, 0, 0},
    {"nodelay", BOOLEAN, IPPROTO_TCP, TCP_NODELAY, 0, 0},
    {"notsent_lowat", INTEGER, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0, 0},
    {"quickack", BOOLEAN, IPPROTO_TCP, TCP_QUICKACK, 0, 0},
    {"syncnt", INTEGER, IPPROTO_TCP, TCP_SYNCNT, 0, 0},
    {"user_timeout", MILLISECONDS, IPPROTO_TCP, TCP_USER_TIMEOUT, 0, 0},
    {"bind_address_no_port", BOOLEAN, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 0,
     0},
    {"freebind", BOOLEAN, IPPROTO_IP, IP_FREEBIND, IPPROTO_IPV6,
     IPV6_FREEBIND},
    {"mtu", INTEGER, IPPROTO_IP, IP_MTU, IPPROTO_IPV6, IPV6_MTU},
    {"mtu_discover", INTEGER, IPPROTO_IP, IP_MTU_DISCOVER, IPPROTO_IPV6,
     IPV6_MTU_DISCOVER},
    {"multicast_loop", BOOLEAN, IPPROTO_IP, IP_MULTICAST_LOOP, IPPROTO_IPV6,
     IPV6_MULTICAST_LOOP},
    {"multicast_ttl", INTEGER, IPPROTO_IP, IP_MULTICAST_TTL, IPPROTO_IPV6,
     IPV6_MULTICAST_HOPS},
    {"tos", INTEGER, IPPROTO_IP, IP_TOS, IPPROTO_IPV6, IPV6_TCLASS},
    {"transparent", BOOLEAN, IPPROTO_IP, IP_TRANSPARENT, IPPROTO_IPV6,
     IPV6_TRANSPARENT},
    {"ttl", INTEGER, IPPROTO_IP, IP_TTL, IPPROTO_IPV6, IPV6_UNICAST_HOPS},
    {"v6only", BOOLEAN, IPPROTO_IPV6, IPV6_V6ONLY, 0, 0},
};

#define NOPTIONS (sizeof options / sizeof *options)

static const struct option *check_option(lua_State *L, int arg)
{
  const char *name = luaL_checkstring(L, arg);
  struct near near;
  near_start(&near, name);
  for (size_t i = 0; i < NOPTIONS; i++) {
    if (strcmp(options[i].name, name) == 0)
      return &options[i];
    near_offer(&near, options[i].name);
  }
  near_push(L, &near);
  luaL_error(L, "unknown option '%s' of a socket%s", name,
             lua_tostring(L, -1));
  return NULL;
}

static int check_fd(lua_State *L)
{
  lua_Integer fd = luaL_checkinteger(L, 1);
  luaL_argcheck(L, fd >= 0 && fd <= INT_MAX, 1, "descriptor out of range");
  return (int)fd;
}

static bool is_v6(int fd)
{
  int domain = 0;
  socklen_t len = sizeof domain;
  getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
  return domain == AF_INET6;
}

/* Level and number of the option on this socket. */
static void option_place(const struct option *o, int fd, int *level,
                         int *number)
{
  bool six = o->level6 != 0 && is_v6(fd);
  *level = six ? o->level6 : o->level;
  *number = six ? o->number6 : o->number;
}

union value {
  int number;
  struct linger linger;
  struct ucred cred;
  char text[TEXT_MAX];
};

static void push_credentials(lua_State *L, const struct ucred *c)
{
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, c->pid);
  lua_setfield(L, -2, "pid");
  lua_pushinteger(L, c->uid);
  lua_setfield(L, -2, "uid");
  lua_pushinteger(L, c->gid);
  lua_setfield(L, -2, "gid");
}

static void push_value(lua_State *L, enum kind kind, const union value *v,
                       socklen_t len)
{
  switch (kind) {
  case BOOLEAN:
    lua_pushboolean(L, v->number);
    break;
  case INTEGER:
    lua_pushinteger(L, v->number);
    break;
  case MILLISECONDS:
    lua_pushnumber(L, v->number / 1000.0);
    break;
  case LINGER:
    if (v->linger.l_onoff)
      lua_pushinteger(L, v->linger.l_linger);
    else
      lua_pushboolean(L, 0);
    break;
  case TEXT:
    lua_pushlstring(L, v->text, strnlen(v->text, len));
    break;
  case CREDENTIALS:
    push_credentials(L, &v->cred);
    break;
  }
}

static int get(lua_State *L, int fd, const struct option *o)
{
  union value v;
  socklen_t len = sizeof v;
  int level, number;
  memset(&v, 0, sizeof v);
  option_place(o, fd, &level, &number);
  if (getsockopt(fd, level, number, &v, &len) < 0)
    return push_failure(L, o->name, errno);
  push_value(L, o->kind, &v, len);
  return 1;
}

static int bad_value(lua_State *L, const struct option *o,
                     const char *expected)
{
  return luaL_error(L, "option '%s' of a socket: %s expected, got %s", o->name,
                    expected, luaL_typename(L, 3));
}

static int to_int(lua_State *L, const struct option *o, lua_Number scale)
{
  lua_Number n;
  if (lua_type(L, 3) != LUA_TNUMBER ||
      (o->kind != MILLISECONDS && !lua_isinteger(L, 3)))
    return bad_value(L, o, o->kind == INTEGER ? "integer" : "seconds");
  n = lua_tonumber(L, 3) * scale;
  if (!(n >= INT_MIN && n <= INT_MAX) || (o->kind != INTEGER && n < 0))
    return luaL_error(L, "option '%s' of a socket: out of range", o->name);
  return (int)ceil(n);
}

/* The value at index 3; returns its size. */
static socklen_t to_value(lua_State *L, const struct option *o, union value *v)
{
  size_t len;
  const char *text;
  switch (o->kind) {
  case BOOLEAN:
    if (!lua_isboolean(L, 3))
      bad_value(L, o, "boolean");
    v->number = lua_toboolean(L, 3);
    return sizeof v->number;
  case LINGER:
    v->linger.l_onoff = lua_type(L, 3) != LUA_TBOOLEAN;
    if (v->linger.l_onoff)
      v->linger.l_linger = to_int(L, o, 1);
    else if (lua_toboolean(L, 3))
      bad_value(L, o, "seconds or false");
    return sizeof v->linger;
  case TEXT:
    if (lua_type(L, 3) != LUA_TSTRING)
      bad_value(L, o, "string");
    text = lua_tolstring(L, 3, &len);
    if (len >= sizeof v->text)
      luaL_error(L, "option '%s' of a socket: too long", o->name);
    memcpy(v->text, text, len);
    return (socklen_t)len;
  case CREDENTIALS:
    luaL_error(L, "option '%s' of a socket can only be read", o->name);
    break;
  case MILLISECONDS:
    v->number = to_int(L, o, 1000);
    return sizeof v->number;
  case INTEGER:
    v->number = to_int(L, o, 1);
    break;
  }
  return sizeof v->number;
}

/* sockopt(fd, name [, value]) */
static int sockopt(lua_State *L)
{
  int fd = check_fd(L);
  const struct option *o = check_option(L, 2);
  union value v;
  socklen_t len;
  int level, number;
  if (lua_isnoneornil(L, 3))
    return get(L, fd, o);
  memset(&v, 0, sizeof v);
  len = to_value(L, o, &v);
  option_place(o, fd, &level, &number);
  if (setsockopt(fd, level, number, &v, len) < 0)
    return push_failure(L, o->name, errno);
  lua_pushboolean(L, 1);
  return 1;
}

/*
** Multicast groups
*/

/* The number of an interface, given by that or by its name; 0: any. */
static unsigned to_interface(lua_State *L, int arg)
{
  unsigned index;
  if (lua_isnoneornil(L, arg))
    return 0;
  if (lua_type(L, arg) == LUA_TNUMBER)
    return (unsigned)luaL_checkinteger(L, arg);
  index = if_nametoindex(luaL_checkstring(L, arg));
  return index != 0 ? index : UINT_MAX;
}

static int membership_v4(int fd, bool join, const struct in_addr *group,
                         unsigned interface)
{
  struct ip_mreqn m = {.imr_multiaddr = *group, .imr_ifindex = (int)interface};
  return setsockopt(fd, IPPROTO_IP,
                    join ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP, &m,
                    sizeof m);
}

static int membership_v6(int fd, bool join, const struct in6_addr *group,
                         unsigned interface)
{
  struct ipv6_mreq m = {.ipv6mr_multiaddr = *group,
                        .ipv6mr_interface = interface};
  return setsockopt(fd, IPPROTO_IPV6,
                    join ? IPV6_JOIN_GROUP : IPV6_LEAVE_GROUP, &m, sizeof m);
}

/* membership(fd, join, group [, interface]): joins a multicast group, or
** leaves it */
static int membership(lua_State *L)
{
  int fd = check_fd(L);
  bool join = lua_toboolean(L, 2);
  const char *group = luaL_checkstring(L, 3);
  unsigned interface = to_interface(L, 4);
  struct in_addr v4;
  struct in6_addr v6;
  int rc;
  if (interface == UINT_MAX)
    return push_failure(L, lua_tostring(L, 4), ENODEV);
  if (inet_pton(AF_INET, group, &v4) == 1)
    rc = membership_v4(fd, join, &v4, interface);
  else if (inet_pton(AF_INET6, group, &v6) == 1)
    rc = membership_v6(fd, join, &v6, interface);
  else
    return push_failure_text(L, group, "not a numeric address", EINVAL);
  if (rc < 0)
    return push_failure(L, group, errno);
  lua_pushboolean(L, 1);
  return 1;
}

static const luaL_Reg functions[] = {
    {"sockopt", sockopt},
    {"membership", membership},
    {NULL, NULL},
};

void sockopt_register(lua_State *L)
{
  luaL_setfuncs(L, functions, 0);
}
