/* The ring.  See ring.h for what it promises.
**
** What keeps it sound, in the order in which an operation meets it:
**  - an SQE is written and the tail kept back; until `publish` the event can
**    still be withdrawn, and a withdrawn SQE becomes a NOP in its place;
**  - once published it is in flight, whatever enter says afterwards
**    (DESIGN 4.7);
**  - only its own CQE without F_MORE ends it (4.5), never a cancel's;
**  - reaping moves outcomes and marks who is ready; it runs nobody (4.11).
*/
#include "ring.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "op.h"
#include "operation.h"
#include "task.h"
#include "timer.h"

/* Does the ring belong to the process that this one was forked from? */
static bool foreign(const struct ring *r)
{
  return r->epoch != *r->core->epoch;
}

/* How long a cancel request that came to nothing is left alone. */
#define RETRY_NS 10000000u

#define LINKS (IOSQE_IO_LINK | IOSQE_IO_HARDLINK)

/*
** The submission queue
*/

/* The next free SQE, NULL when the SQ is full. */
static struct io_uring_sqe *next_sqe(struct ring *r)
{
  struct io_uring_sq *sq = &r->io.sq;
  unsigned head = io_uring_smp_load_acquire(sq->khead);
  if (sq->sqe_tail - head >= sq->ring_entries)
    return NULL;
  r->queued++;
  return &sq->sqes[sq->sqe_tail++ & sq->ring_mask];
}

/* The SQE of an event that is in the SQ and not published. */
static struct io_uring_sqe *unpublished_sqe(struct ring *r,
                                            const struct event *e)
{
  struct io_uring_sq *sq = &r->io.sq;
  unsigned back = (unsigned)(r->queued - e->order);
  return &sq->sqes[(sq->sqe_tail - back) & sq->ring_mask];
}

/* Shows the kernel what is queued.  Returns how many SQEs it has not taken;
** those of an earlier enter that failed are among them. */
static unsigned publish(struct ring *r)
{
  struct io_uring_sq *sq = &r->io.sq;
  if (sq->sqe_head != sq->sqe_tail) {
    sq->sqe_head = sq->sqe_tail;
    io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
    r->published = r->queued;
    r->in_flight += r->unpublished;
    r->unpublished = 0;
  }
  return sq->sqe_tail - io_uring_smp_load_acquire(sq->khead);
}

static void put_into_sq(struct ring *r, struct event *e,
                        struct io_uring_sqe *slot,
                        const struct io_uring_sqe *sqe)
{
  *slot = *sqe; /* whole: no field of an older SQE survives */
  e->order = r->queued - 1;
  r->unpublished++;
}

/*
** The backlog.
**
** A drained operation starts when all before it have ended, and those behind
** it when it has.  The kernel's own IOSQE_IO_DRAIN would hold back cancel
** requests, too, so that what it waits for could not be cancelled any more;
** so the waiting is done here, in the backlog, and the flag is never set.
*/

static void put_into_backlog(struct ring *r, struct event *e,
                             const struct io_uring_sqe *sqe)
{
  struct backlog *b = &r->backlog;
  b->sqes[(b->head + b->count++) & (b->size - 1)] = *sqe;
  e->flags |= EVENT_BACKLOG;
}

bool ring_grow_backlog(struct ring *r)
{
  struct backlog *b = &r->backlog;
  unsigned size = b->size ? b->size * 2 : 64;
  struct io_uring_sqe *sqes = mem_alloc(r->core, size * sizeof *sqes);
  if (sqes == NULL)
    return false;
  for (unsigned i = 0; i < b->count; i++)
    sqes[i] = b->sqes[(b->head + i) & (b->size - 1)];
  mem_free(r->core, b->sqes, b->size * sizeof *b->sqes);
  b->sqes = sqes;
  b->size = size;
  b->head = 0;
  return true;
}

