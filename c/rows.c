/* The table of operations. */
#include "rows.h"

#include "compat.h"

#include <errno.h>
#include <lauxlib.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>

#include "extra.h"
#include "near.h"

/*
** Rows, by opcode.  Arguments are in liburing's order without the SQE, and a
** Buffer or string stands for pointer and length.
*/

#define FIELD(f)                                                              \
  .where = (uint8_t)offsetof(struct io_uring_sqe, f),                         \
  .width = sizeof(((struct io_uring_sqe *)0)->f)

/* An integer that must be given. */
#define INTEGER(n, f, low, high)                                              \
  {                                                                           \
    .name = n, .kind = ARG_INTEGER, FIELD(f), .min = low, .max = high         \
  }
/* One that need not be. */
#define OPTIONAL(n, f, low, high, otherwise)                                  \
  {                                                                           \
    .name = n, .kind = ARG_INTEGER, FIELD(f), .min = low, .max = high,        \
    .optional = true, .fallback = otherwise                                   \
  }
#define ARG(n, k)                                                             \
  {                                                                           \
    .name = n, .kind = k                                                      \
  }
/* One that the reader of its kind puts into a field. */
#define IN(n, k, f)                                                           \
  {                                                                           \
    .name = n, .kind = k, FIELD(f)                                            \
  }

#define FD      IN("fd", ARG_FD, fd)
#define DIRFD   IN("dirfd", ARG_DIRFD, fd)
#define PATH    IN("path", ARG_PATH, addr)
#define ADDRESS ARG("address", ARG_ADDRESS)
#define FLAGS   OPTIONAL("flags", rw_flags, 0, UINT32_MAX, 0)
/* -1 is the file's own position */
#define OFFSET OPTIONAL("offset", off, -1, LUA_MAXINTEGER, -1)

/* Fields of socket commands, which the header at hand may not name. */
#define FIELD_AT(place) .where = place, .width = 4
#define OPTION                                                                \
  {.name = "level",                                                           \
   .kind = ARG_INTEGER,                                                       \
   FIELD_AT(URING_SQE_LEVEL),                                                 \
   .min = 0,                                                                  \
   .max = INT_MAX},                                                           \
  {                                                                           \
    .name = "optname", .kind = ARG_INTEGER, FIELD_AT(URING_SQE_OPTNAME),      \
    .min = 0, .max = INT_MAX                                                  \
  }

#define ROOM(f) .room = (uint8_t)offsetof(struct io_uring_sqe, f)

