/* What an operation came to, from its completion until Lua has it.
**
** The event slot is free again as soon as its terminal CQE has been seen, so
** the outcome moves out of it: into the task that waits, or into the handle.
** Whoever holds an outcome that is never delivered must drop it, because it
** may be a descriptor that nobody else knows of.
*/
#ifndef URING_OUTCOME_H
#define URING_OUTCOME_H

#include "core.h"

struct row;
struct aux;
struct block;

/* Bytes that the kernel put into buffers of a pool. */
enum data_shape {
  DATA_BUFFER,
  DATA_STRING,
  DATA_TABLE,
  DATA_REUSED, /* the same Buffer each time, that of the handle */
  DATA_NUMBER  /* of a buffer that is in no pool; Lua gets just that */
};

struct data {
  struct block *block; /* the first of them; NULL: there are none */
  uint32_t offset, size;
  uint8_t shape; /* enum data_shape: what Lua gets */
};

#define NO_DATA ((struct data){NULL, 0, 0, 0})

/* One CQE. */
struct result {
  int32_t res;
  uint32_t flags;
  struct data data;
};

/* What a result >= 0 stands for, that must not get lost. */
enum yields {
  YIELDS_NOTHING,
  YIELDS_FD,  /* a descriptor, to be closed */
  YIELDS_SLOT /* a slot of a ring, to be emptied */
};

enum outcome_state { OUTCOME_NONE, OUTCOME_READY, OUTCOME_DELIVERED };

struct outcome {
  const struct row *row;
  struct aux *aux;       /* what the kernel filled in besides the result */
  int32_t res;           /* cqe->res: >= 0 or -errno */
  uint32_t flags;        /* cqe->flags */
  uint8_t state;         /* enum outcome_state */
  bool wants_peer;       /* accept was asked for the peer's address */
  uint8_t yields;        /* enum yields */
  bool multishot;        /* one of many */
  bool expired;          /* it was the deadline that ended it */
  uint16_t control_room; /* before the data of a message in a pool's buffer */
  uint32_t ring;         /* the number of the ring it comes from */
  struct data data;
};

/* THE rule that interprets a result: an integer >= 0 and what the opcode
** adds, or nil, "subject: reason", errno.  Returns how many values it pushed.
** May raise for lack of memory; only when it returns is the outcome
** delivered.  What is attached stays, so it can be pushed again, but for data
** of a pool, which is handed out once. */
int outcome_push(lua_State *L, struct outcome *o);

/* Is it a timer whose time is up, which is no failure? */
bool outcome_is_expiry(const struct outcome *o);

/* Is it the end of a stream, which a multishot operation ends with? */
bool outcome_is_end(const struct outcome *o);

/* Frees what is attached; what an outcome yields that was never delivered is
** closed.  Idempotent. */
void outcome_drop(struct core *core, struct outcome *o);

/* Before another takes its place: one whose await ended for lack of memory may
** still hold something. */
static inline void outcome_clear(struct core *core, struct outcome *o)
{
  if (o->aux != NULL || o->state == OUTCOME_READY)
    outcome_drop(core, o);
}

/* Closes what one result yields, which nobody can be given.  Of `from`, only
** where it comes from and what it yields matters. */
void outcome_lose(struct core *core, const struct outcome *from, int32_t res);

#endif
