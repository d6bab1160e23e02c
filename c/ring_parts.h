/* What the files of the ring share: ring.c (completing, steps, opening),
** ring_queue.c, ring_cancel.c, ring_again.c, ring_close.c and ring_hand.c;
** skip.c and message.c.  Nobody else includes this.
*/
#ifndef URING_RING_PARTS_H
#define URING_RING_PARTS_H

#include "operation.h"
#include "ring.h"

/* Does the ring belong to the process that this one was forked from? */
static inline bool ring_is_foreign(const struct ring *r)
{
  return r->epoch != *r->core->epoch;
}

/* How many CQEs are in the CQ. */
static inline unsigned ring_cq_ready(const struct ring *r)
{
  return io_uring_smp_load_acquire(r->io.cq.ktail) - *r->io.cq.khead;
}

/* Enters, and has done what is needed for completions to be in the CQ. */
static inline int ring_enter(struct ring *r, unsigned to_submit,
                             unsigned min_complete, uint64_t deadline_ns)
{
  return r->driver->enter(r, to_submit, min_complete, IORING_ENTER_GETEVENTS,
                          deadline_ns);
}

/* Takes at most `most` CQEs, oldest first, and gives each to its event.
** Nobody is resumed.  Returns how many there were. */
unsigned ring_reap(struct ring *r, unsigned most);

/* Silences the bell, unless there is still something to reap. */
void ring_silence_bell(const struct ring *r);

/* The next free SQE, NULL when the SQ is full. */
struct io_uring_sqe *queue_next_sqe(struct ring *r);

/* The `order` of events whose SQEs are behind, the first one's. */
#define ORDER_BEHIND (UINT64_MAX - UINT32_MAX)

/* The SQE of an event that is not published nor in the backlog. */
struct io_uring_sqe *queue_unpublished(struct ring *r, const struct event *e);

/* The SQE at place `i` of the backlog. */
static inline struct io_uring_sqe *backlog_at(const struct backlog *b,
                                              unsigned i)
{
  return &b->sqes[(b->head + i) & (b->size - 1)];
}

/* How many SQEs the SQ has room for, besides those that are behind. */
unsigned queue_room(const struct ring *r);

/* Puts an SQE into the SQ; there is room. */
void queue_put(struct ring *r, struct event *e,
               const struct io_uring_sqe *sqe);

/* Shows the kernel what is queued.  Returns how many SQEs it has not taken;
** those of an earlier enter that failed are among them. */
unsigned queue_publish(struct ring *r);

/* Moves what waits into the SQ.  False: not all that could go had room. */
bool queue_refill(struct ring *r);

/* The event's cancel request is to be made with the next refill; no request
** is to be made for it any more. */
void cancel_due(struct ring *r, struct event *e);
void cancel_settled(struct ring *r, struct event *e);

/* Makes those that are due, first of all, since what they aim at is older
** than anything in the backlog.  False: the SQ has no room for all. */
bool cancel_refill(struct ring *r);

/* Is this the user_data of a cancel request that is under way? */
bool cancel_is_request(const struct ring *r, uint64_t user_data);

/* A cancel request has ended. */
void cancel_ended(struct ring *r, uint64_t user_data, int32_t res);

/* Makes the cancel requests that are to be repeated due, when it is time.
** Returns the deadline of the step. */
uint64_t cancel_retry(struct ring *r, uint64_t deadline_ns);

/* Moves what the event came to out of it; `data` may be NULL. */
void ring_settle(struct ring *r, struct outcome *o, struct event *e,
                 int32_t res, uint32_t flags, const struct data *data);

/* The event is terminal: gives back what it lent, moves its outcome to
** whoever waits, frees the slot. */
void ring_finish(struct ring *r, struct event *e, int32_t res, uint32_t flags,
                 const struct data *data);

/* A result that nobody can be given: what it brought is let go of. */
void ring_lose(const struct ring *r, const struct event *e,
               const struct result *one);

/* Operations that go on, see ring_again.c.  The terminal CQE of an event with
** EVENT_AGAIN has come: false where that is its end. */
bool again_goes_on(struct ring *r, struct event *e, const struct result *one);

/* Queues those that were woken, before all that has not started yet.  False:
** the SQ has no room for all. */
bool again_refill(struct ring *r);

/* Results come faster than they are taken. */
void again_pause(struct ring *r, struct event *e);

/* The event ends where it rests. */
void again_leave(struct ring *r, struct event *e);

/* A timer that fires so often has done so once more. */
void again_fired(struct event *e);

/* The kernel knows it as multishot. */
void again_proven(struct ring *r, const struct event *e);

#endif
