/* How a request becomes an operation in flight. */
#include "op.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "args.h"
#include "multishot.h"
#include "near.h"
#include "operation.h"
#include "pool.h"
#include "provided.h"
#include "registered.h"

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
  q->sqe.flags = row->sqe_flags;
  q->sqe.off = row->command;
  if (row->yields_fd)
    q->event_flags |= EVENT_YIELDS_FD;
  if (row->zero_copy)
    q->event_flags |= EVENT_ZERO_COPY;
  if (row->result == RESULT_STATX)
    q->aux = AUX_STATX;
  if (row_provides(row))
    q->aux = AUX_PROVIDED;
  if (row->room != 0) {
    q->aux = AUX_EXTRA;
    q->extra_at = row->room;
    q->extra_size = 0;
  }
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
    size_t size = q->aux == AUX_WORDS ? 0 : b->size;
    *conflict = loan_conflict(b->block, b->offset, size, q->writes);
    if (*conflict == NULL) {
      loan_open(loan, b->block, b->offset, size, q->writes, e);
      r->stats.bytes_lent += size;
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

/* The index of the registered buffer that all of the vector is in, -1: there
** is none.  It holds the members if it holds what lies between them. */
static int registered_vector(lua_State *L, const struct ring *r,
                             const struct request *q)
{
  const struct buffer *first = NULL, *b;
  size_t from = 0, to = 0;
  for (unsigned i = 0; i < q->nvec; i++) {
    lua_rawgeti(L, q->vector, i + 1);
    b = buffer_test(L, r->core, -1);
    lua_pop(L, 1);
    if (b == NULL || (first != NULL && b->block != first->block))
      return -1;
    if (first == NULL || b->offset < from)
      from = b->offset;
    if (b->offset + b->size > to)
      to = b->offset + b->size;
    first = first ? first : b;
  }
  return first ? registered_index(r, first->block, from, to - from,
                                  first->registered)
               : -1;
}

/* The index of the registered buffer that the data is in, -1: in none. */
static int registered_buffer(lua_State *L, const struct ring *r,
                             const struct request *q)
{
  const struct buffer *b = q->buffer;
  if (q->aux == AUX_VECTOR)
    return registered_vector(L, r, q);
  return b ? registered_index(r, b->block, b->offset, q->size, b->registered)
           : -1;
}

static bool name_registered(lua_State *L, const struct ring *r,
                            struct request *q)
{
  int index = registered_buffer(L, r, q);
  q->sqe.buf_index = (uint16_t)index;
  return index >= 0;
}

/* Does it name a file by its slot, or put one there?  System calls do not know
** them. */
static bool uses_slots(const struct request *q)
{
  return q->sqe.flags & IOSQE_FIXED_FILE || q->event_flags & EVENT_DIRECT;
}

/* Must it be done without the kernel's opcode?  A row may ask of an opcode
** what only newer kernels do. */
static bool is_lacking(const struct ring *r, const struct request *q)
{
  return (q->by_call && !uses_slots(q)) || !ring_supports(r, q->sqe.opcode) ||
         (q->row->came_with && !ring_supports(r, q->row->came_with));
}

/* Why the request cannot be carried out on this ring; NULL: it can.  Asked
** this late because between the check of the arguments and here the collector
** may have run, and with it a finaliser that closes what was open then.  From
** here to the SQE nothing allocates through Lua any more. */
static const char *refusal(lua_State *L, const struct ring *r,
                           struct request *q)
{
  if (r->state != RING_OPEN)
    return "attempt to use a closed ring";
  if (q->target != NULL && q->target->event != NULL && q->target->ring != r)
    return "the operation belongs to another ring";
  if (q->buffer != NULL && q->buffer->block == NULL)
    return "attempt to use a closed buffer";
  if (q->pool != NULL && !q->pool->open)
    return "attempt to use a closed pool";
  if (q->pool != NULL && q->pool->ring != r)
    return "the pool belongs to another ring";
  if ((q->sqe.flags & SQE_LINKS || r->linking) && is_lacking(r, q))
    return "an operation that this kernel lacks cannot be linked";
  if (r->linking && (q->event_flags & EVENT_BUNDLE ||
                     (q->pool != NULL && q->pool->incremental)))
    return "a bundle, or an incremental pool, is only for the first of a "
           "linked group";
  if (q->row->registered && !name_registered(L, r, q))
    return "the data is in no buffer that is registered with this ring";
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
    if (q->control_room > 0)
      m->msg_controllen = q->control_room;
  } else if (q->addr_len > 0) {
    memcpy(&aux->addr, &q->addr, q->addr_len);
    m->msg_name = &aux->addr;
    m->msg_namelen = q->addr_len;
  }
}

