/* The kernel driver: a real ring, set up through liburing and entered by one
** system call.
*/
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "ring.h"
#include "timer.h"

/*
** Set-up
*/

/* Flags that a kernel may not know, newest first, in the order in which they
** are given up.  With DEFER_TASKRUN gone, COOP_TASKRUN takes its place. */
static const unsigned ladder[] = {
    URING_SETUP_NO_SQARRAY,     /* 6.6 */
    IORING_SETUP_DEFER_TASKRUN, /* 6.1 */
    IORING_SETUP_SINGLE_ISSUER, /* 6.0 */
    IORING_SETUP_TASKRUN_FLAG,  /* 5.19 */
    IORING_SETUP_COOP_TASKRUN,  /* 5.19 */
    IORING_SETUP_SUBMIT_ALL,    /* 5.18 */
};

/* The next rung down from `flags`; 0 when there is none. */
static unsigned next_rung(unsigned flags)
{
  for (size_t i = 0; i < sizeof ladder / sizeof *ladder; i++) {
    if (!(flags & ladder[i]))
      continue;
    flags &= ~ladder[i];
    if (ladder[i] == IORING_SETUP_DEFER_TASKRUN)
      flags |= IORING_SETUP_COOP_TASKRUN;
    return flags;
  }
  return 0;
}

static unsigned first_rung(const struct ring_options *o)
{
  unsigned flags = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER |
                   IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |
                   URING_SETUP_NO_SQARRAY;
  if (o->iopoll)
    flags |= IORING_SETUP_IOPOLL;
  if (o->attach != NULL)
    flags |= IORING_SETUP_ATTACH_WQ;
  if (!o->sqpoll) /* the SQ thread runs its task work by itself */
    return flags | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  flags |= IORING_SETUP_SQPOLL;
  return o->sq_thread_cpu >= 0 ? flags | IORING_SETUP_SQ_AFF : flags;
}

static int try_setup(struct ring *r, const struct ring_options *o,
                     unsigned entries, unsigned flags)
{
  struct io_uring_params p;
  memset(&p, 0, sizeof p);
  p.flags = flags;
  p.cq_entries = o->cq_entries ? o->cq_entries : entries * 4;
  if (p.cq_entries < entries)
    p.cq_entries = entries;
  p.wq_fd = o->attach ? (unsigned)o->attach->io.ring_fd : 0;
  p.sq_thread_idle = o->sq_thread_idle_ms;
  p.sq_thread_cpu = o->sq_thread_cpu >= 0 ? (unsigned)o->sq_thread_cpu : 0;
  return io_uring_queue_init_params(entries, &r->io, &p);
}

static int climb_down(struct ring *r, const struct ring_options *o)
{
  unsigned entries = o->entries, flags = first_rung(o);
  for (;;) {
    int rc = try_setup(r, o, entries, flags);
    if (rc == -EINVAL && next_rung(flags) != 0)
      flags = next_rung(flags);
    else if (rc == -ENOMEM && entries > 8)
      entries /= 2;
    else
      return rc;
  }
}

/* liburing fills the index array anew at each submit; the entries are used
** in order here, so once is enough. */
static void fill_index_array(struct io_uring_sq *sq)
{
  if (sq->array != NULL)
    for (unsigned i = 0; i < sq->ring_entries; i++)
      sq->array[i] = i;
}

static void probe(struct ring *r)
{
  struct io_uring_probe *p = io_uring_get_probe_ring(&r->io);
  memset(r->supported, 0, sizeof r->supported);
  if (p == NULL)
    return;
  for (unsigned op = 0; op < p->ops_len; op++)
    if (p->ops[op].flags & IO_URING_OP_SUPPORTED)
      r->supported[op / 8] |= (uint8_t)(1u << (op % 8));
  io_uring_free_probe(p);
}