void ring_queue(struct ring *r, struct event *e,
                const struct io_uring_sqe *sqe)
{
  struct io_uring_sqe *slot = NULL;
  bool links = (sqe->flags & LINKS) != 0;
  if (r->backlog.count == 0 && !r->draining && !(e->flags & EVENT_DRAIN) &&
      !links)
    slot = next_sqe(r);
  r->linking = links;
  if (slot != NULL)
    put_into_sq(r, e, slot, sqe);
  else
    put_into_backlog(r, e, sqe);
  r->stats.prepared++;
}

static void link_cancel(struct ring *r, struct event *e)
{
  e->flags |= EVENT_CANCEL_DUE;
  e->next = NULL;
  e->prev = r->cancels_end;
  if (r->cancels_end != NULL)
    r->cancels_end->next = e;
  else
    r->cancels = e;
  r->cancels_end = e;
}

/*
** Links.
**
** The kernel links what it takes in one submission, so a group has to be in
** the SQ as a whole when that is published.  Groups therefore gather in the
** backlog, and go into the SQ when their last member is there and all have
** room.
*/

static struct io_uring_sqe *backlog_at(const struct backlog *b, unsigned i)
{
  return &b->sqes[(b->head + i) & (b->size - 1)];
}

/* Members of the group that begins at place `i` of the backlog, the last of
** which is linked to nothing; 0: that one is still to come. */
static unsigned group_size(const struct backlog *b, unsigned i)
{
  for (unsigned n = 1; i + n <= b->count; n++)
    if (!(backlog_at(b, i + n - 1)->flags & LINKS))
      return n;
  return 0;
}

bool ring_group_is_full(const struct ring *r)
{
  const struct backlog *b = &r->backlog;
  unsigned n = 0;
  while (n < b->count && backlog_at(b, b->count - 1 - n)->flags & LINKS)
    n++;
  return n + 1 >= r->io.sq.ring_entries;
}

/* Takes the newest SQE that is not published out of the SQ again, to the head
** of the backlog, where there is room for it. */
static void unqueue(struct ring *r)
{
  struct io_uring_sq *sq = &r->io.sq;
  struct backlog *b = &r->backlog;
  const struct io_uring_sqe *sqe = &sq->sqes[--sq->sqe_tail & sq->ring_mask];
  struct event *e;
  r->queued--;
  if (sqe->user_data & USER_DATA_CANCEL) { /* a cancel request: due again */
    e = event_find(&r->events, sqe->addr);
    r->requests--;
    if (e != NULL)
      link_cancel(r, e);
    return;
  }
  e = event_find(&r->events, sqe->user_data);
  b->head = (b->head - 1) & (b->size - 1);
  b->sqes[b->head] = *sqe;
  b->count++;
  e->flags |= EVENT_BACKLOG;
  if (e->flags & EVENT_DRAIN)
    r->draining = false;
  r->unpublished--;
}

/* Where in the backlog the event's SQE is; the event is there. */
static unsigned backlog_find(const struct backlog *b, const struct event *e)
{
  unsigned i = 0;
  while (backlog_at(b, i)->user_data != event_user_data(e))
    i++;
  return i;
}

const char *ring_link(struct ring *r, struct event *const events[],
                      unsigned count, bool hard)
{
  struct backlog *b = &r->backlog;
  unsigned first;
  for (unsigned i = 0; i < count; i++)
    if (ring_published(r, events[i]) || events[i]->flags & EVENT_WITHDRAWN)
      return "an operation to be linked has been submitted or cancelled";
  if (count > r->io.sq.ring_entries)
    return "more operations to be linked than the ring has entries";
  while (b->size - b->count < r->io.sq.ring_entries)
    if (!ring_grow_backlog(r))
      return "not enough memory";
  while (!(events[0]->flags & EVENT_BACKLOG))
    unqueue(r);
  first = backlog_find(b, events[0]);
  for (unsigned i = 1; i < count; i++)
    if (first + i >= b->count ||
        backlog_at(b, first + i)->user_data != event_user_data(events[i]))
      return "operations to be linked must be prepared one after the other";
  for (unsigned i = 0; i + 1 < count; i++)
    backlog_at(b, first + i)->flags |=
        hard ? IOSQE_IO_HARDLINK : IOSQE_IO_LINK;
  return NULL;
}

