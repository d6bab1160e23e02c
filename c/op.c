/* The table of operations, and how a request becomes one in flight. */
#include "op.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "args.h"
#include "near.h"
#include "operation.h"

/*
** Calls for kernels that lack the opcode
*/

static int bind_by_call(const struct request *q)
{
  return bind(q->sqe.fd, (const struct sockaddr *)&q->addr, q->addr_len) < 0
             ? -errno
             : 0;
}

static int listen_by_call(const struct request *q)
{
  return listen(q->sqe.fd, (int)q->sqe.len) < 0 ? -errno : 0;
}

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

#define FD      ARG("fd", ARG_FD)
#define DIRFD   ARG("dirfd", ARG_DIRFD)
#define PATH    ARG("path", ARG_PATH)
#define ADDRESS ARG("address", ARG_ADDRESS)
#define FLAGS   OPTIONAL("flags", rw_flags, 0, UINT32_MAX, 0)
/* -1 is the file's own position */
#define OFFSET OPTIONAL("offset", off, -1, LUA_MAXINTEGER, -1)

static const struct row rows[] = {
    {.name = "nop", .opcode = IORING_OP_NOP},
    {.name = "readv",
     .opcode = IORING_OP_READV,
     .args = {FD, ARG("buffers", ARG_BUFFERS), OFFSET, FLAGS}},
    {.name = "writev",
     .opcode = IORING_OP_WRITEV,
     .args = {FD, ARG("data", ARG_DATAS), OFFSET, FLAGS}},
    {.name = "fsync", .opcode = IORING_OP_FSYNC, .args = {FD, FLAGS}},
    {.name = "poll_add",
     .opcode = IORING_OP_POLL_ADD,
     .options = OPTION_MULTISHOT,
     .args = {FD, ARG("events", ARG_EVENTS)}},
    {.name = "sendmsg",
     .opcode = IORING_OP_SENDMSG,
     .options = OPTION_POLL_FIRST,
     .args = {FD, ARG("message", ARG_MESSAGE_OUT), FLAGS}},
    {.name = "recvmsg",
     .opcode = IORING_OP_RECVMSG,
     .result = RESULT_MESSAGE,
     .options = OPTION_POLL_FIRST,
     .args = {FD, ARG("message", ARG_MESSAGE_IN), FLAGS}},
    {.name = "timeout",
     .opcode = IORING_OP_TIMEOUT,
     .result = RESULT_TIMEOUT,
     .options = OPTION_MULTISHOT,
     .args = {ARG("seconds", ARG_SECONDS),
              OPTIONAL("count", off, 0, UINT32_MAX, 0),
              ARG("flags", ARG_CLOCK)}},
    {.name = "link_timeout",
     .opcode = IORING_OP_LINK_TIMEOUT,
     .result = RESULT_TIMEOUT,
     .args = {ARG("seconds", ARG_SECONDS), ARG("flags", ARG_CLOCK)}},
    {.name = "accept",
     .opcode = IORING_OP_ACCEPT,
     .result = RESULT_PEER,
     .yields_fd = true,
     .options = OPTION_PEER | OPTION_MULTISHOT,
     .args = {FD, FLAGS}},
    {.name = "cancel",
     .opcode = IORING_OP_ASYNC_CANCEL,
     .args = {ARG("operation", ARG_TARGET), FLAGS}},
    {.name = "cancel_fd",
     .opcode = IORING_OP_ASYNC_CANCEL,
     .preset = IORING_ASYNC_CANCEL_FD,
     .args = {FD, FLAGS}},
    {.name = "connect", .opcode = IORING_OP_CONNECT, .args = {FD, ADDRESS}},
    {.name = "openat",
     .opcode = IORING_OP_OPENAT,
     .yields_fd = true,
     .args = {DIRFD, PATH, FLAGS, OPTIONAL("mode", len, 0, 07777, 0)}},
    {.name = "close", .opcode = IORING_OP_CLOSE, .args = {FD}},
    {.name = "statx",
     .opcode = IORING_OP_STATX,
     .result = RESULT_STATX,
     .args = {DIRFD, PATH, FLAGS,
              OPTIONAL("mask", len, 0, INT32_MAX, STATX_BASIC_STATS)}},
    {.name = "read",
     .opcode = IORING_OP_READ,
     .args = {FD, ARG("buffer", ARG_BUFFER), OFFSET, FLAGS}},
    {.name = "write",
     .opcode = IORING_OP_WRITE,
     .args = {FD, ARG("data", ARG_DATA), OFFSET, FLAGS}},
    {.name = "send",
     .opcode = IORING_OP_SEND,
     .options = OPTION_POLL_FIRST,
     .args = {FD, ARG("data", ARG_DATA), FLAGS}},
    {.name = "recv",
     .opcode = IORING_OP_RECV,
     .options = OPTION_POLL_FIRST,
     .args = {FD, ARG("buffer", ARG_BUFFER), FLAGS}},
    {.name = "shutdown",
     .opcode = IORING_OP_SHUTDOWN,
     .args = {FD, ARG("how", ARG_HOW)}},
    {.name = "socket",
     .opcode = IORING_OP_SOCKET,
     .yields_fd = true,
     .args = {INTEGER("domain", fd, 0, INT_MAX),
              INTEGER("type", off, 0, INT_MAX),
              OPTIONAL("protocol", len, 0, INT_MAX, 0), FLAGS}},
    {.name = "bind",
     .opcode = URING_OP_BIND,
     .since = "6.11",
     .by_system_call = bind_by_call,
     .args = {FD, ADDRESS}},
    {.name = "listen",
     .opcode = URING_OP_LISTEN,
     .since = "6.11",
     .by_system_call = listen_by_call,
     .args = {FD, OPTIONAL("backlog", len, 0, INT_MAX, SOMAXCONN)}},
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
  return opcode == IORING_OP_OPENAT2 || opcode == URING_OP_FIXED_FD_INSTALL ||
         (row != NULL && row->yields_fd);
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

/*
** From request to operation
*/

/* One part after the other: the compiler makes a few vector stores of each,
** and a slow string instruction of the whole. */
static void clear(struct request *q)
{
  memset(&q->sqe, 0, sizeof q->sqe);
  memset((char *)q + sizeof q->sqe, 0, 48);
  memset((char *)q + sizeof q->sqe + 48, 0,
         offsetof(struct request, size) - sizeof q->sqe - 48);
}

void op_request(lua_State *L, const struct core *core, const struct row *row,
                int first, struct request *q)
{
  clear(q);
  q->row = row;
  q->core = core;
  q->sqe.opcode = row->opcode;
  if (row->yields_fd)
    q->event_flags = EVENT_YIELDS_FD;
  if (row->result == RESULT_STATX)
    q->aux = AUX_STATX;
  args_read(L, q, first);
  q->sqe.rw_flags |= (__kernel_rwf_t)row->preset;
}

/* Lends member `i` of the vector; false: the kernel has it already. */
static bool lend_member(lua_State *L, struct ring *r, struct event *e,
                        const struct request *q, unsigned i,
                        const struct loan **conflict)
{
  struct loan *loan = &e->aux->loans[i];
  struct iovec *iov = &e->aux->iov[i];
  const struct buffer *b;
  size_t len;
  lua_rawgeti(L, q->vector, i + 1);
  b = buffer_test(L, r->core, -1);
  if (b != NULL) {
    *conflict = loan_conflict(b->block, b->offset, b->size, q->writes);
    if (*conflict == NULL) {
      loan_open(loan, b->block, b->offset, b->size, q->writes, e);
      r->stats.bytes_lent += b->size;
    }
    iov->iov_base = buffer_data(b);
    iov->iov_len = b->size;
  } else if (lua_type(L, -1) == LUA_TSTRING) {
    iov->iov_base = (void *)(uintptr_t)lua_tolstring(L, -1, &len);
    iov->iov_len = len;
  }
  lua_pop(L, 1);
  return *conflict == NULL;
}

/* Why the request cannot be carried out on this ring; NULL: it can.  Asked
** this late because between the check of the arguments and here the collector
** may have run, and with it a finaliser that closes what was open then.  From
** here to the SQE nothing allocates through Lua any more. */
static const char *refusal(lua_State *L, const struct ring *r,
                           const struct request *q)
{
  if (r->state != RING_OPEN)
    return "attempt to use a closed ring";
  if (q->target != NULL && q->target->event != NULL && q->target->ring != r)
    return "the operation to cancel belongs to another ring";
  if (q->buffer != NULL && q->buffer->block == NULL)
    return "attempt to use a closed buffer";
  for (unsigned i = 0; i < q->nvec; i++) {
    const struct buffer *b;
    lua_rawgeti(L, q->vector, i + 1);
    b = buffer_test(L, r->core, -1);
    lua_pop(L, 1);
    if (b != NULL && b->block == NULL)
      return "attempt to use a closed buffer";
  }
  return NULL;
}

/* Lends all that the request names; NULL, or the loan in the way. */
static const struct loan *lend(lua_State *L, struct ring *r, struct event *e,
                               const struct request *q)
{
  const struct buffer *b = q->buffer;
  const struct loan *conflict = NULL;
  if (b != NULL) {
    conflict = loan_conflict(b->block, b->offset, q->size, q->writes);
    if (conflict == NULL) {
      loan_open(&e->loan, b->block, b->offset, q->size, q->writes, e);
      r->stats.bytes_lent += q->size;
    }
  }
  for (unsigned i = 0; i < q->nvec; i++)
    if (!lend_member(L, r, e, q, i, &conflict))
      break;
  return conflict;
}

static void attach_message(struct aux *aux, const struct request *q)
{
  struct msghdr *m = &aux->msg;
  m->msg_iov = aux->iov;
  m->msg_iovlen = q->nvec - q->has_control;
  if (q->has_control) {
    m->msg_control = aux->iov[q->nvec - 1].iov_base;
    m->msg_controllen = aux->iov[q->nvec - 1].iov_len;
  }
  if (q->writes) { /* room for the sender's address */
    m->msg_name = &aux->addr;
    m->msg_namelen = sizeof aux->addr;
  } else if (q->addr_len > 0) {
    memcpy(&aux->addr, &q->addr, q->addr_len);
    m->msg_name = &aux->addr;
    m->msg_namelen = q->addr_len;
  }
}

static void attach_raw(struct aux *aux, struct io_uring_sqe *sqe)
{
  if (aux->iov[0].iov_base != NULL)
    sqe->addr = (uintptr_t)aux->iov[0].iov_base;
  if (aux->iov[1].iov_base != NULL)
    sqe->addr2 = (uintptr_t)aux->iov[1].iov_base;
  if (aux->iov[2].iov_base != NULL)
    sqe->__pad2[0] = (uintptr_t)aux->iov[2].iov_base; /* addr3 */
}

/* Points the SQE at what the event owns. */
static void attach(struct event *e, const struct request *q,
                   struct io_uring_sqe *sqe)
{
  struct aux *aux = e->aux;
  switch ((enum aux_kind)q->aux) {
  case AUX_NONE:
    break;
  case AUX_STATX:
    sqe->off = (uintptr_t)&aux->statx;
    break;
  case AUX_PEER:
    aux->addr_len = sizeof aux->addr;
    sqe->addr = (uintptr_t)&aux->addr;
    sqe->addr2 = (uintptr_t)&aux->addr_len;
    break;
  case AUX_ADDRESS:
    memcpy(&aux->addr, &q->addr, q->addr_len);
    sqe->addr = (uintptr_t)&aux->addr;
    sqe->off = q->addr_len;
    break;
  case AUX_TIME:
    aux->time = q->time;
    sqe->addr = (uintptr_t)&aux->time;
    break;
  case AUX_VECTOR:
    sqe->addr = (uintptr_t)aux->iov;
    sqe->len = aux->nvec;
    break;
  case AUX_MESSAGE:
    attach_message(aux, q);
    sqe->addr = (uintptr_t)&aux->msg;
    break;
  case AUX_RAW:
    attach_raw(aux, sqe);
    break;
  }
}

/* An opcode that this kernel lacks: done by a system call, or not at all;
** either way a NOP carries the result, so it comes like any other. */
static void make_up(struct event *e, const struct request *q,
                    struct io_uring_sqe *sqe)
{
  const struct row *row = q->row;
  e->res = row->by_system_call ? row->by_system_call(q) : -ENOSYS;
  e->flags |= EVENT_RESULT;
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = IORING_OP_NOP;
}

static int no_memory(lua_State *L)
{
  return luaL_error(L, "not enough memory");
}

/* A slot with its aux, and room for the SQE; nothing lent yet. */
static struct event *new_event(lua_State *L, struct ring *r,
                               const struct request *q)
{
  struct event *e = event_new(L, r); /* may run finalisers */
  const char *why = refusal(L, r, q);
  if (why != NULL) {
    if (e != NULL && r->state == RING_OPEN)
      event_free(r, e);
    luaL_error(L, "%s", why);
  }
  if (e == NULL)
    no_memory(L);
  if (q->aux != AUX_NONE)
    e->aux = aux_new(r->core, q->nvec);
  if ((q->aux != AUX_NONE && e->aux == NULL) || !ring_reserve(r)) {
    event_free(r, e);
    no_memory(L);
  }
  e->row = q->row;
  e->fd = q->sqe.fd;
  e->flags |= q->event_flags;
  return e;
}

/* Hands over what the request lends; raises if the kernel has it already,
** and then the event is gone. */
static void hand_over(lua_State *L, struct ring *r, struct event *e,
                      const struct request *q)
{
  const struct loan *conflict;
  e->flags |= EVENT_LENDS;
  conflict = lend(L, r, e, q);
  if (conflict != NULL) {
    const char *name = event_name(conflict->event);
    int fd = conflict->event->fd;
    event_give_back(L, r, e);
    event_free(r, e);
    loan_error(L, name, fd);
  }
  if (q->keep != 0) {
    e->string_bytes = q->string_bytes;
    r->stats.bytes_lent += e->string_bytes;
    lua_pushvalue(L, q->keep);
    event_anchor(L, &r->events, e);
  }
}

struct event *op_commit(lua_State *L, struct ring *r, struct request *q)
{
  struct io_uring_sqe *sqe = &q->sqe;
  struct event *e;
#ifdef URING_GCSTRESS
  lua_gc(L, LUA_GCCOLLECT);
#endif
  e = new_event(L, r, q);
  if (q->buffer != NULL || q->nvec > 0 || q->keep != 0)
    hand_over(L, r, e, q);
  if (q->aux != AUX_NONE)
    attach(e, q, sqe);
  if (!ring_supports(r, sqe->opcode))
    make_up(e, q, sqe);
  sqe->user_data = event_user_data(e);
  ring_queue(r, e, sqe);
  return e;
}