/* With a standard stream closed the ring would take its number, and what the
** program prints would go into the ring.  Where there is no other number to
** be had it stays. */
static void keep_off_standard_streams(struct io_uring *io)
{
  int fd;
  if (io->ring_fd > STDERR_FILENO)
    return;
  fd = fcntl(io->ring_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  if (fd < 0)
    return;
  close(io->ring_fd);
  io->ring_fd = io->enter_ring_fd = fd;
}

static int kernel_open(struct ring *r, const struct ring_options *o)
{
  const unsigned needed =
      IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_EXT_ARG;
  int rc;
  if (o->attach != NULL && o->attach->state != RING_OPEN)
    return -EBADF; /* a finaliser has closed it since it was named */
  rc = climb_down(r, o);
  if (rc < 0)
    return rc;
  if ((r->io.features & needed) != needed)
    rc = -ENOSYS;
  if (rc == 0)
    rc = io_uring_ring_dontfork(&r->io);
  if (rc < 0) {
    io_uring_queue_exit(&r->io);
    return rc;
  }
  keep_off_standard_streams(&r->io);
  fill_index_array(&r->io.sq);
  probe(r);
  r->lacks_bundles = !(r->io.features & URING_FEAT_BUNDLE);
  return 0;
}

/*
** The registered descriptor.  It is a number in a table of the thread's, and
** in another thread another ring's: there the descriptor itself is used.
*/

/* Differs from thread to thread. */
static const void *this_thread(void)
{
  static _Thread_local char here;
  return &here;
}

int driver_register_fd(struct ring *r)
{
  int rc;
  if (r->registrar != NULL)
    return 0;
  rc = io_uring_register_ring_fd(&r->io);
  if (rc < 0)
    return rc;
  r->registrar = this_thread();
  return 0;
}

int driver_unregister_fd(struct ring *r)
{
  int rc = r->registrar != NULL ? io_uring_unregister_ring_fd(&r->io) : 0;
  if (rc < 0)
    return rc;
  r->registrar = NULL;
  return 0;
}

/*
** Entering
*/

/* With an SQ thread there is nothing to enter for unless it sleeps.  The
** fence makes the new tail visible before the flag is read; without it both
** sides can miss each other (liburing, sq_ring_needs_enter). */
static bool submit_needs_enter(const struct ring *r, unsigned to_submit,
                               unsigned *flags)
{
  if (to_submit == 0 || !(r->io.flags & IORING_SETUP_SQPOLL))
    return to_submit > 0;
  io_uring_smp_mb();
  if (!(IO_URING_READ_ONCE(*r->io.sq.kflags) & IORING_SQ_NEED_WAKEUP))
    return false;
  *flags |= IORING_ENTER_SQ_WAKEUP;
  return true;
}

/* Completions that only an enter brings into the CQ: those that did not fit,
** those whose task work is deferred, and those that are polled for. */
static bool cq_needs_enter(struct ring *r)
{
  unsigned kflags = IO_URING_READ_ONCE(*r->io.sq.kflags);
  if (kflags & IORING_SQ_CQ_OVERFLOW)
    r->stats.overflowed++;
  return kflags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN) ||
         (r->in_flight > 0 && ring_is_polled(r));
}

static int kernel_enter(struct ring *r, unsigned to_submit,
                        unsigned min_complete, unsigned flags,
                        uint64_t deadline_ns)
{
  struct __kernel_timespec ts;
  struct io_uring_getevents_arg arg;
  int fd = r->io.ring_fd;
  bool submits = submit_needs_enter(r, to_submit, &flags);
  bool wakes = (flags & (IORING_ENTER_SQ_WAKEUP | IORING_ENTER_SQ_WAIT)) != 0;
  bool gets = (flags & IORING_ENTER_GETEVENTS) &&
              (cq_needs_enter(r) || min_complete > 0);
  if (!submits && !wakes && !gets)
    return (int)to_submit;
  /* a kernel that polls looks at no clock: once round, and the caller does */
  if (ring_is_polled(r) && deadline_ns != UINT64_MAX)
    min_complete = 0;
  memset(&arg, 0, sizeof arg);
  if (min_complete > 0 && deadline_ns != UINT64_MAX) {
    uint64_t now = now_ns();
    uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
    ts.tv_sec = (int64_t)(left / 1000000000u);
    ts.tv_nsec = (long long)(left % 1000000000u);
    arg.ts = (uint64_t)(uintptr_t)&ts;
  }
  flags |= IORING_ENTER_EXT_ARG;
  if (r->registrar != NULL && r->registrar == this_thread()) {
    fd = r->io.enter_ring_fd;
    flags |= IORING_ENTER_REGISTERED_RING;
  }
  r->stats.enters++;
  /* liburing's wrapper types its argument as a signal mask */
  return io_uring_enter2((unsigned)fd, to_submit, min_complete, flags,
                         (sigset_t *)(void *)&arg, sizeof arg);
}

static void kernel_close(struct ring *r)
{
  io_uring_queue_exit(&r->io);
}

static void kernel_forget(struct ring *r)
{
  close(r->io.ring_fd);
}

const struct driver driver_kernel = {"kernel", kernel_open, kernel_enter,
                                     kernel_close, kernel_forget};