/*
** Cancelling
**
** 1. A cancel request is an SQE of its own.  It names slot and generation,
**    so it finds this operation or none.
** 2. It changes nothing here: the operation ends with its own CQE, as
**    cancelled, or with its result if that was faster (success wins).
** 3. Its own completion is 0, or -ENOENT: it was too late, or -EALREADY: the
**    operation is being executed.  It tells nothing that 2 does not; only
**    where the operation goes on for all that it is asked again.
** 4. An event that the kernel has not seen needs none: it is withdrawn, and
**    with it those that are linked to it.
*/

static void unlink_cancel(struct ring *r, struct event *e)
{
  if (!(e->flags & EVENT_CANCEL_DUE))
    return;
  e->flags &= (uint16_t)~EVENT_CANCEL_DUE;
  if (e->prev != NULL)
    e->prev->next = e->next;
  else
    r->cancels = e->next;
  if (e->next != NULL)
    e->next->prev = e->prev;
  else
    r->cancels_end = e->prev;
}

/* Its SQE becomes a NOP, and those of the group behind it do, too. */
static void withdraw_from_sq(struct ring *r, struct event *e)
{
  struct io_uring_sqe *sqe = unpublished_sqe(r, e);
  uint8_t links = sqe->flags & LINKS;
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = IORING_OP_NOP;
  sqe->flags = links;
  sqe->user_data = event_user_data(e);
  if (links) { /* the next of the group is the next in the SQ */
    unsigned back = (unsigned)(r->queued - e->order);
    unsigned next = r->io.sq.sqe_tail - back + 1;
    sqe = &r->io.sq.sqes[next & r->io.sq.ring_mask];
    ring_cancel(r, event_find(&r->events, sqe->user_data));
  }
}

static void withdraw(struct ring *r, struct event *e)
{
  e->flags |= EVENT_WITHDRAWN;
  if (e->flags & EVENT_BACKLOG)
    r->withdrawn++;
  else
    withdraw_from_sq(r, e);
}

void ring_cancel(struct ring *r, struct event *e)
{
  if (e->flags & EVENT_CANCELLING || foreign(r))
    return;
  e->flags |= EVENT_CANCELLING;
  r->stats.cancelled++;
  if (ring_published(r, e))
    link_cancel(r, e);
  else
    withdraw(r, e);
}

void ring_orphan(struct ring *r, struct event *e)
{
  e->task = NULL;
  e->op = NULL;
  r->stats.orphaned++;
  ring_cancel(r, e);
}

static void cancel_sqe(struct io_uring_sqe *sqe, const struct event *e)
{
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = IORING_OP_ASYNC_CANCEL;
  sqe->fd = -1;
  sqe->addr = event_user_data(e);
  sqe->user_data = event_user_data(e) | USER_DATA_CANCEL;
}

/* A cancel request that did not find its target, or found it being executed,
** where the target goes on all the same: between two firings of a timer, say,
** or between a wake-up that brought nothing and the next wait.  It is asked
** again after a moment. */
static void cancel_ended(struct ring *r, uint64_t user_data, int32_t res)
{
  struct event *e = event_find(&r->events, user_data & ~USER_DATA_CANCEL);
  r->requests--;
  if (e == NULL || res >= 0 || e->flags & (EVENT_CANCEL_DUE | EVENT_RETRY))
    return;
  e->flags |= EVENT_RETRY;
  if (r->retries++ == 0)
    r->retry_at = now_ns() + RETRY_NS;
}

