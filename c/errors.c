/* Error values and the table of errno names. */
#include "errors.h"

#include <errno.h>
#include <string.h>

int push_failure_text(lua_State *L, const char *subject, const char *reason,
                      int err)
{
  lua_pushnil(L);
  lua_pushfstring(L, "%s: %s", subject, reason);
  lua_pushinteger(L, err);
  return 3;
}

int push_failure(lua_State *L, const char *subject, int err)
{
  return push_failure_text(L, subject, strerror(err), err);
}

#define E(name)                                                               \
  {                                                                           \
#name, name                                                               \
  }

/* The kernel's, in the order of include/uapi/asm-generic/errno*.h.  Where two
** names share a number, the one that comes last is what the number gives. */
static const struct {
  const char *name;
  int number;
} names[] = {
    E(EPERM),
    E(ENOENT),
    E(ESRCH),
    E(EINTR),
    E(EIO),
    E(ENXIO),
    E(E2BIG),
    E(ENOEXEC),
    E(EBADF),
    E(ECHILD),
    E(EWOULDBLOCK),
    E(EAGAIN),
    E(ENOMEM),
    E(EACCES),
    E(EFAULT),
    E(ENOTBLK),
    E(EBUSY),
    E(EEXIST),
    E(EXDEV),
    E(ENODEV),
    E(ENOTDIR),
    E(EISDIR),
    E(EINVAL),
    E(ENFILE),
    E(EMFILE),
    E(ENOTTY),
    E(ETXTBSY),
    E(EFBIG),
    E(ENOSPC),
    E(ESPIPE),
    E(EROFS),
    E(EMLINK),
    E(EPIPE),
    E(EDOM),
    E(ERANGE),
    E(EDEADLOCK),
    E(EDEADLK),
    E(ENAMETOOLONG),
    E(ENOLCK),
    E(ENOSYS),
    E(ENOTEMPTY),
    E(ELOOP),
    E(ENOMSG),
    E(EIDRM),
    E(ENODATA),
    E(ETIME),
    E(EREMOTE),
    E(ENOLINK),
    E(EPROTO),
    E(EMULTIHOP),
    E(EBADMSG),
    E(EOVERFLOW),
    E(EBADFD),
    E(EBADR),
    E(EILSEQ),
    E(EUSERS),
    E(ENOTSOCK),
    E(EDESTADDRREQ),
    E(EMSGSIZE),
    E(EPROTOTYPE),
    E(ENOPROTOOPT),
    E(ESOCKTNOSUPPORT),
    E(EPROTONOSUPPORT),
    E(ENOTSUP),
    E(EOPNOTSUPP),
    E(EPFNOSUPPORT),
    E(EAFNOSUPPORT),
    E(EADDRINUSE),
    E(EADDRNOTAVAIL),
    E(ENETDOWN),
    E(ENETUNREACH),
    E(ENETRESET),
    E(ECONNABORTED),
    E(ECONNRESET),
    E(ENOBUFS),
    E(EISCONN),
    E(ENOTCONN),
    E(ESHUTDOWN),
    E(ETOOMANYREFS),
    E(ETIMEDOUT),
    E(ECONNREFUSED),
    E(EHOSTDOWN),
    E(EHOSTUNREACH),
    E(EALREADY),
    E(EINPROGRESS),
    E(ESTALE),
    E(EDQUOT),
    E(ECANCELED),
    E(EOWNERDEAD),
    E(ENOTRECOVERABLE),
};

/* failure(subject, errno) -> nil, "subject: reason", errno */
static int failure_lua(lua_State *L)
{
  return push_failure(L, luaL_checkstring(L, 1), (int)luaL_checkinteger(L, 2));
}

void errors_register(lua_State *L)
{
  lua_newtable(L);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    lua_pushinteger(L, names[i].number);
    lua_setfield(L, -2, names[i].name);
    lua_pushstring(L, names[i].name);
    lua_rawseti(L, -2, names[i].number);
  }
  lua_setfield(L, -2, "errno");
  lua_pushcfunction(L, failure_lua);
  lua_setfield(L, -2, "failure");
}