static void attach_extra(struct aux *aux, const struct request *q,
                         struct io_uring_sqe *sqe)
{
  union extra *extra = aux_extra(aux);
  const uint64_t address = (uintptr_t)extra;
  memcpy(extra, &q->extra, q->extra_size);
  memcpy((char *)sqe + q->extra_at, &address, sizeof address);
}

static void attach_raw(struct aux *aux, struct io_uring_sqe *sqe)
{
  if (aux->iov[0].iov_base != NULL)
    sqe->addr = (uintptr_t)aux->iov[0].iov_base;
  if (aux->iov[1].iov_base != NULL)
    sqe->addr2 = (uintptr_t)aux->iov[1].iov_base;
  if (aux->iov[2].iov_base != NULL)
    sqe->addr3 = (uintptr_t)aux->iov[2].iov_base;
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
  case AUX_NEW_TIME:
    aux->time = q->time;
    sqe->addr2 = (uintptr_t)&aux->time;
    break;
  case AUX_EXTRA:
    attach_extra(aux, q, sqe);
    break;
  case AUX_PROVIDED:
    aux_extra(aux)->provided.group = q->sqe.buf_group;
    break;
  case AUX_WORDS:
    break; /* they are where they are */
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

/* The kernel does not know those that rest: what is asked of one of them is
** done here.  A descriptor that is closed takes along those that would go on
** with whoever gets its number. */
static bool reaches_resting(struct ring *r, const struct request *q)
{
  struct event *target = q->target != NULL ? q->target->event : NULL;
  bool cancels = q->row->opcode == IORING_OP_ASYNC_CANCEL;
  if (target != NULL && target->flags & EVENT_RESTING) {
    if (q->aux != AUX_NEW_TIME && !(q->sqe.len & IORING_POLL_UPDATE_EVENTS))
      ring_cancel(r, target);
    return true;
  }
  if (q->row->opcode == IORING_OP_CLOSE && q->sqe.file_index == 0)
    again_cancel_fd(r, q->sqe.fd, false);
  if (cancels && q->sqe.cancel_flags & IORING_ASYNC_CANCEL_ANY)
    return again_cancel_fd(r, -1, false) &&
           !(q->sqe.cancel_flags & IORING_ASYNC_CANCEL_ALL);
  if (cancels && q->sqe.cancel_flags & IORING_ASYNC_CANCEL_FD)
    return again_cancel_fd(r, q->sqe.fd,
                           q->sqe.cancel_flags &
                               IORING_ASYNC_CANCEL_FD_FIXED) &&
           !(q->sqe.cancel_flags & IORING_ASYNC_CANCEL_ALL);
  return false;
}

/* The result is known; a NOP carries it. */
static void answer(struct event *e, int32_t res, struct io_uring_sqe *sqe)
{
  uint8_t links = sqe->flags & SQE_LINKS;
  e->res = res;
  e->flags |= EVENT_RESULT;
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = IORING_OP_NOP;
  sqe->flags = links; /* whoever comes next is linked to it all the same */
}

/* An opcode that this kernel lacks: done by a system call, or not at all;
** either way a NOP carries the result, so it comes like any other. */
static void make_up(struct event *e, const struct request *q,
                    struct io_uring_sqe *sqe)
{
  const struct row *row = q->row;
  answer(e,
         row->by_system_call && !uses_slots(q) ? row->by_system_call(q)
                                               : -ENOSYS,
         sqe);
}

static int no_memory(lua_State *L)
{
  return luaL_error(L, "not enough memory");
}

static bool make_provision(struct ring *r, struct event *e,
                           const struct request *q)
{
  if (q->row->result != RESULT_PROVIDED)
    return true;
  aux_extra(e->aux)->provided.of = provision_new(r->core, q);
  return aux_extra(e->aux)->provided.of != NULL;
}

/* Room for a deadline. */
static bool make_time(struct ring *r, struct event *e)
{
  return timer_reserve(r->core) && event_reserve_more(r->core, e);
}

/* May the kernel end the operation where it is not done?  What is given by
** the fields of its SQE is taken as it is. */
static bool goes_on(const struct request *q)
{
  return q->aux != AUX_RAW && (q->event_flags & EVENT_SELECTS || q->multishot);
}

/* A slot with its aux, and room for the SQE; nothing lent yet. */
static struct event *new_event(lua_State *L, struct ring *r, struct request *q)
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
  if ((q->aux != AUX_NONE && e->aux == NULL) || !ring_reserve(r) ||
      (q->timed && !make_time(r, e)) ||
      (goes_on(q) && !event_reserve_again(r, e)) || !make_provision(r, e, q)) {
    event_free(r, e);
    no_memory(L);
  }
  e->row = q->row;
  e->fd = q->sqe.fd;
  e->flags |= q->event_flags & ~EVENT_SELECTS; /* not yet */
  if (q->event_flags & EVENT_DIRECT)
    e->place = q->place;
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
    event_give_back(r, e);
    if (q->row->result == RESULT_PROVIDED)
      provision_free(aux_extra(e->aux)->provided.of);
    event_free(r, e);
    loan_error(L, name, fd);
  }
  if (q->keep != 0) {
    e->string_bytes = 0;
    event_add_string(e, q->string_bytes);
    r->stats.bytes_lent += e->string_bytes;
    lua_pushvalue(L, q->keep);
    event_anchor(L, e);
  }
}

