/* The ring: the queues, the order in which SQEs reach them, the reaping of
** CQEs, and the end of it all.
**
** SQEs go, in order, into the SQ and past its end into a bounded backlog.
** Cancel requests need no room of their own to wait in: the events they aim at
** are linked, and get their SQEs before the backlog does.
*/
#ifndef URING_RING_H
#define URING_RING_H

#include "driver.h"
#include "event.h"

struct ring_options {
  unsigned entries, cq_entries; /* cq_entries 0: four times the SQ */
  unsigned backlog;             /* SQEs that may wait outside the SQ */
  bool sqpoll, iopoll;
  const struct ring *attach; /* whose threads it shares, or NULL */
  unsigned sq_thread_idle_ms;
  int sq_thread_cpu;        /* -1: not pinned */
  lua_Number drain_timeout; /* seconds that close waits for loans */
  const struct driver *driver;
  uint8_t without[32]; /* opcodes to treat as missing, a bit each */
  uint64_t without_multishot;
  bool without_bundles, without_incremental;
  /* for the fault driver */
  lua_Integer fault_seed;
  lua_Number fault_rate;
  int fault_errno;
};

/* Everything counted.  Totals, but for bytes_lent. */
struct ring_stats {
  uint64_t prepared, completed, cancelled, orphaned, overflowed, unknown;
  uint64_t enters;
  uint64_t rearmed;    /* times that an operation was queued again */
  uint64_t bytes_lent; /* now */
  uint64_t leaked;     /* bytes left to the kernel when the ring closed */
};

enum ring_state {
  RING_OPEN,
  RING_LINGERING, /* dropped; its last operations are still in the kernel */
  RING_CLOSED     /* the queues are gone; the counters remain */
};

struct pool;
struct provision;

struct backlog {
  struct io_uring_sqe *sqes; /* a circle of `size`, a power of two */
  unsigned size, head, count, limit;
};

/* Receives that are handed over behind all else of their turn, see
** ring_queue_behind. */
struct behind {
  struct io_uring_sqe *sqes;
  unsigned size, count;
};

/* A Buffer's range, as it is registered with the kernel. */
struct registered {
  struct block *block;
  size_t offset, size;
};

/* Registered ranges by where they begin. */
struct registered_start {
  uintptr_t address;
  uint16_t index;    /* of this range */
  uint16_t farthest; /* of the one, up to here, that ends last */
};

struct ring {
  struct io_uring io;
  const struct driver *driver;
  void *driver_state;
  struct core *core;
  struct ring *next; /* in core->rings */
  uint32_t number;   /* no other ring of the core has had it */
  unsigned epoch;    /* of the process that may use it */
  pid_t pid;
  uint8_t state; /* enum ring_state */
  bool draining; /* a drained operation is under way */
  bool linking;  /* the newest operation is linked to the one to come */
  struct event_table events;
  const void *registrar; /* the thread that registered its descriptor */
  int bell; /* eventfd that completions ring, -1: none yet; see ring_bell */
  struct backlog backlog;
  struct behind behind;
  uint64_t queued;            /* SQEs put into the SQ so far */
  uint64_t published;         /* of those, visible to the kernel */
  unsigned unpublished;       /* events among those not yet published */
  unsigned in_flight;         /* events published and not terminal */
  struct event_list cancels;  /* events whose cancel request is due */
  struct event_list waking;   /* resting ones, to be queued again */
  unsigned resting;           /* events that are to be queued again, */
  unsigned starving;          /* those of them that wait for a buffer */
  unsigned requests;          /* cancel requests that have not ended */
  unsigned timed;             /* events with a deadline that is to come */
  unsigned retries;           /* events whose cancel is asked again, */
  uint64_t retry_at;          /* and when */
  unsigned withdrawn;         /* how many in the backlog will never start */
  struct event *receiver;     /* of messages, or NULL */
  struct queue space;         /* tasks that wait for room in the backlog */
  struct registered *buffers; /* by index */
  struct registered_start *starts;
  unsigned nbuffers;
  struct pool *pools;
  struct provision *provisions; /* newest first */
  bool lacks_bundles, has_incremental, lacks_incremental;
  lua_Number drain_timeout;
  uint8_t supported[32]; /* a bit for each opcode of the kernel */
  /* opcodes seen to be done as multishot, seen not to be, and those that are
  ** made to be refused; see multishot.h */
  uint64_t multishot_proven, multishot_lacking, multishot_spoilt;
  bool spoils_incremental;
  struct ring_stats stats;
};

#define RING_TYPE "uring.ring"

/* Either way of being linked to the next SQE. */
#define SQE_LINKS (IOSQE_IO_LINK | IOSQE_IO_HARDLINK)

/* Opens a ring and links it into the core.  NULL with *err = -errno. */
struct ring *ring_open(lua_State *L, struct core *core,
                       const struct ring_options *options, int *err);

void ring_default_options(struct ring_options *options);

/* Is the event's SQE in the kernel's hands?  A receiver has none to wait for.
 */
static inline bool ring_published(const struct ring *r, const struct event *e)
{
  return e->flags & EVENT_RECEIVES ||
         (!(e->flags & EVENT_BACKLOG) && e->order < r->published);
}

/* Are completions found by polling the devices, which only an enter does? */
static inline bool ring_is_polled(const struct ring *r)
{
  return (r->io.flags & (IORING_SETUP_IOPOLL | IORING_SETUP_SQPOLL)) ==
         IORING_SETUP_IOPOLL;
}

static inline bool ring_supports(const struct ring *r, uint8_t opcode)
{
  return r->supported[opcode / 8] >> (opcode % 8) & 1;
}

