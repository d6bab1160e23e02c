/* The ring: completing, steps, opening.  See ring.h for what it promises, and
** ring_queue.c, ring_cancel.c and ring_close.c for the rest of it.
**
** What keeps it sound, in the order in which an operation meets it:
**  - until its SQE is published the event can still be withdrawn;
**  - once published it is in flight, whatever enter says afterwards;
**  - only its own CQE without F_MORE ends it, never a cancel's;
**  - reaping moves outcomes and marks who is ready; it runs nobody.
*/
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "message.h"
#include "operation.h"
#include "pool.h"
#include "provided.h"
#include "ring_parts.h"
#include "skip.h"
#include "task.h"
#include "timer.h"

/*
** Completing
*/

void ring_settle(struct ring *r, struct outcome *o, struct event *e,
                 int32_t res, uint32_t flags, const struct data *data)
{
  outcome_clear(r->core, o);
  o->row = e->row;
  o->aux = e->aux;
  o->res = res;
  o->flags = flags;
  o->state = OUTCOME_READY;
  o->wants_peer = (e->flags & EVENT_PEER) != 0;
  o->yields = event_yields(e->flags);
  o->ring = r->number;
  o->expired = (e->flags & EVENT_EXPIRED) != 0;
  if (data != NULL)
    o->data = *data;
  e->aux = NULL;
}

/* A bundle that is sent tells of its parts, one after the other. */
static bool is_send_bundle(const struct event *e)
{
  return e->flags & EVENT_BUNDLE && e->row->opcode == IORING_OP_SEND;
}

/* The result of an operation that has ended by itself, or was made to. */
static int32_t plain_result(const struct event *e, int32_t res)
{
  if (e->flags & EVENT_LOST)
    return -ENOMEM;
  if (e->flags & EVENT_RESULT && is_send_bundle(e) && res > 0)
    return e->res + res;
  if (e->flags & EVENT_RESULT)
    return e->res;
  if (res == -ENOBUFS && e->flags & EVENT_SELECTS &&
      e->flags & EVENT_CANCELLING)
    return -ECANCELED;
  if (e->flags & EVENT_WITHDRAWN)
    return -ECANCELED;
  /* -512 and on are the kernel's own ERESTART codes: a worker was
  ** interrupted, as it is by a cancel request */
  if (res == -EINTR || (res <= -512 && res >= -516))
    return e->flags & EVENT_CANCELLING ? -ECANCELED : -EINTR;
  /* the kernel says 0 where it was told the slot */
  if (res >= 0 && e->flags & EVENT_DIRECT && e->place >= 0)
    return e->place;
  return res;
}

/* The result that the program gets to see. */
static int32_t result_of(const struct event *e, int32_t res)
{
  res = plain_result(e, res);
  return res == -ECANCELED && e->flags & EVENT_EXPIRED ? -ETIMEDOUT : res;
}

void ring_lose(const struct ring *r, const struct event *e,
               const struct result *one)
{
  const struct outcome from = {.yields = event_yields(e->flags),
                               .ring = r->number};
  struct data data = one->data;
  outcome_lose(r->core, &from, one->res);
  data_drop(&data);
}

void ring_finish(struct ring *r, struct event *e, int32_t res, uint32_t flags,
                 const struct data *data)
{
  cancel_settled(r, e);
  again_leave(r, e);
  skip_leave(e);
  if (e->flags & EVENT_DRAIN && !(e->flags & EVENT_BACKLOG))
    r->draining = false;
  res = result_of(e, res);
  if (row_provides(e->row))
    provided_settle(r, e, res);
  event_give_back(r, e);
  r->stats.completed++;
  if (e->task != NULL) {
    ring_settle(r, &e->task->outcome, e, res, flags, data);
    task_complete(e->task);
  } else if (e->op != NULL) {
    if (!e->op->announced)
      ring_settle(r, &e->op->outcome, e, res, flags, data);
    operation_complete(e->op);
  } else {
    struct outcome lost = {0};
    ring_settle(r, &lost, e, res, flags, data);
    outcome_drop(r->core, &lost);
  }
  event_free(r, e);
}

/* The result of a zero-copy send is there, and what it lent is not back yet:
** whoever waits goes on, and the event stays with the loans until the kernel
** says that it is done with them. */
static void announce(struct ring *r, struct event *e, uint32_t flags)
{
  struct aux *aux = e->aux; /* the kernel still reads it */
  e->aux = NULL;
  if (e->task != NULL) {
    ring_settle(r, &e->task->outcome, e, e->res, flags, NULL);
    task_complete(e->task);
    e->task = NULL;
  } else if (e->op != NULL) {
    ring_settle(r, &e->op->outcome, e, e->res, flags, NULL);
    operation_announce(e->op);
  }
  e->aux = aux;
}

/* A CQE that is not the last.  A multishot handle takes it as one result of
** many; otherwise it is the result, and the last CQE only gives back. */
static void progress(struct ring *r, struct event *e, const struct result *one)
{
  if (e->op != NULL && operation_is_multishot(e->op)) {
    again_proven(r, e);
    again_fired(e);
    if (!operation_deliver(e->op, one)) {
      ring_lose(r, e, one); /* no memory to keep it */
      e->flags |= EVENT_LOST;
      ring_cancel(r, e);
    } else if (operation_unread(e->op) >= RESULTS_MAX) {
      again_pause(r, e);
    }
  } else if (e->flags & EVENT_RESULT && is_send_bundle(e)) {
    e->res += one->res > 0 ? one->res : 0;
  } else if (e->flags & EVENT_RESULT || (!e->task && !e->op)) {
    ring_lose(r, e, one);
  } else {
    struct data data = one->data; /* that of a raw SQE, which wants one */
    data_drop(&data);
    e->res = one->res;
    e->flags |= EVENT_RESULT;
    if (e->flags & EVENT_ZERO_COPY)
      announce(r, e, one->flags);
  }
}

