/* Addresses as strings.  Only what needs no name service is read here: a
** look-up can block, and nothing in the core may.
*/
#include "sockaddr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "errors.h"

static const char *parse_unix(const char *path, size_t len,
                              struct sockaddr_un *un, socklen_t *addr_len)
{
  bool is_abstract = len > 0 && path[0] == '@';
  if (len == 0)
    return "the path of the unix socket is missing";
  if (len >= sizeof un->sun_path)
    return "the path of the unix socket is longer than 107 bytes";
  if (!is_abstract && memchr(path, '\0', len) != NULL)
    return "the path of the unix socket has a zero byte in it";
  un->sun_family = AF_UNIX;
  memcpy(un->sun_path, path, len);
  if (is_abstract)
    un->sun_path[0] = '\0';
  *addr_len =
      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + !is_abstract);
  return NULL;
}

/* Digits only, 0 to 65535; -1 for anything else. */
static int parse_port(const char *text, size_t len)
{
  int port = 0;
  if (len == 0 || len > 5)
    return -1;
  for (size_t i = 0; i < len; i++) {
    if (text[i] < '0' || text[i] > '9')
      return -1;
    port = port * 10 + (text[i] - '0');
  }
  return port <= 65535 ? port : -1;
}

static bool set_v4(struct sockaddr_storage *addr, socklen_t *addr_len,
                   const char *host, int port)
{
  struct sockaddr_in *in = (struct sockaddr_in *)addr;
  if (inet_pton(AF_INET, host, &in->sin_addr) != 1)
    return false;
  in->sin_family = AF_INET;
  in->sin_port = htons((uint16_t)port);
  *addr_len = sizeof *in;
  return true;
}

/* The number of an interface by its name or number; 0: there is none. */
static uint32_t parse_scope(const char *text)
{
  uint64_t n = 0;
  const char *digit = text;
  while (*digit >= '0' && *digit <= '9' && n <= UINT32_MAX)
    n = n * 10 + (uint64_t)(*digit++ - '0');
  if (*digit != '\0')
    return if_nametoindex(text);
  return n <= UINT32_MAX ? (uint32_t)n : 0;
}

static bool set_v6(struct sockaddr_storage *addr, socklen_t *addr_len,
                   char *host, int port)
{
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)addr;
  char *scope = strchr(host, '%');
  if (scope != NULL) {
    *scope = '\0';
    in6->sin6_scope_id = parse_scope(scope + 1);
    if (in6->sin6_scope_id == 0)
      return false;
  }
  if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1)
    return false;
  in6->sin6_family = AF_INET6;
  in6->sin6_port = htons((uint16_t)port);
  *addr_len = sizeof *in6;
  return true;
}

static const char *parse_inet(const char *text, size_t len,
                              struct sockaddr_storage *addr,
                              socklen_t *addr_len)
{
  char host[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE];
  const char *colon = memrchr(text, ':', len);
  bool bracketed = len > 0 && text[0] == '[';
  size_t host_len;
  int port;
  if (colon == NULL)
    return "the port is missing";
  port = parse_port(colon + 1, len - (size_t)(colon + 1 - text));
  if (port < 0)
    return "the port is not a number from 0 to 65535";
  host_len = (size_t)(colon - text);
  if (bracketed) {
    if (host_len < 2 || text[host_len - 1] != ']')
      return "the bracket is not closed";
    text++;
    host_len -= 2;
  }
  if (host_len >= sizeof host || memchr(text, '\0', host_len) != NULL)
    return "the host is not a numeric address";
  memcpy(host, text, host_len);
  host[host_len] = '\0';
  if (bracketed)
    return set_v6(addr, addr_len, host, port) ? NULL : "not an IPv6 address";
  if (strcmp(host, "localhost") == 0) /* RFC 6761: always loopback */
    strcpy(host, "127.0.0.1");
  else if (strcmp(host, "*") == 0)
    strcpy(host, "0.0.0.0");
  return set_v4(addr, addr_len, host, port)
             ? NULL
             : "the host is not a numeric address";
}

const char *sockaddr_parse(const char *text, size_t len,
                           struct sockaddr_storage *addr, socklen_t *addr_len)
{
  memset(addr, 0, sizeof *addr);
  if (len >= 5 && memcmp(text, "unix:", 5) == 0)
    return parse_unix(text + 5, len - 5, (struct sockaddr_un *)addr, addr_len);
  return parse_inet(text, len, addr, addr_len);
}

static size_t format_unix(const struct sockaddr_un *un, socklen_t addr_len,
                          char *text)
{
  size_t head = offsetof(struct sockaddr_un, sun_path);
  size_t len = addr_len > head ? addr_len - head : 0;
  if (len == 0) /* the other end of a socketpair, say: it has no name */
    return 0;
  if (un->sun_path[0] != '\0')
    len = strnlen(un->sun_path, len);
  memcpy(text, "unix:", 5);
  memcpy(text + 5, un->sun_path, len);
  if (un->sun_path[0] == '\0')
    text[5] = '@';
  return len + 5;
}

void sockaddr_format(const struct sockaddr_storage *addr, socklen_t addr_len,
                     char text[ADDRESS_TEXT], size_t *len)
{
  char host[INET6_ADDRSTRLEN], scope[12] = "";
  *len = 0;
  if (addr_len < sizeof(sa_family_t))
    return;
  if (addr->ss_family == AF_UNIX) {
    *len = format_unix((const struct sockaddr_un *)addr, addr_len, text);
  } else if (addr->ss_family == AF_INET) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
    inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
    *len = (size_t)snprintf(text, ADDRESS_TEXT, "%s:%d", host,
                            ntohs(in->sin_port));
  } else if (addr->ss_family == AF_INET6) {
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;
    inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
    if (in6->sin6_scope_id != 0)
      snprintf(scope, sizeof scope, "%%%u", in6->sin6_scope_id);
    *len = (size_t)snprintf(text, ADDRESS_TEXT, "[%s%s]:%d", host, scope,
                            ntohs(in6->sin6_port));
  }
}

void sockaddr_push(lua_State *L, const struct sockaddr_storage *addr,
                   socklen_t addr_len)
{
  char text[ADDRESS_TEXT];
  size_t len;
  if (addr_len > sizeof *addr)
    addr_len = sizeof *addr;
  sockaddr_format(addr, addr_len, text, &len);
  lua_pushlstring(L, text, len);
}

int sockaddr_family_lua(lua_State *L)
{
  struct sockaddr_storage addr;
  socklen_t addr_len;
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  const char *wrong = sockaddr_parse(text, len, &addr, &addr_len);
  if (wrong != NULL) {
    lua_pushnil(L);
    lua_pushvalue(L, 1); /* there may be a zero byte in it */
    lua_pushfstring(L, ": %s", wrong);
    lua_concat(L, 2);
    lua_pushinteger(L, EINVAL);
    return 3;
  }
  lua_pushinteger(L, addr.ss_family);
  return 1;
}

typedef int name_call(int fd, struct sockaddr *addr, socklen_t *addr_len);

static int push_name(lua_State *L, name_call *call, const char *subject)
{
  struct sockaddr_storage addr;
  socklen_t addr_len = sizeof addr;
  if (call((int)luaL_checkinteger(L, 1), (struct sockaddr *)&addr, &addr_len) <
      0)
    return push_failure(L, subject, errno);
  sockaddr_push(L, &addr, addr_len);
  return 1;
}

int sockaddr_local_lua(lua_State *L)
{
  return push_name(L, getsockname, "getsockname");
}

int sockaddr_peer_lua(lua_State *L)
{
  return push_name(L, getpeername, "getpeername");
}
