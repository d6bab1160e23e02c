/* Operations that go on.
**
** The kernel ends a multishot operation whenever that suits it: for want of
** a buffer, when its CQ overflows, or because it was asked to since results
** come faster than they are taken.  Its event then stays, resting, and its
** SQE is queued again: at once, or when a buffer has come back, or when its
** reader has caught up.  With it changes its generation, so that a request
** that was meant for the ended one does not find it.
**
** 1. No buffer: it waits in its pool's list, and every buffer that comes back
**    wakes the first of those who are there; a buffer that is not taken by the
**    next step, another.  Single-shot operations do the same.
** 2. More than RESULTS_MAX results unread: it is cancelled (pausing), and all
**    that still comes is kept; below half of that it is queued again.
** 3. Ended with a result that is not the last, such as a connection: queued
**    again behind what waits already.
** 4. Not known to this kernel (-EINVAL before any success): the same one by
**    one; when that works it is remembered.
** Cancelled by the program, or an orphan: none of this; it ends.
*/
#include <errno.h>
#include <sys/socket.h>

#include "multishot.h"
#include "operation.h"
#include "pool.h"
#include "ring_parts.h"
#include "rows.h"

/*
** Sleeping and waking
*/

void again_wake(struct ring *r, struct event *e)
{
  if (e->flags & EVENT_STARVING) {
    event_list_remove(&e->again.pool->starving, e);
    e->flags &= ~EVENT_STARVING;
    r->starving--;
    if (!ring_is_foreign(r))
      r->core->starving--;
  }
  if (e->flags & EVENT_WAKING)
    return;
  e->flags |= EVENT_WAKING;
  event_list_add(&r->waking, e);
  ring_ring_bell(r);
}

void again_wake_all(struct ring *r, struct event_list *list)
{
  while (list->head != NULL)
    again_wake(r, list->head);
}

void again_wake_for_buffer(struct pool *pool)
{
  if (pool->starving.head != NULL)
    again_wake(pool->ring, pool->starving.head);
}

bool again_can_wake(const struct ring *r)
{
  if (r->starving == 0)
    return false;
  for (const struct pool *p = r->pools; p != NULL; p = p->next)
    if (p->provided > 0 && p->starving.head != NULL)
      return true;
  return false;
}

void again_look_for_buffers(struct ring *r)
{
  if (r->starving == 0 || r->waking.head != NULL)
    return;
  for (struct pool *p = r->pools; p != NULL; p = p->next)
    for (unsigned n = p->provided; n > 0 && p->starving.head != NULL; n--)
      again_wake(r, p->starving.head);
}

struct on_fd {
  struct ring *ring;
  int fd;
  bool fixed, found;
};

static bool is_fixed(const struct event *e)
{
  return (e->again.sqe->flags & IOSQE_FIXED_FILE) != 0;
}

static void cancel_resting(struct event *e, void *arg)
{
  struct on_fd *on = arg;
  if (!(e->flags & EVENT_RESTING))
    return;
  if (on->fd >= 0 && (e->fd != on->fd || is_fixed(e) != on->fixed))
    return;
  ring_cancel(on->ring, e);
  on->found = true;
}

bool again_cancel_fd(struct ring *r, int fd, bool fixed)
{
  struct on_fd on = {r, fd, fixed, false};
  event_each(&r->events, cancel_resting, &on);
  return on.found;
}

/* The kernel has ended it, and it is to go on. */
static void rest(struct ring *r, struct event *e)
{
  cancel_settled(r, e);
  e->flags &= ~(EVENT_CANCELLING | EVENT_PAUSING);
  e->flags |= EVENT_RESTING;
  e->generation++; /* a late request finds nothing */
  r->resting++;
}

static void starve(struct ring *r, struct event *e)
{
  struct pool *pool = e->again.pool;
  rest(r, e);
  pool->starved++;
  if (pool->provided > 0) { /* some have come back meanwhile */
    again_wake(r, e);
  } else {
    e->flags |= EVENT_STARVING;
    event_list_add(&pool->starving, e);
    r->starving++;
    r->core->starving++;
  }
}

void again_caught_up(struct ring *r, struct event *e, unsigned unread)
{
  const unsigned held = EVENT_STARVING | EVENT_WAKING;
  if (e->flags & EVENT_RESTING && !(e->flags & held) &&
      unread <= RESULTS_MAX / 2)
    again_wake(r, e);
}

void again_pause(struct ring *r, struct event *e)
{
  if (!(e->flags & EVENT_AGAIN) || e->flags & EVENT_LINKED) {
    ring_cancel(r, e);
  } else if (!(e->flags & EVENT_CANCELLING)) {
    e->flags |= EVENT_CANCELLING | EVENT_PAUSING;
    cancel_due(r, e);
  }
}

