/* The order in which SQEs reach the kernel: the SQ, receives, the backlog
** behind it, groups of linked operations, and what waits for others to end.
**
** An SQE is written and the tail kept back; until it is published the event
** can still be withdrawn, or taken out of the SQ again.
*/
#include <errno.h>
#include <string.h>

#include "pool.h"
#include "ring_parts.h"
#include "skip.h"
#include "task.h"

/*
** The submission queue
*/

unsigned queue_room(const struct ring *r)
{
  const struct io_uring_sq *sq = &r->io.sq;
  return sq->ring_entries - r->behind.count -
         (sq->sqe_tail - io_uring_smp_load_acquire(sq->khead));
}

static struct io_uring_sqe *take_sqe(struct ring *r)
{
  struct io_uring_sq *sq = &r->io.sq;
  r->queued++;
  return &sq->sqes[sq->sqe_tail++ & sq->ring_mask];
}

struct io_uring_sqe *queue_next_sqe(struct ring *r)
{
  return queue_room(r) > 0 ? take_sqe(r) : NULL;
}

struct io_uring_sqe *queue_unpublished(struct ring *r, const struct event *e)
{
  struct io_uring_sq *sq = &r->io.sq;
  unsigned back = (unsigned)(r->queued - e->order);
  if (e->order >= ORDER_BEHIND)
    return &r->behind.sqes[e->order - ORDER_BEHIND];
  return &sq->sqes[(sq->sqe_tail - back) & sq->ring_mask];
}

/*
** Receives behind what is sent.
**
** Their SQEs wait beside the SQ, where as many places are kept for them, until
** it is published or something comes that must not go in front of them: a
** close would take their descriptor away, another receive their bytes.
*/

/* More than that in one turn are queued as they come. */
#define BEHIND_MAX 1024u

static bool may_go_in_front(const struct io_uring_sqe *sqe)
{
  switch (sqe->opcode) {
  case IORING_OP_SEND:
  case IORING_OP_SENDMSG:
  case IORING_OP_SEND_ZC:
  case IORING_OP_SENDMSG_ZC:
  case IORING_OP_WRITE:
  case IORING_OP_WRITEV:
    return true;
  default:
    return false;
  }
}

void ring_catch_up(struct ring *r)
{
  struct behind *b = &r->behind;
  const unsigned count = b->count;
  b->count = 0;
  for (unsigned i = 0; i < count; i++) {
    struct event *e = event_find(&r->events, b->sqes[i].user_data);
    *take_sqe(r) = b->sqes[i];
    e->order = r->queued - 1;
  }
}

/* False: there is no memory. */
static bool grow_behind(struct ring *r)
{
  struct behind *b = &r->behind;
  unsigned size = b->size ? b->size * 2 : 16;
  struct io_uring_sqe *sqes = mem_alloc(r->core, size * sizeof *sqes);
  if (sqes == NULL)
    return false;
  if (b->count > 0)
    memcpy(sqes, b->sqes, b->count * sizeof *sqes);
  mem_free(r->core, b->sqes, b->size * sizeof *b->sqes);
  b->sqes = sqes;
  b->size = size;
  return true;
}

unsigned queue_publish(struct ring *r)
{
  struct io_uring_sq *sq = &r->io.sq;
  ring_catch_up(r);
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

void queue_put(struct ring *r, struct event *e, const struct io_uring_sqe *sqe)
{
  if (r->behind.count > 0 && !may_go_in_front(sqe))
    ring_catch_up(r);
  put_into_sq(r, e, queue_next_sqe(r), sqe);
}

void ring_queue(struct ring *r, struct event *e,
                const struct io_uring_sqe *sqe)
{
  struct io_uring_sqe *slot = NULL;
  bool links = (sqe->flags & SQE_LINKS) != 0;
  if (r->behind.count > 0 && !may_go_in_front(sqe))
    ring_catch_up(r);
  if (r->backlog.count == 0 && !r->draining && !(e->flags & EVENT_DRAIN) &&
      !links)
    slot = queue_next_sqe(r);
  r->linking = links;
  if (slot != NULL)
    put_into_sq(r, e, slot, sqe);
  else
    put_into_backlog(r, e, sqe);
  r->stats.prepared++;
}

void ring_queue_behind(struct ring *r, struct event *e,
                       const struct io_uring_sqe *sqe)
{
  struct behind *b = &r->behind;
  if (r->backlog.count > 0 || r->draining || e->flags & EVENT_DRAIN ||
      sqe->flags & SQE_LINKS || queue_room(r) == 0 || b->count == BEHIND_MAX ||
      (b->count == b->size && !grow_behind(r))) {
    ring_queue(r, e, sqe);
    return;
  }
  r->linking = false;
  b->sqes[b->count] = *sqe;
  e->order = ORDER_BEHIND + b->count++;
  r->unpublished++;
  r->stats.prepared++;
}

/*
** Links.
**
** The kernel links what it takes in one submission, so a group has to be in
** the SQ as a whole when that is published.  Groups therefore gather in the
** backlog, and go into the SQ when their last member is there and all have
** room.
*/

/* Members of the group that begins at place `i` of the backlog, the last of
** which is linked to nothing; 0: that one is still to come. */
static unsigned group_size(const struct backlog *b, unsigned i)
{
  for (unsigned n = 1; i + n <= b->count; n++)
    if (!(backlog_at(b, i + n - 1)->flags & SQE_LINKS))
      return n;
  return 0;
}

bool ring_group_is_full(const struct ring *r)
{
  const struct backlog *b = &r->backlog;
  unsigned n = 0;
  while (n < b->count && backlog_at(b, b->count - 1 - n)->flags & SQE_LINKS)
    n++;
  return n + 1 >= r->io.sq.ring_entries;
}

bool ring_drains(const struct ring *r)
{
  const struct backlog *b = &r->backlog;
  for (unsigned i = 0; i < b->count; i++)
    if (event_find(&r->events, backlog_at(b, i)->user_data)->flags &
        EVENT_DRAIN)
      return true;
  return r->draining;
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
      cancel_due(r, e);
    return;
  }
  e = event_find(&r->events, sqe->user_data);
  b->head = (b->head - 1) & (b->size - 1);
  b->sqes[b->head] = *sqe;
  b->count++;
  e->flags |= EVENT_BACKLOG;
  skip_undo(e);
  if (e->flags & EVENT_DRAIN)
    r->draining = false;
  r->unpublished--;
}