static const struct row rows[] = {
    {.name = "nop", .opcode = IORING_OP_NOP},
    {.name = "readv",
     .opcode = IORING_OP_READV,
     .args = {FD, ARG("buffers", ARG_BUFFERS), OFFSET, FLAGS}},
    {.name = "writev",
     .opcode = IORING_OP_WRITEV,
     .args = {FD, ARG("data", ARG_DATAS), OFFSET, FLAGS}},
    {.name = "fsync",
     .opcode = IORING_OP_FSYNC,
     .fails_quietly = true,
     .args = {FD, FLAGS}},
    {.name = "poll_add",
     .opcode = IORING_OP_POLL_ADD,
     .options = OPTION_MULTISHOT,
     .args = {FD, ARG("events", ARG_EVENTS)}},
    {.name = "poll_remove",
     .opcode = IORING_OP_POLL_REMOVE,
     .args = {ARG("operation", ARG_TARGET)}},
    /* an event keeps its user_data, so there is no flag to change that */
    {.name = "poll_update",
     .opcode = IORING_OP_POLL_REMOVE,
     .args = {ARG("operation", ARG_TARGET), ARG("events", ARG_EVENTS),
              OPTIONAL("flags", len, 0, 3, IORING_POLL_UPDATE_EVENTS)}},
    {.name = "sync_file_range",
     .opcode = IORING_OP_SYNC_FILE_RANGE,
     .fails_quietly = true,
     .args = {FD, INTEGER("len", len, 0, UINT32_MAX),
              INTEGER("offset", off, 0, LUA_MAXINTEGER), FLAGS}},
    {.name = "sendmsg",
     .opcode = IORING_OP_SENDMSG,
     .options = OPTION_POLL_FIRST,
     .args = {FD, ARG("message", ARG_MESSAGE_OUT), FLAGS}},
    {.name = "sendmsg_zc",
     .opcode = IORING_OP_SENDMSG_ZC,
     .zero_copy = true,
     .options = OPTION_POLL_FIRST,
     .args = {FD, ARG("message", ARG_MESSAGE_OUT), FLAGS}},
    {.name = "recvmsg",
     .opcode = IORING_OP_RECVMSG,
     .result = RESULT_MESSAGE,
     .pools = true,
     .streams = true,
     .options = OPTION_POLL_FIRST | OPTION_MULTISHOT,
     .args = {FD, ARG("message", ARG_MESSAGE_IN), FLAGS}},
    {.name = "timeout",
     .opcode = IORING_OP_TIMEOUT,
     .result = RESULT_TIMEOUT,
     .options = OPTION_MULTISHOT,
     .args = {ARG("seconds", ARG_SECONDS),
              OPTIONAL("count", off, 0, UINT32_MAX, 0),
              ARG("flags", ARG_CLOCK)}},
    {.name = "timeout_remove",
     .opcode = IORING_OP_TIMEOUT_REMOVE,
     .args = {ARG("operation", ARG_TARGET), FLAGS}},
    {.name = "timeout_update",
     .opcode = IORING_OP_TIMEOUT_REMOVE,
     .preset = IORING_TIMEOUT_UPDATE,
     .args = {ARG("seconds", ARG_NEW_SECONDS), ARG("operation", ARG_TARGET),
              FLAGS}},
    {.name = "link_timeout",
     .opcode = IORING_OP_LINK_TIMEOUT,
     .result = RESULT_TIMEOUT,
     .args = {ARG("seconds", ARG_SECONDS), ARG("flags", ARG_CLOCK)}},
    {.name = "accept",
     .opcode = IORING_OP_ACCEPT,
     .result = RESULT_PEER,
     .yields_fd = true,
     .options = OPTION_PEER | OPTION_MULTISHOT | OPTION_DIRECT,
     .args = {FD, FLAGS}},
    {.name = "cancel",
     .opcode = IORING_OP_ASYNC_CANCEL,
     .args = {{.name = "operation", .kind = ARG_TARGET, .optional = true},
              FLAGS}},
    {.name = "cancel_fd",
     .opcode = IORING_OP_ASYNC_CANCEL,
     .preset = IORING_ASYNC_CANCEL_FD,
     .args = {FD, FLAGS}},
    {.name = "connect", .opcode = IORING_OP_CONNECT, .args = {FD, ADDRESS}},
    {.name = "fallocate",
     .opcode = IORING_OP_FALLOCATE,
     .fails_quietly = true,
     .args = {FD, INTEGER("mode", len, 0, INT_MAX),
              INTEGER("offset", off, 0, LUA_MAXINTEGER),
              INTEGER("len", addr, 0, LUA_MAXINTEGER)}},
    {.name = "openat",
     .opcode = IORING_OP_OPENAT,
     .yields_fd = true,
     .options = OPTION_DIRECT,
     .args = {DIRFD, PATH, FLAGS, OPTIONAL("mode", len, 0, 07777, 0)}},
    {.name = "close", .opcode = IORING_OP_CLOSE, .args = {FD}},
    /* into slots from the first on; without it, into any that are empty */
    {.name = "files_update",
     .opcode = IORING_OP_FILES_UPDATE,
     .result = RESULT_FILES,
     .args = {IN("fds", ARG_FILES, addr), IN("slot", ARG_FIRST_SLOT, off)}},
    {.name = "statx",
     .opcode = IORING_OP_STATX,
     .fails_quietly = true,
     .result = RESULT_STATX,
     .args = {DIRFD, PATH, FLAGS,
              OPTIONAL("mask", len, 0, INT32_MAX, STATX_BASIC_STATS)}},
    {.name = "read",
     .opcode = IORING_OP_READ,
     .pools = true,
     .args = {FD, IN("buffer", ARG_BUFFER, addr), OFFSET, FLAGS}},
    {.name = "write",
     .opcode = IORING_OP_WRITE,
     .args = {FD, IN("data", ARG_DATA, addr), OFFSET, FLAGS}},
    {.name = "read_fixed",
     .opcode = IORING_OP_READ_FIXED,
     .registered = true,
     .args = {FD, IN("buffer", ARG_BUFFER, addr), OFFSET, FLAGS}},
    {.name = "write_fixed",
     .opcode = IORING_OP_WRITE_FIXED,
     .registered = true,
     .args = {FD, IN("data", ARG_DATA, addr), OFFSET, FLAGS}},
    {.name = "fadvise",
     .opcode = IORING_OP_FADVISE,
     .args = {FD, INTEGER("offset", off, 0, LUA_MAXINTEGER),
              INTEGER("len", len, 0, UINT32_MAX),
              INTEGER("advice", fadvise_advice, 0, INT_MAX)}},
    {.name = "madvise",
     .opcode = IORING_OP_MADVISE,
     .fails_quietly = true,
     .args = {IN("buffer", ARG_PAGES, addr), ARG("advice", ARG_ADVICE)}},
    {.name = "send",
     .opcode = IORING_OP_SEND,
     .pools = true,
     .options = OPTION_POLL_FIRST | OPTION_BUNDLE,
     .args = {FD, IN("data", ARG_DATA, addr), FLAGS}},
    {.name = "send_zc",
     .opcode = IORING_OP_SEND_ZC,
     .zero_copy = true,
     .options = OPTION_POLL_FIRST,
     .args = {FD, IN("data", ARG_DATA, addr), FLAGS,
              OPTIONAL("zc_flags", ioprio, 0, UINT16_MAX, 0)}},
    {.name = "recv",
     .opcode = IORING_OP_RECV,
     .pools = true,
     .streams = true,
     .options = OPTION_POLL_FIRST | OPTION_MULTISHOT | OPTION_BUNDLE,
     .args = {FD, IN("buffer", ARG_BUFFER, addr), FLAGS}},
    {.name = "openat2",
     .opcode = IORING_OP_OPENAT2,
     .yields_fd = true,
     .options = OPTION_DIRECT,
     .args = {DIRFD, PATH, IN("how", ARG_OPEN_HOW, addr2)}},
    {.name = "epoll_ctl",
     .opcode = IORING_OP_EPOLL_CTL,
     .by_system_call = call_epoll_ctl,
     .args = {IN("epfd", ARG_FD, fd), IN("fd", ARG_FD, off),
              ARG("op", ARG_EPOLL_OP), IN("events", ARG_EPOLL_EVENT, addr)}},
    {.name = "provide_buffers",
     .opcode = IORING_OP_PROVIDE_BUFFERS,
     .result = RESULT_PROVIDED,
     .args = {IN("buffer", ARG_ROOM, addr), INTEGER("len", len, 1, INT_MAX),
              IN("nr", ARG_PIECES, fd),
              INTEGER("bgid", buf_group, 0, UINT16_MAX),
              INTEGER("bid", off, 0, UINT16_MAX)}},
    {.name = "remove_buffers",
     .opcode = IORING_OP_REMOVE_BUFFERS,
     .result = RESULT_REMOVED,
     .args = {INTEGER("nr", fd, 1, UINT16_MAX),
              INTEGER("bgid", buf_group, 0, UINT16_MAX)}},
    /* what is not given, or nil, is the file's own position, or a pipe's */
    {.name = "splice",
     .opcode = IORING_OP_SPLICE,
     .args = {IN("fd_in", ARG_FD, splice_fd_in),
              OPTIONAL("off_in", splice_off_in, -1, LUA_MAXINTEGER, -1),
              IN("fd_out", ARG_FD, fd),
              OPTIONAL("off_out", off, -1, LUA_MAXINTEGER, -1),
              INTEGER("nbytes", len, 0, UINT32_MAX), FLAGS}},
    {.name = "tee",
     .opcode = IORING_OP_TEE,
     .args = {IN("fd_in", ARG_FD, splice_fd_in), IN("fd_out", ARG_FD, fd),
              INTEGER("nbytes", len, 0, UINT32_MAX), FLAGS}},
    {.name = "shutdown",
     .opcode = IORING_OP_SHUTDOWN,
     .fails_quietly = true,
     .args = {FD, ARG("how", ARG_HOW)}},
    {.name = "renameat",
     .opcode = IORING_OP_RENAMEAT,
     .fails_quietly = true,
     .args = {IN("olddirfd", ARG_DIRFD, fd), IN("oldpath", ARG_PATH, addr),
              IN("newdirfd", ARG_DIRFD, len), IN("newpath", ARG_PATH, addr2),
              FLAGS}},
    {.name = "unlinkat",
     .opcode = IORING_OP_UNLINKAT,
     .fails_quietly = true,
     .args = {DIRFD, PATH, FLAGS}},
    {.name = "mkdirat",
     .opcode = IORING_OP_MKDIRAT,
     .fails_quietly = true,
     .args = {DIRFD, PATH, OPTIONAL("mode", len, 0, 07777, 0777)}},
    {.name = "symlinkat",
     .opcode = IORING_OP_SYMLINKAT,
     .fails_quietly = true,
     .args = {IN("target", ARG_PATH, addr), IN("newdirfd", ARG_DIRFD, fd),
              IN("linkpath", ARG_PATH, addr2)}},
    {.name = "linkat",
     .opcode = IORING_OP_LINKAT,
     .fails_quietly = true,
     .args = {IN("olddirfd", ARG_DIRFD, fd), IN("oldpath", ARG_PATH, addr),
              IN("newdirfd", ARG_DIRFD, len), IN("newpath", ARG_PATH, addr2),
              FLAGS}},
    {.name = "msg_ring",
     .opcode = IORING_OP_MSG_RING,
     .args = {ARG("ring", ARG_RING), INTEGER("len", len, 0, INT_MAX),
              ARG("data", ARG_DATA_WORD), FLAGS}},
    {.name = "msg_ring_fd",
     .opcode = IORING_OP_MSG_RING,
     .args = {ARG("ring", ARG_RING), ARG("source_slot", ARG_SOURCE_SLOT),
              ARG("target_slot", ARG_TARGET_SLOT), ARG("data", ARG_DATA_WORD),
              FLAGS}},
    {.name = "fsetxattr",
     .opcode = IORING_OP_FSETXATTR,
     .fails_quietly = true,
     .args = {FD, IN("name", ARG_NAME, addr), IN("value", ARG_VALUE, addr2),
              FLAGS, ARG("length", ARG_LENGTH)}},
    {.name = "setxattr",
     .opcode = IORING_OP_SETXATTR,
     .fails_quietly = true,
     .args = {IN("name", ARG_NAME, addr), IN("value", ARG_VALUE, addr2),
              IN("path", ARG_PATH, addr3), FLAGS, ARG("length", ARG_LENGTH)}},
    {.name = "fgetxattr",
     .opcode = IORING_OP_FGETXATTR,
     .fails_quietly = true,
     .args = {FD, IN("name", ARG_NAME, addr), IN("buffer", ARG_ROOM, addr2),
              ARG("length", ARG_LENGTH)}},
    {.name = "getxattr",
     .opcode = IORING_OP_GETXATTR,
     .fails_quietly = true,
     .args = {IN("name", ARG_NAME, addr), IN("buffer", ARG_ROOM, addr2),
              IN("path", ARG_PATH, addr3), ARG("length", ARG_LENGTH)}},
    {.name = "socket",
     .opcode = IORING_OP_SOCKET,
     .yields_fd = true,
     .options = OPTION_DIRECT,
     .args = {INTEGER("domain", fd, 0, INT_MAX),
              INTEGER("type", off, 0, INT_MAX),
              OPTIONAL("protocol", len, 0, INT_MAX, 0), FLAGS}},
    /* what a driver is told, by a number and up to 16 bytes */
    {.name = "uring_cmd",
     .opcode = IORING_OP_URING_CMD,
     .args = {FD,
              {.name = "cmd_op",
               .kind = ARG_INTEGER,
               FIELD_AT(URING_SQE_CMD_OP),
               .min = 0,
               .max = UINT32_MAX},
              IN("command", ARG_COMMAND, addr3)}},
    /* the option is an integer, or what a Buffer or string holds */
    {.name = "getsockopt",
     .opcode = IORING_OP_URING_CMD,
     .command = URING_SOCKET_GETSOCKOPT,
     .came_with = URING_OP_FUTEX_WAIT,
     .since = "6.7",
     .by_system_call = call_getsockopt,
     .result = RESULT_OPTION,
     .args = {FD, OPTION, ARG("buffer", ARG_OPTION_ROOM)}},
    {.name = "setsockopt",
     .opcode = IORING_OP_URING_CMD,
     .command = URING_SOCKET_SETSOCKOPT,
     .came_with = URING_OP_FUTEX_WAIT,
     .since = "6.7",
     .by_system_call = call_setsockopt,
     .args = {FD, OPTION, ARG("value", ARG_OPTION_VALUE)}},
    /* bytes that wait to be received, or to be sent */
    {.name = "siocinq",
     .opcode = IORING_OP_URING_CMD,
     .command = URING_SOCKET_INQ,
     .came_with = URING_OP_FUTEX_WAIT,
     .since = "6.7",
     .by_system_call = call_siocinq,
     .args = {FD}},
    {.name = "siocoutq",
     .opcode = IORING_OP_URING_CMD,
     .command = URING_SOCKET_OUTQ,
     .came_with = URING_OP_FUTEX_WAIT,
     .since = "6.7",
     .by_system_call = call_siocoutq,
     .args = {FD}},
    {.name = "read_multishot",
     .opcode = URING_OP_READ_MULTISHOT,
     .since = "6.7",
     .pools = true,
     .streams = true,
     .multishot = true,
     .args = {FD, IN("pool", ARG_POOL, addr), OFFSET}},
    {.name = "waitid",
     .opcode = URING_OP_WAITID,
     .since = "6.7",
     .result = RESULT_CHILD,
     ROOM(addr2),
     .args = {INTEGER("idtype", len, 0, 3), INTEGER("id", fd, 0, INT_MAX),
              INTEGER("options", file_index, 0, INT_MAX), FLAGS}},
    {.name = "futex_wait",
     .opcode = URING_OP_FUTEX_WAIT,
     .fails_quietly = true,
     .since = "6.7",
     .args = {ARG("word", ARG_WORD), INTEGER("value", off, 0, UINT32_MAX),
              OPTIONAL("mask", addr3, 0, UINT32_MAX, UINT32_MAX),
              ARG("futex_flags", ARG_WORD_KIND), FLAGS}},
    {.name = "futex_wake",
     .opcode = URING_OP_FUTEX_WAKE,
     .since = "6.7",
     .by_system_call = call_futex_wake,
     .args = {ARG("word", ARG_WORD), INTEGER("value", off, 0, INT_MAX),
              OPTIONAL("mask", addr3, 0, UINT32_MAX, UINT32_MAX),
              ARG("futex_flags", ARG_WORD_KIND), FLAGS}},
    {.name = "futex_waitv",
     .opcode = URING_OP_FUTEX_WAITV,
     .fails_quietly = true,
     .since = "6.7",
     .args = {ARG("words", ARG_WORDS), FLAGS}},
    {.name = "fixed_fd_install",
     .opcode = URING_OP_FIXED_FD_INSTALL,
     .since = "6.8",
     .yields_fd = true,
     .sqe_flags = IOSQE_FIXED_FILE,
     .args = {FD, FLAGS}},
    {.name = "ftruncate",
     .opcode = URING_OP_FTRUNCATE,
     .fails_quietly = true,
     .since = "6.9",
     .by_system_call = call_ftruncate,
     .args = {FD, INTEGER("len", off, 0, LUA_MAXINTEGER)}},
    {.name = "bind",
     .opcode = URING_OP_BIND,
     .since = "6.11",
     .by_system_call = call_bind,
     .args = {FD, ADDRESS}},
    {.name = "listen",
     .opcode = URING_OP_LISTEN,
     .since = "6.11",
     .by_system_call = call_listen,
     .args = {FD, OPTIONAL("backlog", len, 0, INT_MAX, SOMAXCONN)}},
    /* the data is where the interface queue of a network card has its memory
     */
    {.name = "recv_zc",
     .opcode = URING_OP_RECV_ZC,
     .since = "6.15",
     .multishot = true,
     .options = OPTION_POLL_FIRST,
     .args = {FD, INTEGER("ifq", file_index, 0, UINT32_MAX),
              OPTIONAL("len", len, 0, UINT32_MAX, 0), FLAGS}},
    {.name = "epoll_wait",
     .opcode = URING_OP_EPOLL_WAIT,
     .since = "6.15",
     .result = RESULT_EPOLL,
     ROOM(addr),
     .args = {FD,
              OPTIONAL("maxevents", len, 1, EPOLL_EVENTS_MAX,
                       EPOLL_EVENTS_MAX),
              FLAGS}},
    {.name = "readv_fixed",
     .opcode = URING_OP_READV_FIXED,
     .since = "6.15",
     .registered = true,
     .args = {FD, ARG("buffers", ARG_BUFFERS), OFFSET, FLAGS}},
    {.name = "writev_fixed",
     .opcode = URING_OP_WRITEV_FIXED,
     .since = "6.15",
     .registered = true,
     .args = {FD, ARG("data", ARG_DATAS), OFFSET, FLAGS}},
    {.name = "pipe",
     .opcode = URING_OP_PIPE,
     .since = "6.16",
     .by_system_call = call_pipe,
     .result = RESULT_PIPE,
     .yields_fd = true,
     .options = OPTION_DIRECT,
     ROOM(addr),
     .args = {FLAGS}},
    {.name = "raw", .args = {ARG("sqe", ARG_RAW)}},
};

