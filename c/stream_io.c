/* The operations that streams are made of.
**
** What waits to be received from a socket or a pipe waits for a buffer of a
** pool that all streams of a ring share: the kernel takes one when data is
** there, so a connection that is silent holds none.  Where the pool is empty,
** where a call wants more than one of its buffers holds or has bytes in hand,
** and for files, a block of the stream's own is lent.
**
** A file is read and written at its own position (offset -1), as stdio does
** it, which those who share the descriptor share, too.  What was read ahead
** is given back by lseek where that can be seen: before the file is written,
** when it is flushed or closed, and when its position is set.  One chunk is
** read at a time: another one in flight would move the position behind the
** back of all that, and the kernel reads files ahead by itself.
*/
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "op.h"
#include "pool.h"
#include "ring.h"
#include "stream_call.h"

#define POOL_BUFFERS 128u
#define POOL_SIZE    4096u

/* Valgrind does not see what the kernel writes by a ring. */
#ifdef URING_VALGRIND
#include <valgrind/memcheck.h>
#define WRITTEN(at, size) (void)VALGRIND_MAKE_MEM_DEFINED(at, size)
#else
#define WRITTEN(at, size) (void)0
#endif

/* What is asked for at a time; a full read doubles it, a poor one halves it.
 */
#define CHUNK_MIN 4096u
#define CHUNK_MAX (1u << 17)

/* The most that one read is asked for, for a call that wants more. */
#define WANTED_MAX ((size_t)1 << 30)

#define VECTOR_MAX 1024u

/* The rows of the operations, by opcode. */
static const struct row *rows[IORING_OP_LAST];

void stream_io_register(void)
{
  static const char *const names[] = {"recv",   "read",    "send",    "write",
                                      "writev", "sendmsg", "poll_add"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const struct row *row = op_find(names[i]);
    rows[row->opcode] = row;
  }
}

struct event *stream_event(lua_State *L, struct ring *r, uint8_t opcode,
                           int fd, struct io_uring_sqe *sqe)
{
  struct event *e = event_new(L, r);
  if (e == NULL)
    return NULL;
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = opcode;
  sqe->fd = fd;
  if (opcode == IORING_OP_READ || opcode == IORING_OP_WRITE ||
      opcode == IORING_OP_WRITEV)
    sqe->off = (uint64_t)-1; /* at the position of the file */
  e->row = rows[opcode];
  e->fd = fd;
  return e;
}

static struct event *hand_over(struct ring *r, struct event *e,
                               struct io_uring_sqe *sqe)
{
  sqe->user_data = event_user_data(e);
  ring_queue(r, e, sqe);
  return e;
}

/* The same for what is to be received; a file is read in its turn. */
static struct event *hand_over_receive(const struct stream *s, struct ring *r,
                                       struct event *e,
                                       struct io_uring_sqe *sqe)
{
  if (stream_is_file(s))
    return hand_over(r, e, sqe);
  sqe->user_data = event_user_data(e);
  ring_queue_behind(r, e, sqe);
  return e;
}

static void lend(struct ring *r, struct event *e, struct io_uring_sqe *sqe,
                 struct block *block, size_t offset, size_t size, bool writes)
{
  loan_open(&e->loan, block, offset, size, writes, e);
  e->flags |= EVENT_LENDS;
  r->stats.bytes_lent += size;
  sqe->addr = (uintptr_t)(block->data + offset);
  sqe->len = (uint32_t)size;
}

/* Waits until what has said EAGAIN is ready: a descriptor that somebody has
** made non-blocking. */
struct event *stream_poll(lua_State *L, struct stream *s, struct ring *r,
                          unsigned lane, unsigned events)
{
  struct io_uring_sqe sqe;
  struct event *e = stream_event(L, r, IORING_OP_POLL_ADD, s->fd, &sqe);
  if (e == NULL)
    return NULL;
  s->polls = false;
  s->waits[lane] = WAIT_READY;
  sqe.poll32_events = events;
  return hand_over(r, e, &sqe);
}

/*
** Receiving
*/