/* What the completion brought in buffers of a pool. */
static void claim(struct ring *r, const struct event *e, struct result *one)
{
  if (!(e->flags & EVENT_SELECTS))
    return;
  if (e->again.pool == NULL) {
    provided_claim(r, e->again.group, one->flags >> IORING_CQE_BUFFER_SHIFT);
    one->data.shape = DATA_NUMBER;
    return;
  }
  pool_claim(e->again.pool, e, one->res, one->flags, &one->data);
  one->data.shape = event_data_shape(e->flags);
  if (one->data.size == 0) /* no bytes, no buffer */
    data_drop(&one->data);
}

static void ended(struct ring *r, struct event *e, const struct result *one)
{
  r->in_flight--;
  if (e->flags & EVENT_AGAIN && again_goes_on(r, e, one))
    return;
  ring_finish(r, e, one->res, one->flags, &one->data);
}

static void complete(struct ring *r, const struct io_uring_cqe *cqe)
{
  struct event *e = event_find(&r->events, cqe->user_data);
  struct result one = {cqe->res, cqe->flags, NO_DATA};
  if (e != NULL && e->flags & EVENT_GROUPED)
    skip_conclude(r, e);
  if (e != NULL && cqe->flags & IORING_CQE_F_BUFFER)
    claim(r, e, &one);
  if (e == NULL && cancel_is_request(r, cqe->user_data))
    cancel_ended(r, cqe->user_data, cqe->res);
  else if (e == NULL)
    r->stats.unknown += !message_receive(r, cqe->user_data, cqe->res);
  else if (cqe->flags & IORING_CQE_F_MORE)
    progress(r, e, &one);
  else
    ended(r, e, &one);
}

unsigned ring_reap(struct ring *r, unsigned most)
{
  struct io_uring_cq *cq = &r->io.cq;
  unsigned head = *cq->khead, ready = ring_cq_ready(r);
  unsigned count = ready < most ? ready : most;
  unsigned end = head + count;
  for (; head != end; head++)
    complete(r, &cq->cqes[head & cq->ring_mask]);
  io_uring_smp_store_release(cq->khead, end);
  return count;
}

/*
** Steps
*/

int ring_submit(struct ring *r)
{
  unsigned to_submit;
  int rc;
  queue_refill(r);
  to_submit = queue_publish(r);
  if (to_submit == 0)
    return 0;
  rc = ring_enter(r, to_submit, 0, 0);
  skip_check_whole(r);
  return rc;
}

static bool cq_empty(const struct ring *r)
{
  return ring_cq_ready(r) == 0;
}

bool ring_is_passing(int rc)
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
  return ring_enter(r, 0, 1, soon < deadline_ns ? soon : deadline_ns);
}

/* What rang between the reaping and here is rung again: the kernel raises the
** flags before it rings. */
void ring_silence_bell(const struct ring *r)
{
  const unsigned more = IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW;
  eventfd_t count;
  if (r->bell < 0)
    return;
  (void)eventfd_read(r->bell, &count);
  if (!cq_empty(r) || IO_URING_READ_ONCE(*r->io.sq.kflags) & more ||
      again_can_wake(r))
    ring_ring_bell(r);
}

int ring_step(struct ring *r, bool wait, uint64_t deadline_ns)
{
  uint64_t completed = r->stats.completed;
  unsigned to_submit;
  bool all;
  int rc;
  again_look_for_buffers(r);
  deadline_ns = cancel_retry(r, deadline_ns);
  all = queue_refill(r);
  /* what found no room follows in the next step: first hand over */
  wait = wait && all && !again_can_wake(r) &&
         completed == r->stats.completed && cq_empty(r);
  to_submit = queue_publish(r);
  rc = ring_enter(r, to_submit, wait, deadline_ns);
  skip_check_whole(r);
  if (rc == -EAGAIN || rc == -EBUSY || (!all && queue_room(r) == 0))
    rc = wait_out_pressure(r, deadline_ns);
  if (rc == -EBADR) /* the kernel had no memory to keep a CQE */
    r->stats.overflowed++;
  ring_reap(r, UINT_MAX);
  ring_silence_bell(r);
  queue_refill(r);
  return ring_is_passing(rc) ? 0 : rc;
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

void ring_ring_bell(const struct ring *r)
{
  if (r->bell >= 0)
    (void)eventfd_write(r->bell, 1);
}

bool ring_idle(const struct ring *r)
{
  return r->in_flight == 0 && r->unpublished == 0 && r->backlog.count == 0 &&
         r->waking.head == NULL;
}

bool ring_is_still(const struct ring *r)
{
  return ring_idle(r) && r->withdrawn == 0 && r->requests == 0 &&
         queue_empty(&r->space) && r->receiver == NULL && r->bell < 0 &&
         cq_empty(r);
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
  r->number = ++core->opened;
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
  r->lacks_bundles |= options->without_bundles;
  r->spoils_incremental = options->without_incremental;
  r->multishot_spoilt = options->without_multishot;
  r->state = RING_OPEN;
  return r;
}
