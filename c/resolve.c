/* Names of hosts and services.
**
** getaddrinfo reads files and waits for servers, so it has a thread
** (worker.h).  It cannot be interrupted: who is cancelled goes on at once, and
** what the thread finds then belongs to the job alone.
*/
#include "resolve.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>

#include "errors.h"
#include "sockaddr.h"
#include "worker.h"

/* The longest name of a host is NI_MAXHOST - 1 bytes. */
#define HOST_MAX    NI_MAXHOST
#define SERVICE_MAX NI_MAXSERV

struct look_up {
  struct job job;
  struct addrinfo hints;
  struct addrinfo *found;
  int code; /* EAI_* */
  char host[HOST_MAX], service[SERVICE_MAX];
};

static void run(struct job *job)
{
  struct look_up *l = (struct look_up *)job;
  l->code = getaddrinfo(l->host, l->service, &l->hints, &l->found);
  if (l->code == EAI_SYSTEM)
    job->error = errno;
}

static void release(struct job *job)
{
  const struct look_up *l = (const struct look_up *)job;
  if (l->found != NULL)
    freeaddrinfo(l->found);
}

/* The errno that stands for a code of getaddrinfo. */
static int to_errno(int code)
{
  switch (code) {
  case EAI_AGAIN:
    return EAGAIN;
  case EAI_MEMORY:
    return ENOMEM;
  case EAI_FAIL:
    return EIO;
  case EAI_FAMILY:
    return EAFNOSUPPORT;
  case EAI_BADFLAGS:
  case EAI_SOCKTYPE:
    return EINVAL;
  default: /* EAI_NONAME, EAI_NODATA, EAI_SERVICE, … */
    return ENOENT;
  }
}

static int push_reason(lua_State *L, const char *reason, int err)
{
  lua_pushnil(L);
  lua_pushstring(L, reason);
  lua_pushinteger(L, err);
  return 3;
}

/* Adds an address to the list on the top, unless it is there; the table under
** that knows which are. */
static void add(lua_State *L, const struct addrinfo *a)
{
  struct sockaddr_storage addr;
  socklen_t len = a->ai_addrlen;
  memset(&addr, 0, sizeof addr);
  memcpy(&addr, a->ai_addr, len < sizeof addr ? len : sizeof addr);
  sockaddr_push(L, &addr, len);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, -4) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_pushvalue(L, -1);
    lua_pushboolean(L, 1);
    lua_rawset(L, -5);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  } else {
    lua_pop(L, 2);
  }
}

static int deliver(lua_State *L, struct job *job)
{
  const struct look_up *l = (const struct look_up *)job;
  if (job->error != 0)
    return push_reason(L, strerror(job->error), job->error);
  if (l->code != 0)
    return push_reason(L,
                       l->code == EAI_SERVICE ? "Service not known"
                                              : gai_strerror(l->code),
                       to_errno(l->code));
  lua_newtable(L);
  lua_newtable(L);
  for (const struct addrinfo *a = l->found; a != NULL; a = a->ai_next)
    add(L, a);
  return 1;
}

/* Copies the text at `arg`.  False: it is too long to be anybody's name, or
** has a zero byte in it. */
static bool take_text(lua_State *L, int arg, char *to, size_t room)
{
  size_t len;
  const char *text = luaL_checklstring(L, arg, &len);
  if (len >= room || memchr(text, '\0', len) != NULL)
    return false;
  memcpy(to, text, len + 1);
  return true;
}

static int resolve(lua_State *L)
{
  struct core *core = core_upvalue(L);
  int family = (int)luaL_checkinteger(L, 3);
  int type = (int)luaL_checkinteger(L, 4);
  struct look_up *l = (struct look_up *)worker_new_job(L, core, sizeof *l);
  l->job.run = run;
  l->job.release = release;
  l->hints.ai_family = family;
  l->hints.ai_socktype = type;
  if (!take_text(L, 1, l->host, sizeof l->host) ||
      !take_text(L, 2, l->service, sizeof l->service))
    return push_reason(L, gai_strerror(EAI_NONAME), ENOENT);
  return worker_await(L, core, deliver);
}

void resolve_register(lua_State *L, struct core *core)
{
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, resolve, 1);
  lua_setfield(L, -2, "getaddrinfo");
}
