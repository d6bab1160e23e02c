/* The constants that the operations take, by their C names. */
#include "constants.h"

#include "compat.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

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
    /* openat2: resolve */
    C(RESOLVE_NO_XDEV),
    C(RESOLVE_NO_MAGICLINKS),
    C(RESOLVE_NO_SYMLINKS),
    C(RESOLVE_BENEATH),
    C(RESOLVE_IN_ROOT),
    C(RESOLVE_CACHED),
    /* unlinkat, linkat, renameat */
    C(AT_REMOVEDIR),
    C(AT_SYMLINK_FOLLOW),
    C(RENAME_NOREPLACE),
    C(RENAME_EXCHANGE),
    C(RENAME_WHITEOUT),
    /* setxattr */
    C(XATTR_CREATE),
    C(XATTR_REPLACE),
    /* fallocate, fadvise, madvise, sync_file_range */
    C(FALLOC_FL_KEEP_SIZE),
    C(FALLOC_FL_PUNCH_HOLE),
    C(FALLOC_FL_COLLAPSE_RANGE),
    C(FALLOC_FL_ZERO_RANGE),
    C(FALLOC_FL_INSERT_RANGE),
    C(POSIX_FADV_NORMAL),
    C(POSIX_FADV_RANDOM),
    C(POSIX_FADV_SEQUENTIAL),
    C(POSIX_FADV_WILLNEED),
    C(POSIX_FADV_DONTNEED),
    C(POSIX_FADV_NOREUSE),
    C(MADV_NORMAL),
    C(MADV_RANDOM),
    C(MADV_SEQUENTIAL),
    C(MADV_WILLNEED),
    C(MADV_DONTNEED),
    C(MADV_FREE),
    C(MADV_MERGEABLE),
    C(MADV_UNMERGEABLE),
    C(MADV_HUGEPAGE),
    C(MADV_NOHUGEPAGE),
    C(MADV_DONTDUMP),
    C(MADV_DODUMP),
    {"MADV_COLD", URING_MADV_COLD},
    {"MADV_PAGEOUT", URING_MADV_PAGEOUT},
    {"MADV_POPULATE_READ", URING_MADV_POPULATE_READ},
    {"MADV_POPULATE_WRITE", URING_MADV_POPULATE_WRITE},
    {"MADV_COLLAPSE", URING_MADV_COLLAPSE},
    C(SYNC_FILE_RANGE_WAIT_BEFORE),
    C(SYNC_FILE_RANGE_WRITE),
    C(SYNC_FILE_RANGE_WAIT_AFTER),
    /* splice, tee */
    C(SPLICE_F_MOVE),
    C(SPLICE_F_NONBLOCK),
    C(SPLICE_F_MORE),
    C(SPLICE_F_FD_IN_FIXED),
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
    C(SO_TYPE),
    C(SO_PROTOCOL),
    C(SO_DOMAIN),
    C(SO_BROADCAST),
    C(SO_PEERCRED),
    C(TCP_NODELAY),
    C(TCP_KEEPIDLE),
    C(TCP_KEEPINTVL),
    C(TCP_KEEPCNT),
    C(TCP_USER_TIMEOUT),
    C(TCP_CORK),
    C(TCP_FASTOPEN),
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
    /* poll_update */
    C(IORING_POLL_UPDATE_EVENTS),
    C(IORING_POLL_ADD_MULTI),
    /* epoll_ctl */
    C(EPOLL_CTL_ADD),
    C(EPOLL_CTL_DEL),
    C(EPOLL_CTL_MOD),
    C(EPOLLIN),
    C(EPOLLOUT),
    C(EPOLLPRI),
    C(EPOLLERR),
    C(EPOLLHUP),
    C(EPOLLRDHUP),
    {"EPOLLET", (uint32_t)EPOLLET},
    C(EPOLLONESHOT),
    C(EPOLLEXCLUSIVE),
    /* waitid */
    C(P_ALL),
    C(P_PID),
    C(P_PGID),
    {"P_PIDFD", 3},
    C(WEXITED),
    C(WSTOPPED),
    C(WCONTINUED),
    C(WNOHANG),
    C(WNOWAIT),
    C(CLD_EXITED),
    C(CLD_KILLED),
    C(CLD_DUMPED),
    C(CLD_TRAPPED),
    C(CLD_STOPPED),
    C(CLD_CONTINUED),
    /* futex_wait, futex_wake, futex_waitv */
    {"FUTEX2_SIZE_U32", URING_FUTEX2_U32},
    {"FUTEX2_PRIVATE", URING_FUTEX2_PRIVATE},
    /* fixed_fd_install */
    C(IORING_FIXED_FD_NO_CLOEXEC),
    /* msg_ring_fd */
    C(IORING_MSG_RING_CQE_SKIP),
    /* timeout, cancel */
    C(IORING_TIMEOUT_ABS),
    C(IORING_TIMEOUT_BOOTTIME),
    C(IORING_TIMEOUT_REALTIME),
    C(IORING_LINK_TIMEOUT_UPDATE),
    C(IORING_ASYNC_CANCEL_ALL),
    C(IORING_ASYNC_CANCEL_ANY),
    /* enter; what peek returns */
    C(IORING_ENTER_GETEVENTS),
    C(IORING_ENTER_SQ_WAKEUP),
    C(IORING_ENTER_SQ_WAIT),
    C(IORING_CQE_F_BUFFER),
    C(IORING_CQE_F_MORE),
    C(IORING_CQE_F_SOCK_NONEMPTY),
    C(IORING_CQE_F_NOTIF),
    /* flags of SQEs, for raw */
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
