/* The event table: one slot for every operation that is prepared or in
** flight.  The slot owns what the kernel may touch.
**
** A slot is found by its user_data, which is slot and generation and never a
** pointer (4.6): a completion or a cancel request that comes late names a
** generation that is gone, and hits nothing.
**
** States.  FREE -> QUEUED (its SQE waits in the SQ or in the backlog; it may
** be published already, see ring_published) -> FREE at the terminal CQE.
** What it came to moves into `task` or `op`; with neither it is an orphan
** and its outcome is dropped.
*/
#ifndef URING_EVENT_H
#define URING_EVENT_H

#include "buffer.h"
#include "outcome.h"
#include "timer.h"

struct pool;
struct ring;
struct task;
struct operation;

/* Memory that the kernel reads or fills besides the data itself.  Allocated
** only for the rows that need it. */
struct aux {
  size_t footprint; /* bytes allocated: this and the vectors behind it */
  union {
    struct statx statx;
    struct __kernel_timespec time;
    struct msghdr msg;
  };
  struct sockaddr_storage addr;
  socklen_t addr_len;
  unsigned nvec;
  struct iovec *iov;  /* nvec of each, behind this struct */
  struct loan *loans; /* a loan whose block is NULL lends a string */
};

enum event_flags {
  EVENT_USED = 1,           /* not FREE */
  EVENT_BACKLOG = 2,        /* its SQE waits in the backlog */
  EVENT_CANCELLING = 4,     /* a cancel request has been made */
  EVENT_WITHDRAWN = 8,      /* the kernel never sees it: ends as ECANCELED */
  EVENT_ANCHORED = 16,      /* a Lua value is kept for it */
  EVENT_CANCEL_DUE = 32,    /* stands in the ring's list of cancels */
  EVENT_PEER = 64,          /* see outcome.wants_peer */
  EVENT_RESULT = 128,       /* the result is known before the terminal CQE */
  EVENT_YIELDS_FD = 256,    /* a result >= 0 is a new descriptor */
  EVENT_LENDS = 512,        /* there is something to give back */
  EVENT_DRAIN = 1024,       /* starts when all before it have ended */
  EVENT_RETRY = 2048,       /* its cancel request came to nothing */
  EVENT_ZERO_COPY = 4096,   /* the result first, the memory at the last CQE */
  EVENT_SELECTS = 8192,     /* takes buffers of a pool */
  EVENT_AGAIN = 16384,      /* may be queued again, see ring_again.c */
  EVENT_RESTING = 32768,    /* is in nobody's hands until then */
  EVENT_STARVING = 65536,   /* waits for a buffer of its pool */
  EVENT_WAKING = 1 << 17,   /* is queued again with the next refill */
  EVENT_PAUSING = 1 << 18,  /* its cancel request is the library's own */
  EVENT_SINGLE = 1 << 19,   /* multishot done one by one */
  EVENT_COPY = 1 << 20,     /* data as a string */
  EVENT_BUNDLE = 1 << 21,   /* data of several buffers */
  EVENT_REUSE = 1 << 22,    /* data in one Buffer, which is used again */
  EVENT_LINKED = 1 << 23,   /* to the next: it does not go on */
  EVENT_DIRECT = 1 << 24,   /* a result >= 0 is a slot, see direct.h */
  EVENT_SKIPS = 1 << 25,    /* posts nothing if it succeeds, see skip.c */
  EVENT_GROUPED = 1 << 26,  /* such ones are in its group of linked ones */
  EVENT_HARD = 1 << 27,     /* and its link to the next is hard */
  EVENT_RECEIVES = 1 << 28, /* is the ring's receiver, see message.h */
  EVENT_LOST = 1 << 29,     /* there was no memory for one of its results */
  EVENT_EXPIRED = 1 << 30   /* its time is up: ends as ETIMEDOUT */
};

/* What an operation that goes on is made of, and the pool it takes from. */
struct again {
  struct io_uring_sqe *sqe; /* with EVENT_AGAIN */
  struct pool *pool;        /* NULL: the group is none of a Pool */
  uint16_t group;           /* that the kernel knows */
  bool counted;             /* of a timer: it fires so often, */
  uint32_t left;            /* and that is what is left of it */
};

struct event_list {
  struct event *head, *tail;
};

/* Two cache lines, since every operation touches it, and an idle connection is
** one that waits. */
struct event {
  uint32_t slot, generation;
  struct task *task;    /* who is resumed with the outcome, or NULL */
  struct operation *op; /* the handle that gets it, or NULL */
  const struct row *row;
  struct aux *aux;
  uint64_t order;            /* which of all SQEs put into the SQ it is */
  struct event *next, *prev; /* in the list that it is in */
  uint32_t flags;
  int fd;
  union {
    int32_t res; /* with EVENT_RESULT: the result */
    int place;   /* with EVENT_DIRECT: the slot that was asked for, or -1 */
  };
  uint32_t string_bytes; /* of Lua strings lent; UINT32_MAX: or more */
  union {
    struct loan loan;   /* with EVENT_LENDS */
    struct again again; /* with EVENT_SELECTS or EVENT_AGAIN */
  };
};

