/* The results of a multishot operation that nobody has taken yet: a circle
** that grows.
*/
#ifndef URING_RESULTS_H
#define URING_RESULTS_H

#include "outcome.h"

struct results {
  struct result *at; /* a circle of `size`, a power of two */
  unsigned size, head, count;
};

/* Room for the first few.  False: out of memory. */
bool results_open(struct core *core, struct results *rs);

/* False: out of memory, and nothing has changed. */
bool results_push(struct core *core, struct results *rs,
                  const struct result *one);

/* The oldest; there is one. */
static inline struct result *results_first(struct results *rs)
{
  return &rs->at[rs->head];
}

void results_pop(struct results *rs);

/* The memory; nothing is left in it. */
void results_close(struct core *core, struct results *rs);

#endif