/* What is changed of an operation is changed of the SQE that it may be queued
** again with. */
static void update_again(struct event *target, const struct request *q)
{
  if (!(target->flags & EVENT_AGAIN))
    return;
  if (q->row->opcode == IORING_OP_POLL_REMOVE &&
      q->sqe.len & IORING_POLL_UPDATE_EVENTS)
    target->again.sqe->poll32_events = q->sqe.poll32_events;
  if (q->aux == AUX_NEW_TIME && target->aux != NULL)
    target->aux->time = q->time;
}

/* Tells the event whose buffers it takes. */
static void select_buffers(struct ring *r, struct event *e,
                           const struct request *q)
{
  struct pool *pool = q->pool;
  if (pool == NULL)
    pool = pool_of_group(r, q->sqe.buf_group);
  e->flags |= EVENT_SELECTS;
  e->again.pool = pool;
  e->again.group = q->sqe.buf_group;
  if (pool != NULL)
    pool_join(pool);
}

/* What this kernel does not know as multishot is done one by one; what it
** does not know as a bundle, buffer by buffer. */
static void come_down(const struct ring *r, struct event *e, bool multishot,
                      struct io_uring_sqe *sqe)
{
  if (e->flags & EVENT_BUNDLE && r->lacks_bundles)
    sqe->ioprio &= (uint16_t)~URING_RECVSEND_BUNDLE;
  if (!multishot)
    return;
  if (!ring_supports(r, sqe->opcode) || again_lacks_multishot(r, e))
    if (multishot_can_be_single(sqe))
      again_make_single(e, sqe);
  if (r->multishot_spoilt & multishot_bit(sqe->opcode) &&
      !(e->flags & EVENT_SINGLE))
    multishot_spoil(sqe);
}

static void prepare_to_go_on(struct ring *r, struct event *e,
                             struct request *q)
{
  if (q->sqe.flags & SQE_LINKS)
    e->flags |= EVENT_LINKED;
  e->again.counted = q->row->opcode == IORING_OP_TIMEOUT && q->sqe.off > 0;
  e->again.left = (uint32_t)q->sqe.off;
  come_down(r, e, q->multishot, &q->sqe);
  *e->again.sqe = q->sqe;
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
  if (q->event_flags & EVENT_SELECTS)
    select_buffers(r, e, q);
  if (q->target != NULL && q->target->event != NULL)
    update_again(q->target->event, q);
  if (goes_on(q))
    prepare_to_go_on(r, e, q);
  if (is_lacking(r, q))
    make_up(e, q, sqe);
  else if (r->resting > 0 && reaches_resting(r, q))
    answer(e, 0, sqe);
  sqe->user_data = event_user_data(e);
  if (q->behind)
    ring_queue_behind(r, e, sqe);
  else
    ring_queue(r, e, sqe);
  if (q->timed)
    ring_limit(r, e, q->deadline_ns);
  return e;
}