/* The pool of the ring, NULL where there is none to be had. */
static struct pool *pool_of(struct core *core, struct ring *r)
{
  static const struct pool_options options = {
      .buffers = POOL_BUFFERS, .size = POOL_SIZE, .uncleared = true};
  struct pool *p = core->stream_pool;
  int err;
  if (p != NULL && p->open && p->ring == r)
    return p;
  if (core->no_stream_pool)
    return NULL;
  if (p != NULL)
    pool_dispose(p);
  p = core->stream_pool = pool_open(r, &options, &err);
  if (p != NULL)
    p->object = true; /* it stays until it is disposed of */
  else if (err != -ENOMEM)
    core->no_stream_pool = true;
  return p;
}

static struct pool *pool_for(struct stream *s, struct ring *r, size_t wants)
{
  struct pool *p;
  if (stream_is_file(s) || s->starved || s->chunk > POOL_SIZE ||
      wants > POOL_SIZE || input_size(&s->in) > 0)
    return NULL;
  p = pool_of(s->core, r);
  return p != NULL && p->provided > 0 ? p : NULL;
}

static uint8_t receiving(const struct stream *s)
{
  return s->kind == STREAM_SOCKET ? IORING_OP_RECV : IORING_OP_READ;
}

static struct event *receive_from_pool(lua_State *L, struct stream *s,
                                       struct ring *r, struct pool *pool)
{
  struct io_uring_sqe sqe;
  struct event *e = stream_event(L, r, receiving(s), s->fd, &sqe);
  if (e == NULL)
    return NULL;
  e->flags |= EVENT_SELECTS;
  e->again.pool = pool;
  e->again.group = pool->group;
  pool_join(pool);
  sqe.flags = IOSQE_BUFFER_SELECT;
  sqe.buf_group = pool->group;
  sqe.len = POOL_SIZE;
  s->waits[LANE_READ] = WAIT_RECEIVE;
  return hand_over_receive(s, r, e, &sqe);
}

/* Room for what is asked for: all that the call wants, or so much that it is
** worth while. */
static bool make_room(struct stream *s, const struct piece *piece, size_t size)
{
  size_t enough = piece->all && piece->wants > 0 ? piece->wants : size / 2;
  return input_room(&s->in) >= enough ||
         input_reserve(s->core, &s->in, size) ||
         input_reserve(s->core, &s->in, CHUNK_MIN);
}

static struct event *receive_own(lua_State *L, struct stream *s,
                                 struct ring *r, const struct piece *piece)
{
  struct io_uring_sqe sqe;
  struct event *e;
  size_t size = piece->wants > s->chunk ? piece->wants : s->chunk;
  if (size > WANTED_MAX)
    size = WANTED_MAX;
  if (!make_room(s, piece, size))
    return NULL;
  if (input_room(&s->in) < size)
    size = input_room(&s->in);
  e = stream_event(L, r, receiving(s), s->fd, &sqe);
  if (e == NULL)
    return NULL;
  lend(r, e, &sqe, s->in.block, s->in.last, size, true);
  s->waits[LANE_READ] = WAIT_RECEIVE;
  s->asked = (unsigned)size;
  return hand_over_receive(s, r, e, &sqe);
}

struct event *stream_receive(lua_State *L, struct stream *s, struct ring *r,
                             const struct piece *piece)
{
  struct pool *pool;
  if (stream_is_file(s) && output_size(&s->out) > 0)
    return stream_send(L, s, r, piece);
  if (s->polls)
    return stream_poll(L, s, r, LANE_READ, POLLIN);
  pool = pool_for(s, r, piece->wants);
  if (pool != NULL)
    return receive_from_pool(L, s, r, pool);
  return receive_own(L, s, r, piece);
}

struct event *stream_fill(lua_State *L, struct stream *s, struct ring *r,
                          const struct buffer *b)
{
  struct io_uring_sqe sqe;
  struct event *e;
  size_t size = b->size < WANTED_MAX ? b->size : WANTED_MAX;
  if (stream_is_file(s) && output_size(&s->out) > 0)
    return stream_send(L, s, r, NULL);
  if (s->polls)
    return stream_poll(L, s, r, LANE_READ, POLLIN);
  e = stream_event(L, r, receiving(s), s->fd, &sqe);
  if (e == NULL)
    return NULL;
  lend(r, e, &sqe, b->block, b->offset, size, true);
  s->waits[LANE_READ] = WAIT_FILL;
  return hand_over_receive(s, r, e, &sqe);
}

/*
** Sending
*/

/* What is left to be sent: a part of `out`, then the arguments from `index`
** on, the first of them from `skip` on. */
struct remains {
  int index, last;
  size_t skip;
};

