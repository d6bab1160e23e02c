/* Cancelling.
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
** 5. An operation with a deadline of its own is cancelled when that comes, and
**    then what would be -ECANCELED is -ETIMEDOUT; 2 holds, too.
** 6. A ring with IORING_SETUP_IOPOLL takes no such request: what it has in
**    flight is I/O of a device, and ends by itself.
*/
#include <errno.h>
#include <string.h>

#include "message.h"
#include "ring_parts.h"
#include "timer.h"

/* How long a cancel request that came to nothing is left alone. */
#define RETRY_NS 10000000u

void cancel_due(struct ring *r, struct event *e)
{
  e->flags |= EVENT_CANCEL_DUE;
  event_list_add(&r->cancels, e);
}

static void not_due(struct ring *r, struct event *e)
{
  if (!(e->flags & EVENT_CANCEL_DUE))
    return;
  e->flags &= ~EVENT_CANCEL_DUE;
  event_list_remove(&r->cancels, e);
}

void cancel_settled(struct ring *r, struct event *e)
{
  not_due(r, e);
  if (e->flags & EVENT_RETRY)
    r->retries--;
  e->flags &= ~EVENT_RETRY;
}

/* Its SQE becomes a NOP, and those of the group behind it do, too. */
static void withdraw_from_sq(struct ring *r, struct event *e)
{
  struct io_uring_sqe *sqe = queue_unpublished(r, e);
  uint8_t links = sqe->flags & SQE_LINKS;
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = IORING_OP_NOP;
  sqe->flags = links;
  sqe->user_data = event_user_data(e);
  e->flags &= ~EVENT_SKIPS;
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
  bool pausing = (e->flags & EVENT_PAUSING) != 0;
  if (e->flags & EVENT_RECEIVES) {
    message_end(r, -ECANCELED);
    return;
  }
  if ((e->flags & EVENT_CANCELLING && !pausing) || ring_is_foreign(r))
    return;
  e->flags |= EVENT_CANCELLING;
  e->flags &= ~EVENT_PAUSING;
  r->stats.cancelled++;
  if (pausing)
    return; /* the request is on its way already */
  if (e->flags & EVENT_RESTING) {
    e->flags |= EVENT_WITHDRAWN;
    again_wake(r, e);
    return;
  }
  if (!ring_published(r, e))
    withdraw(r, e);
  else if (!(r->io.flags & IORING_SETUP_IOPOLL))
    cancel_due(r, e);
}

void ring_limit(struct ring *r, struct event *e, uint64_t deadline_ns)
{
  struct event_more *more = event_more(e);
  more->ring = r->number;
  r->timed++;
  timer_arm(r->core, &more->timer, TIMER_OPERATION, deadline_ns);
}

void ring_unlimit(struct ring *r, struct event *e)
{
  struct event_more *more = event_more(e);
  if (more == NULL || more->timer.slot == 0)
    return;
  r->timed--;
  timer_disarm(r->core, &more->timer);
}

void ring_expire(struct core *core, struct timer *t)
{
  const struct event_more *more =
      (struct event_more *)((char *)t - offsetof(struct event_more, timer));
  struct event *e = more->event;
  struct ring *r = core->rings;
  while (r != NULL && r->number != more->ring)
    r = r->next;
  if (r == NULL)
    return;
  r->timed--;
  if (r->state != RING_OPEN || e->flags & EVENT_RESULT ||
      (e->flags & EVENT_CANCELLING && !(e->flags & EVENT_PAUSING)))
    return;
  e->flags |= EVENT_EXPIRED;
  ring_cancel(r, e);
  if (r != core->home)
    ring_ring_bell(r); /* whoever waits for it hands the request over */
}

void ring_orphan(struct ring *r, struct event *e)
{
  e->task = NULL;
  e->op = NULL;
  if (!(e->flags & EVENT_RECEIVES))
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
void cancel_ended(struct ring *r, uint64_t user_data, int32_t res)
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
  e->flags &= ~EVENT_RETRY;
  r->retries--;
  cancel_due(r, e);
}

uint64_t cancel_retry(struct ring *r, uint64_t deadline_ns)
{
  if (r->retries == 0)
    return deadline_ns;
  if (now_ns() >= r->retry_at)
    event_each(&r->events, retry, r);
  return r->retries > 0 && r->retry_at < deadline_ns ? r->retry_at
                                                     : deadline_ns;
}

bool cancel_refill(struct ring *r)
{
  while (r->cancels.head != NULL) {
    struct io_uring_sqe *sqe = queue_next_sqe(r);
    if (sqe == NULL)
      return false;
    cancel_sqe(sqe, r->cancels.head);
    r->requests++;
    not_due(r, r->cancels.head);
  }
  return true;
}

/* Is this a cancel request's?  Its target may be gone, but not the slot. */
bool cancel_is_request(const struct ring *r, uint64_t user_data)
{
  uint32_t slot = (uint32_t)(user_data & ~USER_DATA_CANCEL);
  return r->requests > 0 && (user_data & USER_DATA_CANCEL) != 0 &&
         slot / EVENT_CHUNK < r->events.nchunks;
}