static void retry(struct event *e, void *arg)
{
  struct ring *r = arg;
  if (!(e->flags & EVENT_RETRY))
    return;
  e->flags &= (uint16_t)~EVENT_RETRY;
  r->retries--;
  link_cancel(r, e);
}

/* Makes the cancel requests that are to be repeated due, when it is time.
** Returns the deadline of the step. */
static uint64_t retry_cancels(struct ring *r, uint64_t deadline_ns)
{
  if (r->retries == 0)
    return deadline_ns;
  if (now_ns() >= r->retry_at)
    event_each(&r->events, retry, r);
  return r->retries > 0 && r->retry_at < deadline_ns ? r->retry_at
                                                     : deadline_ns;
}

/*
** Completing
*/

/* Moves what the event came to out of it. */
static void settle(struct core *core, struct outcome *o, struct event *e,
                   int32_t res, uint32_t flags)
{
  if (o->aux != NULL || o->state == OUTCOME_READY)
    outcome_drop(core, o); /* of an await that ended for lack of memory */
  o->row = e->row;
  o->aux = e->aux;
  o->res = res;
  o->flags = flags;
  o->state = OUTCOME_READY;
  o->wants_peer = (e->flags & EVENT_PEER) != 0;
  o->yields_fd = event_yields_fd(e);
  e->aux = NULL;
}

/* The result that the program gets to see. */
static int32_t result_of(const struct event *e, int32_t res)
{
  if (e->flags & EVENT_RESULT)
    return e->res;
  if (e->flags & EVENT_WITHDRAWN)
    return -ECANCELED;
  /* -512 and on are the kernel's own ERESTART codes: a worker was
  ** interrupted, as it is by a cancel request */
  if (res == -EINTR || (res <= -512 && res >= -516))
    return e->flags & EVENT_CANCELLING ? -ECANCELED : -EINTR;
  return res;
}

/* The event is terminal: gives back what it lent, moves its outcome to
** whoever waits, frees the slot. */
static void finish(lua_State *L, struct ring *r, struct event *e, int32_t res,
                   uint32_t flags)
{
  struct core *core = r->core;
  unlink_cancel(r, e);
  if (e->flags & EVENT_RETRY)
    r->retries--;
  if (e->flags & EVENT_DRAIN && !(e->flags & EVENT_BACKLOG))
    r->draining = false;
  res = result_of(e, res);
  event_give_back(L, r, e);
  r->stats.completed++;
  if (e->task != NULL) {
    settle(core, &e->task->outcome, e, res, flags);
    task_complete(e->task);
  } else if (e->op != NULL) {
    settle(core, &e->op->outcome, e, res, flags);
    operation_complete(e->op);
  } else {
    outcome_close_fd(event_yields_fd(e), res);
  }
  event_free(r, e);
}

/* A CQE that is not the last.  A multishot handle takes it as one result of
** many; otherwise it is the result, and the last CQE only gives back. */
static void progress(struct ring *r, struct event *e, int32_t res,
                     uint32_t flags)
{
  if (e->op != NULL && operation_is_multishot(e->op)) {
    if (!operation_deliver(e->op, res, flags)) {
      outcome_close_fd(event_yields_fd(e), res); /* no room to keep it */
      ring_cancel(r, e);
    }
  } else if (e->flags & EVENT_RESULT || (!e->task && !e->op)) {
    outcome_close_fd(event_yields_fd(e), res);
  } else {
    e->res = res;
    e->flags |= EVENT_RESULT;
  }
}

/* Is this a cancel request's?  Its target may be gone, but not the slot. */
static bool is_cancel(const struct ring *r, uint64_t user_data)
{
  uint32_t slot = (uint32_t)(user_data & ~USER_DATA_CANCEL);
  return r->requests > 0 && (user_data & USER_DATA_CANCEL) != 0 &&
         slot / EVENT_CHUNK < r->events.nchunks;
}

