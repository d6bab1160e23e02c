/* skip_success: linked operations that post a completion only if they fail.
 */
#ifndef URING_SKIP_H
#define URING_SKIP_H

#include "ring.h"

struct request;

/* Is success all that there is to know of it, and does the kernel tell that
** from failure? */
bool skip_suits(const struct request *q);

/* The first `n` in the backlog are a group that goes into the SQ: decides who
** of them posts nothing. */
void skip_arrange(struct ring *r, unsigned n);

/* A member of such a group goes back to the backlog, or is withdrawn: it is
** not one any more. */
static inline void skip_undo(struct event *e)
{
  e->flags &= ~(EVENT_GROUPED | EVENT_HARD);
}

/* A member of such a group has posted a completion: ends those of whom there
** will be none. */
void skip_conclude(struct ring *r, struct event *e);

/* A member of such a group ends. */
void skip_leave(struct event *e);

/* The kernel has taken SQEs: has it stopped inside of such a group? */
void skip_check_whole(struct ring *r);

#endif
