/* What the files of the ring share: ring.c (completing, steps, opening),
** ring_queue.c, ring_cancel.c and ring_close.c; skip.c and message.c.  Nobody
** else includes this.
*/
#ifndef URING_RING_PARTS_H
#define URING_RING_PARTS_H

#include "ring.h"

/* Does the ring belong to the process that this one was forked from? */
static inline bool ring_is_foreign(const struct ring *r)
{
  return r->epoch != *r->core->epoch;
}

/* The next free SQE, NULL when the SQ is full. */
struct io_uring_sqe *queue_next_sqe(struct ring *r);

/* The SQE of an event that is in the SQ and not published. */
struct io_uring_sqe *queue_unpublished(struct ring *r, const struct event *e);

/* The SQE at place `i` of the backlog. */
static inline struct io_uring_sqe *backlog_at(const struct backlog *b,
                                              unsigned i)
{
  return &b->sqes[(b->head + i) & (b->size - 1)];
}

/* How many SQEs the SQ has room for. */
unsigned queue_room(const struct ring *r);

/* Shows the kernel what is queued.  Returns how many SQEs it has not taken;
** those of an earlier enter that failed are among them. */
unsigned queue_publish(struct ring *r);

/* Moves what waits into the SQ.  False: not all that could go had room. */
bool queue_refill(lua_State *L, struct ring *r);

/* The event's cancel request is to be made with the next refill, or not. */
void cancel_due(struct ring *r, struct event *e);
void cancel_not_due(struct ring *r, struct event *e);

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

/* Moves what the event came to out of it. */
void ring_settle(struct ring *r, struct outcome *o, struct event *e,
                 int32_t res, uint32_t flags);

/* The event is terminal: gives back what it lent, moves its outcome to
** whoever waits, frees the slot. */
void ring_finish(lua_State *L, struct ring *r, struct event *e, int32_t res,
                 uint32_t flags);

#endif
