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

enum outcome_state { OUTCOME_NONE, OUTCOME_READY, OUTCOME_DELIVERED };

struct outcome {
  const struct row *row;
  struct aux *aux; /* what the kernel filled in besides the result */
  int32_t res;     /* cqe->res: >= 0 or -errno */
  uint32_t flags;  /* cqe->flags */
  uint8_t state;   /* enum outcome_state */
  bool wants_peer; /* accept was asked for the peer's address */
  bool yields_fd;  /* res >= 0 is a new descriptor */
};

/* THE rule that interprets a result: an integer >= 0 and what the opcode
** adds, or nil, "subject: reason", errno.  Returns how many values it pushed.
** May raise for lack of memory; only when it returns is the outcome
** delivered.  What is attached stays, so it can be pushed again. */
int outcome_push(lua_State *L, struct outcome *o);

/* Is it a timer whose time is up, which is no failure? */
bool outcome_is_expiry(const struct outcome *o);

/* Frees what is attached; an outcome that was never delivered and is a
** descriptor is closed.  Idempotent. */
void outcome_drop(struct core *core, struct outcome *o);

/* Closes a result that is a new descriptor and that nobody can be given. */
void outcome_close_fd(bool yields_fd, int32_t res);

/* The same for a pipe, whose descriptors are in its aux. */
void outcome_close_pipe(const struct row *row, struct aux *aux, int32_t res);

#endif
