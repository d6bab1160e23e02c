/* Operations that post a completion only if they fail (skip_success).
**
** What the kernel promises (io_uring.c, timeout.c; Linux 5.17): a member of a
** group that has the flag and succeeds posts nothing.  If it fails it does,
** and those that are cancelled with it post nothing, whatever their flags;
** where one without the flag fails, all that are cancelled with it post.
** Completions come in the order in which members end.
**
** What we make of it: the members that are silent are the first of their
** group and never all of it.  Hence
**  - a completion of any member says that the silent ones before it have
**    ended, and well: it would not have been started else;
**  - a completion of a silent one says that it failed, and then, unless its
**    link is hard, that all behind it are cancelled and silent.
** Behind one that is not silent nobody is, since then a completion might be
** due to the failure of that one, of which all behind it tell.
**
** The flag is not passed on, and the completion comes as usual,
**  - where nobody stands behind it, or only its time limit: one that has
**    passed, and one that was not needed, end in ways of their own;
**  - where its link is hard and it is the first: what the kernel refuses to
**    begin fails the first of its group, and then the link counts as soft;
**  - where it is drained, or the result is more than success;
**  - with SQPOLL, where the kernel might take a part of a group unobserved,
**    and with IOPOLL, where failure is silent, too.
*/
#include "skip.h"

#include "op.h"
#include "ring_parts.h"

static bool tells_no_more(const struct request *q)
{
  const unsigned kind = q->row->result;
  return (kind == RESULT_INTEGER || kind == RESULT_TIMEOUT) &&
         !(q->sqe.flags & IOSQE_BUFFER_SELECT);
}

/* Does it open a file without our knowing where? */
static bool yields_unknown(const struct request *q)
{
  switch (event_yields(q->event_flags)) {
  case YIELDS_FD:
    return true;
  case YIELDS_SLOT:
    return q->place < 0;
  default:
    return false;
  }
}

bool skip_suits(const struct request *q)
{
  return tells_no_more(q) && !yields_unknown(q) && !q->multishot &&
         !q->row->zero_copy && !q->row->fails_quietly &&
         q->row->opcode != IORING_OP_LINK_TIMEOUT;
}

/* The event at place `i` of the backlog. */
static struct event *event_at(struct ring *r, unsigned i)
{
  return event_find(&r->events, backlog_at(&r->backlog, i)->user_data);
}

/* Can the member at place `i` of a group of `n` be silent? */
static bool can_be_silent(struct ring *r, unsigned i, unsigned n)
{
  const unsigned polled = IORING_SETUP_SQPOLL | IORING_SETUP_IOPOLL;
  const struct event *e = event_at(r, i);
  const struct io_uring_sqe *sqe = backlog_at(&r->backlog, i);
  if (!(e->flags & EVENT_SKIPS) || e->flags & EVENT_DRAIN || i + 1 == n)
    return false;
  if (i == 0 && sqe->flags & IOSQE_IO_HARDLINK)
    return false;
  return backlog_at(&r->backlog, i + 1)->opcode != IORING_OP_LINK_TIMEOUT &&
         !(r->io.flags & polled);
}

/* How many of the first `n` in the backlog are silent: without memory to keep
** their order, none. */
static unsigned count_silent(struct ring *r, unsigned n)
{
  unsigned silent = 0;
  while (silent < n && can_be_silent(r, silent, n))
    silent++;
  for (unsigned i = 0; i < n && silent > 0; i++)
    if (!event_reserve_more(r->core, event_at(r, i)))
      silent = 0;
  return silent;
}

void skip_arrange(struct ring *r, unsigned n)
{
  const unsigned silent = count_silent(r, n);
  struct event *last = NULL;
  for (unsigned i = 0; i < n; i++) {
    struct io_uring_sqe *sqe = backlog_at(&r->backlog, i);
    struct event *e = event_at(r, i);
    skip_undo(e);
    sqe->flags &= (uint8_t)~IOSQE_CQE_SKIP_SUCCESS;
    if (silent == 0)
      continue;
    if (i < silent)
      sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    else
      e->flags &= ~EVENT_SKIPS;
    if (sqe->flags & IOSQE_IO_HARDLINK)
      e->flags |= EVENT_HARD;
    e->flags |= EVENT_GROUPED;
    event_more(e)->before = last;
    event_more(e)->behind = NULL;
    if (last != NULL)
      event_more(last)->behind = e;
    last = e;
  }
}

/* Neighbours of a member. */
static struct event *before(const struct event *e)
{
  return event_more(e)->before;
}

static struct event *behind(const struct event *e)
{
  return event_more(e)->behind;
}

void skip_leave(struct event *e)
{
  if (!(e->flags & EVENT_GROUPED))
    return;
  if (before(e) != NULL)
    event_more(before(e))->behind = behind(e);
  if (behind(e) != NULL)
    event_more(behind(e))->before = before(e);
  skip_undo(e);
}

static void finish_unheard(struct ring *r, struct event *e, int32_t res)
{
  r->in_flight--;
  ring_finish(r, e, res, 0, NULL);
}

/* The silent ones before it, in their order. */
static void finish_before(struct ring *r, struct event *e)
{
  struct event *first = e;
  while (before(first) != NULL && before(first)->flags & EVENT_SKIPS)
    first = before(first);
  while (first != e) {
    struct event *next = behind(first);
    finish_unheard(r, first, 0);
    first = next;
  }
}

void skip_conclude(struct ring *r, struct event *e)
{
  finish_before(r, e);
  if (e->flags & EVENT_SKIPS && !(e->flags & EVENT_HARD))
    while (behind(e) != NULL)
      finish_unheard(r, behind(e), -ECANCELED);
}

/* Where the kernel has no memory for the whole of a group it begins what it
** has, and the rest is a group of its own: there, nobody is silent any more.
** Nothing will tell when the silent ones of the first part have succeeded.
** They end with their ring, which takes what they lent for still lent.
*/
static void cut(struct ring *r, struct event *e, unsigned place)
{
  const struct io_uring_sq *sq = &r->io.sq;
  event_more(before(e))->behind = NULL;
  event_more(e)->before = NULL;
  for (; e != NULL; e = behind(e)) {
    e->flags &= ~EVENT_SKIPS;
    sq->sqes[place++ & sq->ring_mask].flags &=
        (uint8_t)~IOSQE_CQE_SKIP_SUCCESS;
  }
}

void skip_check_whole(struct ring *r)
{
  const struct io_uring_sq *sq = &r->io.sq;
  unsigned head = io_uring_smp_load_acquire(sq->khead);
  struct event *e;
  if (head == sq->sqe_tail)
    return;
  e = event_find(&r->events, sq->sqes[head & sq->ring_mask].user_data);
  if (e != NULL && e->flags & EVENT_GROUPED && before(e) != NULL)
    cut(r, e, head);
}