static struct remains remains_of(lua_State *L, const struct stream *s)
{
  struct remains m = {2, s->last, 0};
  size_t sent = s->sent;
  if (s->last == 2) {
    m.skip = sent;
    return m;
  }
  for (; m.index <= m.last; m.index++) {
    size_t size = stream_argument(L, s, m.index, NULL);
    if (sent < size)
      break;
    sent -= size;
  }
  m.skip = sent;
  return m;
}

/* All that is left is in one piece. */
static struct event *send_one(lua_State *L, struct stream *s, struct ring *r,
                              const struct remains *m)
{
  struct io_uring_sqe sqe;
  const bool socket = s->kind == STREAM_SOCKET;
  const struct buffer *b;
  const char *text;
  size_t size;
  struct event *e = stream_event(
      L, r, socket ? IORING_OP_SEND : IORING_OP_WRITE, s->fd, &sqe);
  if (e == NULL)
    return NULL;
  if (socket)
    sqe.msg_flags = MSG_WAITALL; /* or it is sent by halves */
  if (output_size(&s->out) > 0) {
    lend(r, e, &sqe, s->out.block, s->out.first, output_size(&s->out), false);
    return hand_over(r, e, &sqe);
  }
  b = buffer_test(L, s->core, m->index);
  size = stream_argument(L, s, m->index, &text) - m->skip;
  if (size > WANTED_MAX)
    size = WANTED_MAX;
  if (b != NULL) {
    lend(r, e, &sqe, b->block, b->offset + m->skip, size, false);
    return hand_over(r, e, &sqe);
  }
  sqe.addr = (uintptr_t)(text + m->skip);
  sqe.len = (uint32_t)size;
  e->flags |= EVENT_LENDS;
  e->string_bytes = (uint32_t)size;
  r->stats.bytes_lent += size;
  lua_pushvalue(L, m->index);
  event_anchor(L, e);
  return hand_over(r, e, &sqe);
}

static void add_vector(struct aux *aux, const void *at, size_t size)
{
  aux->iov[aux->nvec].iov_base = (void *)(uintptr_t)at;
  aux->iov[aux->nvec++].iov_len = size;
}

static void add_loan(struct ring *r, struct event *e, struct block *block,
                     size_t offset, size_t size)
{
  loan_open(&e->aux->loans[e->aux->nvec], block, offset, size, false, e);
  r->stats.bytes_lent += size;
  add_vector(e->aux, block->data + offset, size);
}

/* The arguments, of which the strings are kept by what is anchored. */
static void add_arguments(lua_State *L, struct stream *s, struct ring *r,
                          struct event *e, struct remains m, unsigned most)
{
  for (; m.index <= m.last && e->aux->nvec < most; m.index++, m.skip = 0) {
    const struct buffer *b = buffer_test(L, s->core, m.index);
    const char *text;
    size_t size = stream_argument(L, s, m.index, &text) - m.skip;
    if (size == 0)
      continue;
    if (b != NULL) {
      add_loan(r, e, b->block, b->offset + m.skip, size);
    } else {
      add_vector(e->aux, text + m.skip, size);
      event_add_string(e, size);
    }
  }
  r->stats.bytes_lent += e->string_bytes;
}

static struct event *send_many(lua_State *L, struct stream *s, struct ring *r,
                               const struct remains *m)
{
  struct io_uring_sqe sqe;
  const bool socket = s->kind == STREAM_SOCKET;
  unsigned n = (unsigned)(m->last - m->index + 2);
  struct event *e;
  n = n < VECTOR_MAX ? n : VECTOR_MAX;
  e = stream_event(L, r, socket ? IORING_OP_SENDMSG : IORING_OP_WRITEV, s->fd,
                   &sqe);
  if (e == NULL)
    return NULL;
  e->aux = aux_new(s->core, n);
  if (e->aux == NULL) {
    event_free(r, e);
    return NULL;
  }
  e->flags |= EVENT_LENDS;
  e->aux->nvec = 0;
  e->string_bytes = 0;
  if (output_size(&s->out) > 0)
    add_loan(r, e, s->out.block, s->out.first, output_size(&s->out));
  add_arguments(L, s, r, e, *m, n);
  lua_pushvalue(L, s->top[LANE_WRITE]); /* the table, or the one string */
  event_anchor(L, e);
  if (socket) {
    e->aux->msg.msg_iov = e->aux->iov;
    e->aux->msg.msg_iovlen = e->aux->nvec;
    sqe.addr = (uintptr_t)&e->aux->msg;
    sqe.len = 1;
    sqe.msg_flags = MSG_WAITALL;
  } else {
    sqe.addr = (uintptr_t)e->aux->iov;
    sqe.len = e->aux->nvec;
  }
  return hand_over(r, e, &sqe);
}