/* Is the newest SQE in the SQ linked to one that has been taken out? */
static bool is_open_ended(const struct ring *r)
{
  const struct io_uring_sq *sq = &r->io.sq;
  return r->queued > r->published &&
         sq->sqes[(sq->sqe_tail - 1) & sq->ring_mask].flags & SQE_LINKS;
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
  for (unsigned i = 0; i < count; i++)
    if (events[i]->flags & EVENT_RESULT)
      return "an operation that this kernel lacks cannot be linked";
  for (unsigned i = 1; i < count; i++)
    if (events[i]->flags & EVENT_BUNDLE ||
        (events[i]->flags & EVENT_SELECTS && events[i]->again.pool != NULL &&
         events[i]->again.pool->incremental))
      return "a bundle, or an incremental pool, is only for the first";
  if (count > r->io.sq.ring_entries)
    return "more operations to be linked than the ring has entries";
  while (b->size - b->count < r->io.sq.ring_entries)
    if (!ring_grow_backlog(r))
      return "not enough memory";
  while (!(events[0]->flags & EVENT_BACKLOG) || is_open_ended(r))
    unqueue(r);
  first = backlog_find(b, events[0]);
  for (unsigned i = 1; i < count; i++)
    if (first + i >= b->count ||
        backlog_at(b, first + i)->user_data != event_user_data(events[i]))
      return "operations to be linked must be prepared one after the other";
  for (unsigned i = 0; i + 1 < count; i++) {
    backlog_at(b, first + i)->flags |=
        hard ? IOSQE_IO_HARDLINK : IOSQE_IO_LINK;
    events[i]->flags |= EVENT_LINKED;
  }
  return NULL;
}

/*
** Refilling
*/

/* Does a drained operation keep this one from starting? */
static bool held_back(const struct ring *r, const struct event *e)
{
  return r->draining ||
         (e->flags & EVENT_DRAIN &&
          (r->in_flight > 0 || r->unpublished > 0 || r->resting > 0));
}

/* Takes those that were withdrawn out of the backlog, wherever they stand,
** and those that are linked to them. */
static void sweep_withdrawn(struct ring *r)
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
      drags = (sqe->flags & SQE_LINKS) != 0;
      if (kept > 0) /* whatever was linked to it ends its group */
        backlog_at(b, kept - 1)->flags &= (uint8_t)~SQE_LINKS;
      ring_finish(r, e, -ECANCELED, 0, NULL);
    } else {
      *backlog_at(b, kept++) = *sqe;
    }
  }
  b->count = kept;
  r->withdrawn = 0;
  r->linking = kept > 0 && backlog_at(b, kept - 1)->flags & SQE_LINKS;
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
  e->flags &= ~EVENT_BACKLOG;
  queue_put(r, e, sqe);
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
    if (queue_room(r) < n)
      return false;
    if (n > 1)
      skip_arrange(r, n);
    for (; n > 0; n--)
      advance_backlog(r);
  }
  return true;
}

bool queue_refill(struct ring *r)
{
  bool all;
  if (r->withdrawn > 0)
    sweep_withdrawn(r);
  all = again_refill(r) && cancel_refill(r) && refill_backlog(r);
  if (!queue_empty(&r->space) && r->backlog.count < r->backlog.limit)
    tasks_wake_some(&r->space, r->backlog.limit - r->backlog.count);
  return all;
}

bool ring_has_unsent(const struct ring *r)
{
  const struct io_uring_sq *sq = &r->io.sq;
  const struct backlog *b = &r->backlog;
  if (r->cancels.head != NULL || r->waking.head != NULL || again_can_wake(r) ||
      r->behind.count > 0 ||
      sq->sqe_tail != io_uring_smp_load_acquire(sq->khead))
    return true;
  return b->count > 0 && group_size(b, 0) > 0 &&
         !held_back(r, event_find(&r->events, backlog_at(b, 0)->user_data));
}