static void complete(lua_State *L, struct ring *r,
                     const struct io_uring_cqe *cqe)
{
  struct event *e = event_find(&r->events, cqe->user_data);
  if (e == NULL && is_cancel(r, cqe->user_data)) {
    cancel_ended(r, cqe->user_data, cqe->res);
  } else if (e == NULL) {
    r->stats.unknown++;
  } else if (cqe->flags & IORING_CQE_F_MORE) {
    progress(r, e, cqe->res, cqe->flags);
  } else {
    r->in_flight--;
    finish(L, r, e, cqe->res, cqe->flags);
  }
}

static void reap(lua_State *L, struct ring *r)
{
  struct io_uring_cq *cq = &r->io.cq;
  unsigned head = *cq->khead;
  unsigned tail = io_uring_smp_load_acquire(cq->ktail);
  for (; head != tail; head++)
    complete(L, r, &cq->cqes[head & cq->ring_mask]);
  io_uring_smp_store_release(cq->khead, head);
}

/*
** Steps
*/

/* Cancel requests first, since what they aim at is older than anything in
** the backlog. */
static bool refill_cancels(struct ring *r)
{
  while (r->cancels != NULL) {
    struct io_uring_sqe *sqe = next_sqe(r);
    if (sqe == NULL)
      return false;
    cancel_sqe(sqe, r->cancels);
    r->requests++;
    unlink_cancel(r, r->cancels);
  }
  return true;
}

/* Does a drained operation keep this one from starting? */
static bool held_back(const struct ring *r, const struct event *e)
{
  return r->draining ||
         (e->flags & EVENT_DRAIN && (r->in_flight > 0 || r->unpublished > 0));
}

/* Takes those that were withdrawn out of the backlog, wherever they stand,
** and those that are linked to them. */
static void sweep_withdrawn(lua_State *L, struct ring *r)
{
  struct backlog *b = &r->backlog;
  unsigned kept = 0;
  bool drags = false; /* is the next one linked to one that is taken out? */
  for (unsigned i = 0; i < b->count; i++) {
    const struct io_uring_sqe *sqe = backlog_at(b, i);
    struct event *e = event_find(&r->events, sqe->user_data);
    if (drags)
      e->flags |= EVENT_WITHDRAWN;
    if (e->flags & EVENT_WITHDRAWN) {
      drags = (sqe->flags & LINKS) != 0;
      if (kept > 0) /* whatever was linked to it ends its group */
        backlog_at(b, kept - 1)->flags &= (uint8_t)~LINKS;
      finish(L, r, e, -ECANCELED, 0);
    } else {
      *backlog_at(b, kept++) = *sqe;
    }
  }
  b->count = kept;
  r->withdrawn = 0;
  r->linking = kept > 0 && backlog_at(b, kept - 1)->flags & LINKS;
}

static unsigned sq_room(const struct ring *r)
{
  const struct io_uring_sq *sq = &r->io.sq;
  return sq->ring_entries -
         (sq->sqe_tail - io_uring_smp_load_acquire(sq->khead));
}

/* The head of the backlog goes into the SQ, where there is room. */
static void advance_backlog(struct ring *r)
{
  struct backlog *b = &r->backlog;
  const struct io_uring_sqe *sqe = backlog_at(b, 0);
  struct event *e = event_find(&r->events, sqe->user_data);
  r->draining = (e->flags & EVENT_DRAIN) != 0;
  b->head = (b->head + 1) & (b->size - 1);
  b->count--;
  e->flags &= (uint16_t)~EVENT_BACKLOG;
  put_into_sq(r, e, next_sqe(r), sqe);
}

/* False: some must wait for the SQ to be handed over. */
static bool refill_backlog(struct ring *r)
{
  struct backlog *b = &r->backlog;
  while (b->count > 0) {
    unsigned n = group_size(b, 0);
    if (n == 0 ||
        held_back(r, event_find(&r->events, backlog_at(b, 0)->user_data)))
      return true; /* waits for something else than room */
    if (sq_room(r) < n)
      return false;
    for (; n > 0; n--)
      advance_backlog(r);
  }
  return true;
}