#define NROWS (sizeof rows / sizeof *rows)

const struct row *op_find(const char *name)
{
  for (size_t i = 0; i < NROWS; i++)
    if (strcmp(rows[i].name, name) == 0)
      return &rows[i];
  return NULL;
}

const struct row *op_check(lua_State *L, int index)
{
  size_t len;
  const char *name = luaL_checklstring(L, index, &len);
  const struct row *row = len == strlen(name) ? op_find(name) : NULL;
  if (row == NULL)
    op_unknown(L, name);
  return row;
}

const struct row *op_next(const struct row *row)
{
  row = row ? row + 1 : rows;
  return row < rows + NROWS ? row : NULL;
}

const struct row *op_of_opcode(uint8_t opcode)
{
  for (size_t i = 1; i < NROWS - 1; i++) /* neither nop nor raw */
    if (rows[i].opcode == opcode)
      return &rows[i];
  return NULL;
}

bool op_yields_fd(uint8_t opcode)
{
  const struct row *row = op_of_opcode(opcode);
  return row != NULL && row->yields_fd && row->result != RESULT_PIPE;
}

int op_unknown(lua_State *L, const char *name)
{
  struct near near;
  near_start(&near, name);
  for (size_t i = 0; i < NROWS; i++)
    near_offer(&near, rows[i].name);
  near_push(L, &near);
  return luaL_error(L, "unknown operation '%s'%s", name, lua_tostring(L, -1));
}