void again_leave(struct ring *r, struct event *e)
{
  if (!(e->flags & EVENT_RESTING))
    return;
  if (e->flags & EVENT_STARVING) {
    event_list_remove(&e->again.pool->starving, e);
    r->starving--;
    if (!ring_is_foreign(r))
      r->core->starving--;
  }
  if (e->flags & EVENT_WAKING)
    event_list_remove(&r->waking, e);
  e->flags &= ~(EVENT_RESTING | EVENT_STARVING | EVENT_WAKING);
  r->resting--;
}

/* Queues it again.  It has started once: it neither waits for what is drained
** nor gets into a group that is being linked, both of which are in the
** backlog. */
static void start(struct ring *r, struct event *e)
{
  again_leave(r, e);
  if (e->flags & EVENT_WITHDRAWN) {
    ring_finish(r, e, -ECANCELED, 0, NULL);
    return;
  }
  e->again.sqe->user_data = event_user_data(e);
  if (e->again.counted && !(e->flags & EVENT_SINGLE))
    e->again.sqe->off = e->again.left;
  queue_put(r, e, e->again.sqe);
  r->stats.rearmed++;
}

bool again_refill(struct ring *r)
{
  struct event *e;
  while ((e = r->waking.head) != NULL) {
    if (queue_room(r) == 0 && !(e->flags & EVENT_WITHDRAWN))
      return false;
    start(r, e);
  }
  return true;
}

/*
** What is not the end
*/

void again_proven(struct ring *r, const struct event *e)
{
  r->multishot_proven |= multishot_bit(e->row->opcode);
}

/* Of a socket for datagrams, nothing is a message like another. */
static bool is_datagram(const struct event *e)
{
  int type = 0;
  socklen_t size = sizeof type;
  return !is_fixed(e) &&
         getsockopt(e->fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
         type == SOCK_DGRAM;
}

/* Does a result of this kind leave the operation unfinished?  A stream that
** has ended gives 0, or a message of nothing from nobody. */
static bool leaves_more(const struct event *e, int32_t res,
                        const struct data *data)
{
  switch (e->row->opcode) {
  case IORING_OP_ACCEPT:
  case IORING_OP_POLL_ADD:
    return res >= 0;
  case IORING_OP_RECV:
    return res > 0 || (res == 0 && is_datagram(e));
  case URING_OP_READ_MULTISHOT:
    return res > 0;
  case IORING_OP_RECVMSG:
    return res >= 0 && (!pool_message_is_end(data) || is_datagram(e));
  case IORING_OP_TIMEOUT:
    return res == -ETIME && (!e->again.counted || e->again.left > 0);
  default:
    return false;
  }
}

static bool is_multishot(const struct event *e)
{
  return e->op != NULL && operation_is_multishot(e->op);
}

bool again_lacks_multishot(const struct ring *r, const struct event *e)
{
  return (r->multishot_lacking & multishot_bit(e->row->opcode)) != 0;
}

void again_make_single(struct event *e, struct io_uring_sqe *sqe)
{
  multishot_make_single(sqe);
  e->flags |= EVENT_SINGLE;
}

/* Can the kernel be tried for less? */
static bool may_try_single(const struct ring *r, const struct event *e)
{
  return !(e->flags & EVENT_SINGLE) &&
         !(r->multishot_proven & multishot_bit(e->row->opcode)) &&
         multishot_can_be_single(e->again.sqe);
}

/* One result of many has come with a CQE that ended it in the kernel. */
static void deliver(struct ring *r, struct event *e, const struct result *one)
{
  if (e->flags & EVENT_SINGLE)
    r->multishot_lacking |= multishot_bit(e->row->opcode);
  rest(r, e);
  if (!operation_deliver(e->op, one)) {
    ring_lose(r, e, one);
    e->flags |= EVENT_LOST;
    ring_cancel(r, e);
  } else if (operation_unread(e->op) < RESULTS_MAX) {
    again_wake(r, e);
  }
}

void again_fired(struct event *e)
{
  if (e->flags & EVENT_AGAIN && e->again.counted && e->again.left > 0)
    e->again.left--;
}

bool again_goes_on(struct ring *r, struct event *e, const struct result *one)
{
  bool pausing = (e->flags & EVENT_PAUSING) != 0;
  if (e->flags & (EVENT_WITHDRAWN | EVENT_RESULT | EVENT_LINKED) ||
      (e->flags & EVENT_CANCELLING && !pausing))
    return false;
  if (one->res == -ENOBUFS && e->flags & EVENT_SELECTS &&
      e->again.pool != NULL && e->again.pool->open) {
    starve(r, e);
    return true;
  }
  if (!is_multishot(e))
    return false;
  if (one->res == -ECANCELED && pausing) {
    rest(r, e);
    again_caught_up(r, e, operation_unread(e->op));
    return true;
  }
  if (one->res == -EINVAL && may_try_single(r, e)) {
    again_make_single(e, e->again.sqe);
    rest(r, e);
    again_wake(r, e);
    return true;
  }
  if (one->res == -ETIME)
    again_fired(e);
  if (!leaves_more(e, one->res, &one->data))
    return false;
  deliver(r, e, one);
  return true;
}