/* Moves what waits into the SQ.  False: not all that could go had room. */
static bool refill(lua_State *L, struct ring *r)
{
  bool all;
  if (r->withdrawn > 0)
    sweep_withdrawn(L, r);
  all = refill_cancels(r) && refill_backlog(r);
  if (!queue_empty(&r->space) && ring_has_room(r))
    tasks_wake_some(&r->space, r->backlog.limit - r->backlog.count);
  return all;
}

int ring_submit(lua_State *L, struct ring *r)
{
  unsigned to_submit;
  refill(L, r);
  to_submit = publish(r);
  return to_submit ? r->driver->enter(r, to_submit, 0, 0) : 0;
}

static bool cq_empty(const struct ring *r)
{
  return *r->io.cq.khead == io_uring_smp_load_acquire(r->io.cq.ktail);
}

/* Is this what enter says when nothing is wrong with the ring? */
static bool passing(int rc)
{
  return rc >= 0 || rc == -EINTR || rc == -ETIME || rc == -EAGAIN ||
         rc == -EBUSY || rc == -EBADR;
}

/* The kernel has no memory for more requests, or a CQ overflow to be rid of:
** it wants completions to be reaped first.  Where there are none yet, waiting
** a moment for one keeps the retry from spinning. */
static int wait_out_pressure(struct ring *r, uint64_t deadline_ns)
{
  uint64_t soon = now_ns() + 1000000u;
  if (!cq_empty(r))
    return 0;
  return r->driver->enter(r, 0, 1, soon < deadline_ns ? soon : deadline_ns);
}

/* Silences the bell.  What rang between the reaping and here is rung again:
** the kernel raises the flags before it rings. */
static void silence_bell(const struct ring *r)
{
  const unsigned more = IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW;
  eventfd_t count;
  if (r->bell < 0)
    return;
  (void)eventfd_read(r->bell, &count);
  if (!cq_empty(r) || IO_URING_READ_ONCE(*r->io.sq.kflags) & more)
    ring_ring_bell(r);
}

int ring_step(lua_State *L, struct ring *r, bool wait, uint64_t deadline_ns)
{
  uint64_t completed = r->stats.completed;
  unsigned to_submit;
  bool all;
  int rc;
  deadline_ns = retry_cancels(r, deadline_ns);
  all = refill(L, r);
  /* what found no room follows in the next step: first hand over */
  wait = wait && all && completed == r->stats.completed && cq_empty(r);
  to_submit = publish(r);
  rc = r->driver->enter(r, to_submit, wait, deadline_ns);
  if (rc == -EAGAIN || rc == -EBUSY || (!all && sq_room(r) == 0))
    rc = wait_out_pressure(r, deadline_ns);
  if (rc == -EBADR) /* the kernel had no memory to keep a CQE */
    r->stats.overflowed++;
  reap(L, r);
  silence_bell(r);
  refill(L, r);
  return passing(rc) ? 0 : rc;
}

int ring_bell(struct ring *r)
{
  int fd, rc;
  if (r->bell >= 0)
    return r->bell;
  fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0)
    return -errno;
  rc = io_uring_register_eventfd(&r->io, fd);
  if (rc < 0) {
    close(fd);
    return rc;
  }
  r->bell = fd;
  return fd;
}

bool ring_has_unsent(const struct ring *r)
{
  const struct io_uring_sq *sq = &r->io.sq;
  const struct backlog *b = &r->backlog;
  if (r->cancels != NULL ||
      sq->sqe_tail != io_uring_smp_load_acquire(sq->khead))
    return true;
  return b->count > 0 && group_size(b, 0) > 0 &&
         !held_back(r, event_find(&r->events, backlog_at(b, 0)->user_data));
}

void ring_ring_bell(const struct ring *r)
{
  if (r->bell >= 0)
    (void)eventfd_write(r->bell, 1);
}

