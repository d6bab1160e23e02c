/* The seam between the core and whatever consumes SQEs and fills CQEs.
**
** Its language is io_uring's own: the queues of `struct io_uring`.  The rest
** of the core reads and writes the queues and calls `enter`; nothing else in
** the library knows that there is a kernel.
*/
#ifndef URING_DRIVER_H
#define URING_DRIVER_H

#include "core.h"

struct ring;
struct ring_options;

struct driver {
  const char *name;

  /* Sets up ring->io.  Returns 0 or -errno. */
  int (*open)(struct ring *ring, const struct ring_options *options);

  /* Hands over the SQEs between the SQ's head and tail, at most `to_submit`,
  ** and waits until `min_complete` CQEs are there or the clock has reached
  ** `deadline_ns` (UINT64_MAX: no deadline).  Returns how many SQEs it took,
  ** or -errno; -ETIME and -EINTR mean that it took none and the wait ended
  ** early.  SQEs not taken stay in the SQ.
  ** `flags` are what is asked of io_uring_enter: without GETEVENTS it does
  ** not wait and brings nothing into the CQ.  What else the call needs, the
  ** driver adds. */
  int (*enter)(struct ring *ring, unsigned to_submit, unsigned min_complete,
               unsigned flags, uint64_t deadline_ns);

  void (*close)(struct ring *ring);

  /* Lets go of what a child of fork inherited, which is not the queues. */
  void (*forget)(struct ring *ring);
};

/* Registers the ring's descriptor with the kernel for the calling thread, or
** undoes it; both may be called again.  0 or -errno. */
int driver_register_fd(struct ring *ring);
int driver_unregister_fd(struct ring *ring);

extern const struct driver driver_kernel;
extern const struct driver driver_fault;

/* NULL where there is no driver of that name. */
const struct driver *driver_find(const char *name);

#endif
