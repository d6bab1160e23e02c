/* The fault driver: stands before the kernel driver and, from a seed, fails
** or shortens what passes.  For specs: whatever it does, no operation may be
** lost and no loan may end early.
*/
#include <errno.h>
#include <string.h>

#include "ring.h"

struct fault {
  uint64_t state; /* of the generator */
  uint64_t rate;  /* out of 2^32: how often enter is disturbed */
  int error;      /* the errno to fail with, 0 for any of the harmless */
};

/* xorshift64*: small, seedable, the same everywhere. */
static uint32_t draw(struct fault *f)
{
  f->state ^= f->state >> 12;
  f->state ^= f->state << 25;
  f->state ^= f->state >> 27;
  return (uint32_t)((f->state * 0x2545F4914F6CDD1Du) >> 32);
}

static int fault_open(struct ring *r, const struct ring_options *o)
{
  struct fault *f = mem_alloc(r->core, sizeof *f);
  int rc;
  if (f == NULL)
    return -ENOMEM;
  f->state = (uint64_t)o->fault_seed * 2 + 1; /* never 0 */
  f->rate = (uint64_t)(o->fault_rate * 4294967296.0);
  f->error = o->fault_errno;
  rc = driver_kernel.open(r, o);
  if (rc < 0)
    mem_free(r->core, f, sizeof *f);
  else
    r->driver_state = f;
  return rc;
}

static int fault_enter(struct ring *r, unsigned to_submit,
                       unsigned min_complete, unsigned flags,
                       uint64_t deadline_ns)
{
  static const int harmless[] = {EINTR, EAGAIN, EBUSY};
  struct fault *f = r->driver_state;
  if (draw(f) < f->rate) {
    if (f->error != 0)
      return -f->error;
    if (draw(f) & 1)
      return -harmless[draw(f) % 3];
    if (to_submit > 1) /* take fewer, and do not wait for what is not there */
      return driver_kernel.enter(r, 1 + draw(f) % (to_submit - 1), 0, flags,
                                 deadline_ns);
  }
  return driver_kernel.enter(r, to_submit, min_complete, flags, deadline_ns);
}

static void fault_close(struct ring *r)
{
  driver_kernel.close(r);
  mem_free(r->core, r->driver_state, sizeof(struct fault));
  r->driver_state = NULL;
}

static void fault_forget(struct ring *r)
{
  driver_kernel.forget(r);
  mem_free(r->core, r->driver_state, sizeof(struct fault));
  r->driver_state = NULL;
}

const struct driver driver_fault = {"fault", fault_open, fault_enter,
                                    fault_close, fault_forget};

const struct driver *driver_find(const char *name)
{
  static const struct driver *const drivers[] = {&driver_kernel,
                                                 &driver_fault};
  for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++)
    if (strcmp(drivers[i]->name, name) == 0)
      return drivers[i];
  return NULL;
}