/* May one more operation be prepared, or is the backlog at its bound?  What a
** group waits for to be complete always may: no longer than the SQ, it adds a
** bounded number. */
static inline bool ring_has_room(const struct ring *r)
{
  return r->backlog.count < r->backlog.limit || r->linking;
}

/* Must somebody new wait for room?  Also while others do: in order. */
static inline bool ring_is_crowded(const struct ring *r)
{
  return !ring_has_room(r) || (!queue_empty(&r->space) && !r->linking);
}

/* Queues an SQE for an event whose loans are made.  The caller has asked
** ring_reserve, so this cannot fail. */
void ring_queue(struct ring *r, struct event *e,
                const struct io_uring_sqe *sqe);

/* The same for a receive, which need not be handed over before what is sent in
** the same turn: it often waits for just that, and where that is there already
** the kernel has nothing to poll for.  Nothing but sends goes in front of
** it. */
void ring_queue_behind(struct ring *r, struct event *e,
                       const struct io_uring_sqe *sqe);

/* Receives of before go in front of all that is queued from now on, sends
** included: no receive comes between operations that are linked. */
void ring_catch_up(struct ring *r);

/* Makes sure that the next ring_queue has a place; false: out of memory. */
bool ring_grow_backlog(struct ring *r);

static inline bool ring_reserve(struct ring *r)
{
  return r->backlog.count < r->backlog.size || ring_grow_backlog(r);
}

/* core_home, where nothing has to be done. */
static inline struct ring *ring_home(lua_State *L, struct core *core)
{
  struct ring *r = core->home;
  if (r != NULL && r->state == RING_OPEN && r->epoch == *core->epoch)
    return r;
  return core_home(L, core);
}

/* Links prepared operations, each to the next: every one starts when the one
** before it has succeeded (`hard`: has ended).  They must be prepared and not
** submitted, and in the order of preparation without others between them.
** NULL, or why they cannot be linked. */
const char *ring_link(struct ring *r, struct event *const events[],
                      unsigned count, bool hard);

/* Could the group that is being linked never be handed over as a whole? */
bool ring_group_is_full(const struct ring *r);

/* Is a drained operation under way, or next?  It waits for all before it. */
bool ring_drains(const struct ring *r);

/* Asks the kernel to cancel the event.  An event that it has not seen is
** withdrawn and never will be seen.  The outcome comes as any other. */
void ring_cancel(struct ring *r, struct event *e);

/* Gives the operation a deadline, for which timer_reserve made room; takes
** one from it; and the deadline whose timer this is has come. */
void ring_limit(struct ring *r, struct event *e, uint64_t deadline_ns);
void ring_unlimit(struct ring *r, struct event *e);
void ring_expire(struct core *core, struct timer *t);

/* Is there a buffer for one that waits for it? */
bool again_can_wake(const struct ring *r);

/* Cancels the resting ones on a descriptor (-1: any); are there some? */
bool again_cancel_fd(struct ring *r, int fd, bool fixed);

/* A buffer has come back: whoever has waited longest for one tries again. */
void again_wake_for_buffer(struct pool *pool);

/* Buffers may be there that those who were woken have not taken. */
void again_look_for_buffers(struct ring *r);

/* A resting event is queued again with the next refill; all of a list. */
void again_wake(struct ring *r, struct event *e);
void again_wake_all(struct ring *r, struct event_list *list);

/* So many of its results are unread. */
void again_caught_up(struct ring *r, struct event *e, unsigned unread);

/* Does the kernel not know it as multishot?  Then it is done one by one. */
bool again_lacks_multishot(const struct ring *r, const struct event *e);
void again_make_single(struct event *e, struct io_uring_sqe *sqe);

/* Nobody will ask for this event's outcome: an orphan, cancelled. */
void ring_orphan(struct ring *r, struct event *e);

/* Publishes what is queued and hands it over; reaps nothing.  Returns how
** many SQEs the kernel took or -errno. */
int ring_submit(struct ring *r);

/* Is this what enter says when nothing is wrong with the ring? */
bool ring_is_passing(int rc);

/* One step: one enter that submits and, if `wait`, waits for a completion or
** the deadline; then the batch is reaped and the SQ refilled.  Nothing of the
** user's runs.  Returns 0 or -errno where the ring is broken; EINTR, EAGAIN,
** EBUSY and ETIME are no errors of the ring. */
int ring_step(struct ring *r, bool wait, uint64_t deadline_ns);

/* A descriptor that becomes readable when there is something to reap, for a
** loop that is not this ring's own; -errno.  The ring's own descriptor will
** not do: polling it misses completions whose task work is deferred.  A step
** silences it. */
int ring_bell(struct ring *r);

/* Has the ring SQEs that the kernel could be handed now? */
bool ring_has_unsent(const struct ring *r);

/* Rings the bell: the ring wants another step. */
void ring_ring_bell(const struct ring *r);

/* Is there nothing in this ring that could ever complete? */
bool ring_idle(const struct ring *r);

/* Would a step that does not wait find nothing at all to do? */
bool ring_is_still(const struct ring *r);

/* Cancels everything and reaps until the kernel has nothing of ours or
** drain_timeout seconds have gone by; then frees the queues.  Blocks lent
** past that are leaked and counted; a lent string is waited for. */
void ring_close(lua_State *L, struct ring *r);

/* The userdata was dropped: as ring_close, but without waiting.  What is
** still in flight lingers until ring_reap_lingering finds it quiet. */
void ring_drop(lua_State *L, struct ring *r);
void ring_reap_lingering(lua_State *L, struct core *core);

/* Frees a closed ring. */
void ring_free(lua_State *L, struct ring *r);

#endif
