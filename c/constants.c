/* The constants that the operations take, by their C names. */
#include "constants.h"

#include "compat.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define C(name)                                                               \
  {                                                                           \
#name, name                                                               \
  }

static const struct {
  const char *name;
  lua_Integer number;
} constants[] = {
    /* openat */
    C(O_RDONLY),
    C(O_WRONLY),
    C(O_RDWR),
    C(O_CREAT),
    C(O_EXCL),
    C(O_TRUNC),
    C(O_APPEND),
    C(O_NONBLOCK),
    C(O_DIRECTORY),
    C(O_NOFOLLOW),
    C(O_CLOEXEC),
    C(O_PATH),
    C(O_TMPFILE),
    C(O_DIRECT),
    C(O_SYNC),
    C(O_DSYNC),
    C(O_NOATIME),
    /* directory descriptors, statx */
    C(AT_FDCWD),
    C(AT_EMPTY_PATH),
    C(AT_SYMLINK_NOFOLLOW),
    C(AT_STATX_DONT_SYNC),
    C(AT_STATX_FORCE_SYNC),
    C(STATX_BASIC_STATS),
    C(STATX_BTIME),
    C(STATX_SIZE),
    C(STATX_TYPE),
    C(STATX_MODE),
    /* fsync */
    C(IORING_FSYNC_DATASYNC),
    /* sockets */
    C(AF_UNIX),
    C(AF_INET),
    C(AF_INET6),
    C(SOCK_STREAM),
    C(SOCK_DGRAM),
    C(SOCK_SEQPACKET),
    C(SOCK_NONBLOCK),
    C(SOCK_CLOEXEC),
    C(IPPROTO_TCP),
    C(IPPROTO_UDP),
    C(SOL_SOCKET),
    C(SO_REUSEADDR),
    C(SO_REUSEPORT),
    C(SO_KEEPALIVE),
    C(SO_ERROR),
    C(SO_SNDBUF),
    C(SO_RCVBUF),
    C(SO_LINGER),
    C(TCP_NODELAY),
    C(SHUT_RD),
    C(SHUT_WR),
    C(SHUT_RDWR),
    C(SOMAXCONN),
    C(MSG_DONTWAIT),
    C(MSG_MORE),
    C(MSG_NOSIGNAL),
    C(MSG_OOB),
    C(MSG_PEEK),
    C(MSG_TRUNC),
    C(MSG_CTRUNC),
    C(MSG_WAITALL),
    /* poll_add */
    C(POLLIN),
    C(POLLOUT),
    C(POLLPRI),
    C(POLLERR),
    C(POLLHUP),
    C(POLLRDHUP),
    C(POLLNVAL),
    /* timeout, cancel */
    C(IORING_TIMEOUT_ABS),
    C(IORING_TIMEOUT_BOOTTIME),
    C(IORING_TIMEOUT_REALTIME),
    C(IORING_ASYNC_CANCEL_ALL),
    C(IORING_ASYNC_CANCEL_ANY),
    /* flags of SQEs and CQEs, for raw */
    C(IOSQE_FIXED_FILE),
    C(IOSQE_IO_DRAIN),
    C(IOSQE_IO_LINK),
    C(IOSQE_IO_HARDLINK),
    C(IOSQE_ASYNC),
    C(IOSQE_BUFFER_SELECT),
    C(IORING_OP_NOP),
    C(IORING_OP_READV),
    C(IORING_OP_WRITEV),
    C(IORING_OP_FSYNC),
    C(IORING_OP_POLL_ADD),
    C(IORING_OP_SENDMSG),
    C(IORING_OP_RECVMSG),
    C(IORING_OP_TIMEOUT),
    C(IORING_OP_ACCEPT),
    C(IORING_OP_ASYNC_CANCEL),
    C(IORING_OP_CONNECT),
    C(IORING_OP_OPENAT),
    C(IORING_OP_CLOSE),
    C(IORING_OP_STATX),
    C(IORING_OP_READ),
    C(IORING_OP_WRITE),
    C(IORING_OP_SEND),
    C(IORING_OP_RECV),
    C(IORING_OP_SHUTDOWN),
    C(IORING_OP_SOCKET),
    C(IORING_OP_SEND_ZC),
    C(IORING_OP_FALLOCATE),
    C(IORING_OP_UNLINKAT),
};

void constants_register(lua_State *L)
{
  const size_t count = sizeof constants / sizeof *constants;
  lua_createtable(L, 0, (int)count);
  for (size_t i = 0; i < count; i++) {
    lua_pushinteger(L, constants[i].number);
    lua_setfield(L, -2, constants[i].name);
  }
  lua_setfield(L, -2, "const");
}