struct event *stream_send(lua_State *L, struct stream *s, struct ring *r,
                          const struct piece *piece)
{
  unsigned lane = stream_is_file(s) ? LANE_READ : LANE_WRITE;
  size_t left = s->total - s->sent;
  struct event *e;
  (void)piece;
  if (s->polls)
    return stream_poll(L, s, r, lane, POLLOUT);
  if (left == 0) { /* only what is in `out` */
    e = send_one(L, s, r, NULL);
  } else {
    struct remains m = remains_of(L, s);
    bool one = output_size(&s->out) == 0 && m.index == m.last;
    e = one ? send_one(L, s, r, &m) : send_many(L, s, r, &m);
  }
  if (e == NULL)
    return NULL;
  if (s->regular)
    s->asked = (size_t)lseek(s->fd, 0, SEEK_CUR);
  s->waits[lane] = WAIT_SEND;
  return e;
}

/*
** What came of them
*/

static void adapt(struct stream *s, size_t asked, size_t got)
{
  if (got == asked && s->chunk < CHUNK_MAX)
    s->chunk *= 2;
  else if (got < s->chunk / 4 && s->chunk > CHUNK_MIN)
    s->chunk /= 2;
}

static int received(struct stream *s, struct outcome *o)
{
  size_t n = (size_t)o->res;
  bool pooled = o->data.block != NULL;
  s->starved = false;
  if (n == 0) {
    data_drop(&o->data);
    s->in.ended = true;
    return 0;
  }
  adapt(s, pooled ? POOL_SIZE : s->asked, n);
  if (pooled) {
    WRITTEN(o->data.block->data + o->data.offset, n);
    /* nothing was in hand, so this needs no memory */
    return input_adopt(s->core, &s->in, &o->data) ? 0 : -ENOMEM;
  }
  WRITTEN(s->in.block->data + s->in.last, n);
  s->in.last += n;
  return 0;
}

/* A write at the position of a file that comes short, because the disk is
** full, say, does not move that position (Linux 6.18): the rest would be
** written over what is there. */
static void stand_behind(const struct stream *s, size_t n)
{
  if (s->appends)
    (void)lseek(s->fd, 0, SEEK_END);
  else
    (void)lseek(s->fd, (off_t)(s->asked + n), SEEK_SET);
}

static int sent(struct stream *s, size_t n)
{
  size_t before = output_size(&s->out);
  size_t mine = n < before ? n : before;
  s->out.first += (unsigned)mine;
  s->sent += n - mine;
  if (s->regular && n > 0 && (mine < before || s->sent < s->total))
    stand_behind(s, n);
  if (mine == before && stream_is_file(s) && s->buffering != BUFFER_NOTHING)
    s->out.first = s->out.last = 0;
  else if (mine == before)
    output_drop(&s->out);
  return n > 0 ? 0 : -EIO; /* of some bytes none is written: never */
}

int stream_settle(struct stream *s, unsigned lane, struct outcome *o)
{
  uint8_t what = s->waits[lane];
  int err = o->res;
  s->waits[lane] = WAIT_NOTHING;
  o->state = OUTCOME_DELIVERED;
  if (o->aux != NULL) {
    aux_free(s->core, o->aux);
    o->aux = NULL;
  }
  if (err == -ENOBUFS && what == WAIT_RECEIVE && !s->starved) {
    s->starved = true; /* once more, without the pool */
    return 0;
  }
  if (err == -EAGAIN) {
    s->polls = true;
    return 0;
  }
  if (err < 0) {
    data_drop(&o->data);
    return err;
  }
  switch (what) {
  case WAIT_RECEIVE:
    return received(s, o);
  case WAIT_FILL:
    s->filled = o->res;
    return 0;
  case WAIT_SEND:
    return sent(s, (size_t)o->res);
  default:
    return 0;
  }
}