_Static_assert(sizeof(struct event) <= 128, "two cache lines");

/* What few operations have besides. */
struct event_more {
  struct event *event;           /* whose it is */
  struct event *before, *behind; /* with EVENT_GROUPED, or NULL */
  struct timer timer; /* armed, where the operation has a deadline */
  uint32_t ring;      /* the number of its ring, then */
};

/* Those that use `again` lend no range of a Buffer. */
#define EVENT_SHARES_LOAN (EVENT_SELECTS | EVENT_AGAIN)

#define EVENT_CHUNK 128u

struct event_chunk {
  struct event events[EVENT_CHUNK];
  struct event_more *more; /* one each; NULL: nobody has needed any */
  lua_State *anchors;      /* whose stack keeps a Lua value for each */
};

struct event_table {
  struct event_chunk **chunks;
  unsigned nchunks;
  struct event *free;
  struct io_uring_sqe *spare; /* of operations that went on, linked by
                                 user_data */
  unsigned used;              /* slots not FREE */
  int anchors; /* registry reference: what keeps those of the chunks */
};

/* user_data of nothing there is. */
#define USER_DATA_NONE UINT64_MAX

/* The user_data of a cancel request is its target's with this bit, which no
** slot has. */
#define USER_DATA_CANCEL ((uint64_t)1 << 31)

static inline uint64_t event_user_data(const struct event *e)
{
  return (uint64_t)e->generation << 32 | e->slot;
}

/* The live event of a user_data, NULL if its generation is gone. */
static inline struct event *event_find(const struct event_table *t,
                                       uint64_t user_data)
{
  uint32_t slot = (uint32_t)user_data;
  struct event *e;
  if (slot / EVENT_CHUNK >= t->nchunks)
    return NULL;
  e = &t->chunks[slot / EVENT_CHUNK]->events[slot % EVENT_CHUNK];
  if (e->generation != (uint32_t)(user_data >> 32) || !e->flags)
    return NULL;
  return e;
}

static inline struct event_chunk *event_chunk_of(const struct event *e)
{
  return (struct event_chunk *)(uintptr_t)(e - e->slot % EVENT_CHUNK);
}

/* What it has besides, NULL if event_reserve_more was never asked. */
static inline struct event_more *event_more(const struct event *e)
{
  const struct event_chunk *chunk = event_chunk_of(e);
  return chunk->more != NULL ? &chunk->more[e->slot % EVENT_CHUNK] : NULL;
}

/* Another string is lent. */
static inline void event_add_string(struct event *e, size_t size)
{
  const uint32_t room = UINT32_MAX - e->string_bytes;
  e->string_bytes += size < room ? (uint32_t)size : room;
}

static inline uint8_t event_yields(uint32_t flags)
{
  return flags & EVENT_DIRECT      ? YIELDS_SLOT
         : flags & EVENT_YIELDS_FD ? YIELDS_FD
                                   : YIELDS_NOTHING;
}

static inline uint8_t event_data_shape(uint32_t flags)
{
  return flags & EVENT_COPY     ? DATA_STRING
         : flags & EVENT_REUSE  ? DATA_REUSED
         : flags & EVENT_BUNDLE ? DATA_TABLE
                                : DATA_BUFFER;
}

/* The operation's name, as messages have it. */
const char *event_name(const struct event *e);

/* May raise for lack of memory. */
void event_table_open(lua_State *L, struct event_table *t);
void event_table_close(lua_State *L, struct core *core, struct event_table *t);

/* A fresh slot, NULL for lack of C memory; may raise for lack of Lua memory.
** Either way the table is as it was. */
struct event *event_new(lua_State *L, struct ring *ring);

/* Makes sure of event_more, or of again.sqe; false: for lack of memory there is
** none. */
bool event_reserve_more(struct core *core, struct event *e);
bool event_reserve_again(struct ring *ring, struct event *e);

/* Keeps the Lua value on the top of the stack until the event gives back;
** pops it.  Cannot raise: its place exists since the slot does. */
void event_anchor(lua_State *L, struct event *e);

/* Gives back everything lent to the kernel.  The terminal CQE has been seen,
** or the kernel never saw the event. */
void event_give_back(struct ring *ring, struct event *e);

/* Frees the slot.  Loans are given back and the outcome has moved out. */
void event_free(struct ring *ring, struct event *e);

void event_list_add(struct event_list *list, struct event *e);
void event_list_remove(struct event_list *list, struct event *e);

/* Allocates what the kernel touches besides the data: an aux with room for
** `nvec` vectors.  NULL for lack of memory. */
struct aux *aux_new(struct core *core, unsigned nvec);
void aux_free(struct core *core, struct aux *aux);

/* Calls `visit` for every event in use. */
void event_each(struct event_table *t,
                void (*visit)(struct event *e, void *arg), void *arg);

#endif
