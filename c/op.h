/* Operations: what may be asked of the kernel, and how the arguments of a
** Lua call become an SQE.
**
** What an opcode takes and gives is its row, see rows.h.  A request is built
** in two steps.  `op_request` checks the arguments and raises on bad
** ones; it has no side effects.  `op_commit` takes a slot, lends the memory
** and queues the SQE; it either does all of it or raises and has done
** nothing.
*/
#ifndef URING_OP_H
#define URING_OP_H

#include "extra.h"
#include "ring.h"
#include "rows.h"

/* What besides the data the kernel reads or fills, see struct aux. */
enum aux_kind {
  AUX_NONE,
  AUX_STATX,
  AUX_PEER,    /* room for an address */
  AUX_ADDRESS, /* an address to hand over */
  AUX_TIME,
  AUX_NEW_TIME,
  AUX_EXTRA,  /* a member of union extra */
  AUX_VECTOR, /* an iovec for each member of `vector` */
  AUX_PROVIDED,
  AUX_WORDS,   /* the members of `vector` are only kept */
  AUX_MESSAGE, /* a msghdr with such a vector */
  AUX_RAW      /* the members of `vector` are addr, addr2 and addr3 */
};

/* A checked call, not yet an operation.  What every request has comes first;
** of the rest, only what `aux` or the field before it says is there is set. */
struct request {
  struct io_uring_sqe sqe;
  const struct row *row;
  const struct core *core;
  uint32_t event_flags;
  uint8_t aux; /* enum aux_kind */
  bool multishot;
  bool writes;      /* the kernel writes what is lent */
  bool by_call;     /* the opcode cannot do this one */
  bool eager;       /* to be handed over at once */
  bool behind;      /* may be handed over behind what is sent */
  bool timed;       /* to end by `deadline_ns` */
  uint8_t extra_at; /* the SQE field that points at `extra` */
  bool has_control; /* the last member is control data of a message */
  /* What is lent: one range of a Buffer, or the members of a table of ours,
  ** at this stack index.  Members are Buffers and strings. */
  const struct buffer *buffer;
  int vector;
  unsigned nvec;
  /* Strings are lent by keeping this stack index until the end. */
  int keep;              /* 0: nothing to keep */
  struct pool *pool;     /* that it takes from, or NULL */
  uint16_t control_room; /* in the pool's buffers, before the data */
  bool needs_pool;       /* there is no Buffer: an option must name a group */
  socklen_t addr_len;
  const struct operation *target; /* what it is about, or NULL */
  size_t string_bytes;
  size_t size; /* of the range of `buffer` */
  uint64_t deadline_ns;
  uint16_t extra_size; /* bytes of it to hand over */
  int place;           /* see struct event */
  union extra extra;
  struct __kernel_timespec time;
  struct sockaddr_storage addr;
};

/* Checks the call of a row whose arguments begin at stack index `first`.
** May push onto the stack what the request refers to. */
void op_request(lua_State *L, const struct core *core, const struct row *row,
                int first, struct request *q);

/* Makes an operation of a request, which is used up. */
struct event *op_commit(lua_State *L, struct ring *r, struct request *q);

void op_register(lua_State *L, struct core *core);

#endif