bool ring_idle(const struct ring *r)
{
  return r->in_flight == 0 && r->unpublished == 0 && r->backlog.count == 0;
}

/*
** Opening
*/

void ring_default_options(struct ring_options *o)
{
  memset(o, 0, sizeof *o);
  o->entries = 256;
  o->backlog = 4096;
  o->sq_thread_idle_ms = 2000;
  o->sq_thread_cpu = -1;
  o->drain_timeout = 10;
  o->driver = &driver_kernel;
}

struct ring *ring_open(lua_State *L, struct core *core,
                       const struct ring_options *options, int *err)
{
  struct ring *r = mem_alloc(core, sizeof *r);
  *err = -ENOMEM;
  if (r == NULL)
    return NULL;
  memset(r, 0, sizeof *r);
  r->core = core;
  r->driver = options->driver;
  r->backlog.limit = options->backlog;
  r->drain_timeout = options->drain_timeout;
  r->epoch = *core->epoch;
  r->pid = core->pid;
  r->events.anchors = LUA_NOREF;
  r->bell = -1;
  r->state = RING_CLOSED;
  r->next = core->rings; /* linked first: an error below loses nothing */
  core->rings = r;
  event_table_open(L, &r->events);
  *err = r->driver->open(r, options);
  if (*err < 0) {
    ring_free(L, r);
    return NULL;
  }
  for (size_t i = 0; i < sizeof r->supported; i++)
    r->supported[i] &= (uint8_t)~options->without[i];
  r->state = RING_OPEN;
  return r;
}

/*
** Closing
**
** The kernel stops writing into our memory when it says so and not before:
** closing the ring's descriptor leaves io-wq workers running, and a
** synchronous cancel returns while they are.  So every event is cancelled
** and every terminal CQE is counted in.
*/

static void cancel_again(struct event *e, void *arg)
{
  struct ring *r = arg;
  if (e->flags & (EVENT_WITHDRAWN | EVENT_CANCEL_DUE | EVENT_RETRY))
    return;
  e->flags &= (uint16_t)~EVENT_CANCELLING;
  ring_cancel(r, e);
}

static void note_string(struct event *e, void *arg)
{
  if (e->flags & EVENT_ANCHORED)
    *(bool *)arg = true;
}

/* Lua's memory cannot be leaked to the kernel: its owner frees it. */
static bool strings_lent(struct ring *r)
{
  bool lent = false;
  event_each(&r->events, note_string, &lent);
  return lent;
}

/* Cancels and reaps until nothing is left or the deadline is past.  True if
** the kernel has nothing of ours any more. */
static bool drain(lua_State *L, struct ring *r, uint64_t deadline_ns)
{
  const uint64_t again_ns = 20000000u; /* a cancel can come too early */
  uint64_t repeat = 0;
  while (!ring_idle(r)) {
    uint64_t now = now_ns();
    if (now >= repeat) {
      uint64_t cancelled = r->stats.cancelled;
      event_each(&r->events, cancel_again, r);
      if (repeat) /* a repetition is not one more cancelled operation */
        r->stats.cancelled = cancelled;
      repeat = now + again_ns;
    }
    if (ring_step(L, r, deadline_ns != 0, repeat) < 0)
      return ring_idle(r);
    if (now >= deadline_ns && (deadline_ns == 0 || !strings_lent(r)))
      return ring_idle(r);
  }
  return true;
}

/* What is still lent is the kernel's for good: counted, and never freed; nor
** is its slot, which the loans are part of. */
static void leak(struct event *e, void *arg)
{
  struct ring *r = arg;
  struct aux *aux = e->aux;
  if (e->loan.block != NULL)
    r->stats.leaked += e->loan.size;
  for (unsigned i = 0; aux != NULL && i < aux->nvec; i++)
    if (aux->loans[i].block != NULL)
      r->stats.leaked += aux->loans[i].size;
  e->aux = NULL; /* the outcome must not take it along */
  if (e->task != NULL) {
    settle(r->core, &e->task->outcome, e, -ECANCELED, 0);
    task_complete(e->task);
  } else if (e->op != NULL) {
    settle(r->core, &e->op->outcome, e, -ECANCELED, 0);
    operation_complete(e->op);
  }
  e->task = NULL;
  e->op = NULL;
}

static void close_bell(struct ring *r)
{
  if (r->bell >= 0)
    close(r->bell);
  r->bell = -1;
}

/* What is left of the ring outside of the kernel. */
static void release_rest(struct ring *r)
{
  struct backlog *b = &r->backlog;
  close_bell(r);
  r->state = RING_CLOSED;
  mem_free(r->core, b->sqes, b->size * sizeof *b->sqes);
  memset(b, 0, sizeof *b);
  r->withdrawn = 0;
  tasks_wake(&r->space);
}

static void release_queues(lua_State *L, struct ring *r, bool quiet)
{
  r->driver->close(r);
  release_rest(r);
  if (quiet) {
    event_table_close(L, r->core, &r->events);
  } else { /* the table stays where it is, with the loans inside it */
    event_each(&r->events, leak, r);
    r->events.anchors = LUA_NOREF;
  }
}

struct forgetting {
  lua_State *L;
  struct ring *ring;
};

static void forget(struct event *e, void *arg)
{
  struct forgetting *f = arg;
  e->flags &= (uint16_t) ~(EVENT_CANCEL_DUE | EVENT_RETRY);
  finish(f->L, f->ring, e, -ECANCELED, 0);
}

/* In a child of fork the queues are not even mapped, and the kernel works on
** the parent's memory: what is lent comes back at once, and this copy of the
** descriptor is let go, which takes nothing from the parent. */
static void abandon(lua_State *L, struct ring *r)
{
  struct forgetting f = {L, r};
  r->driver->forget(r);
  release_rest(r);
  event_each(&r->events, forget, &f);
  event_table_close(L, r->core, &r->events);
}

void ring_close(lua_State *L, struct ring *r)
{
  uint64_t now = now_ns();
  if (r->state == RING_CLOSED)
    return;
  if (foreign(r)) {
    abandon(L, r);
    return;
  }
  /* at least one moment: a deadline of 0 would mean "do not wait" */
  release_queues(L, r, drain(L, r, now + 1 + seconds_to_ns(r->drain_timeout)));
}

/* Nobody will be told: whoever waits is gone, or goes before the ring. */
static void detach(struct event *e, void *arg)
{
  (void)arg;
  if (e->task != NULL)
    e->task->event = NULL;
  if (e->op != NULL) {
    e->op->outcome.res = -ECANCELED;
    e->op->event = NULL;
  }
  e->task = NULL;
  e->op = NULL;
}

void ring_drop(lua_State *L, struct ring *r)
{
  if (r->state == RING_OPEN) {
    event_each(&r->events, detach, NULL);
    r->state = RING_LINGERING;
    r->core->lingering++;
  }
  if (r->state == RING_LINGERING) {
    if (foreign(r))
      abandon(L, r);
    else if (drain(L, r, 0))
      release_queues(L, r, true);
    else
      return;
    r->core->lingering--;
  }
  ring_free(L, r);
}

void ring_reap_lingering(lua_State *L, struct core *core)
{
  struct ring *next;
  for (struct ring *r = core->rings; r != NULL; r = next) {
    next = r->next;
    if (r->state == RING_LINGERING)
      ring_drop(L, r);
  }
}

void ring_free(lua_State *L, struct ring *r)
{
  struct ring **p = &r->core->rings;
  while (*p != r)
    p = &(*p)->next;
  *p = r->next;
  luaL_unref(L, LUA_REGISTRYINDEX, r->events.anchors);
  mem_free(r->core, r, sizeof *r);
}
