/* Operations: what may be asked of the kernel, and how the arguments of a
** Lua call become an SQE.
**
** One row an opcode, and adding an opcode is adding a row.  A request is
** built in two steps.  `op_request` checks the arguments and raises on bad
** ones; it has no side effects.  `op_commit` takes a slot, lends the memory
** and queues the SQE; it either does all of it or raises and has done
** nothing.
*/
#ifndef URING_OP_H
#define URING_OP_H

#include "ring.h"

enum arg_kind {
  ARG_END,
  ARG_INTEGER, /* into an SQE field */
  ARG_FD,
  ARG_DIRFD,   /* nil: AT_FDCWD */
  ARG_PATH,    /* string */
  ARG_BUFFER,  /* Buffer that the kernel writes [, length] */
  ARG_DATA,    /* Buffer or string that it reads [, length] */
  ARG_BUFFERS, /* table of Buffers [, how many] */
  ARG_DATAS,   /* table of Buffers and strings [, how many] */
  ARG_ADDRESS, /* string */
  ARG_SECONDS,
  ARG_CLOCK,  /* flags of a timer, optional */
  ARG_TARGET, /* operation to cancel */
  ARG_HOW,    /* "r" | "w" | "rw" or SHUT_* */
  ARG_EVENTS, /* poll mask */
  ARG_MESSAGE_IN,
  ARG_MESSAGE_OUT,
  ARG_RAW /* the table that raw takes */
};

struct arg {
  const char *name;
  uint8_t kind;
  uint8_t where, width; /* ARG_INTEGER: the SQE field, in bytes */
  bool optional;
  lua_Integer min, max, fallback;
};

enum result_kind {
  RESULT_INTEGER,
  RESULT_STATX,   /* 0 and a table */
  RESULT_PEER,    /* a descriptor and, if asked, the peer's address */
  RESULT_MESSAGE, /* bytes and a table: from, flags, control_length */
  RESULT_TIMEOUT  /* -ETIME is what was asked for */
};

enum row_option {
  OPTION_ASYNC = 1,
  OPTION_DRAIN = 2,
  OPTION_MULTISHOT = 4,
  OPTION_POLL_FIRST = 8,
  OPTION_PEER = 16,
  OPTION_LINK = 32,
  OPTION_HARDLINK = 64
};

#define MAX_ARGS 5

struct request;

struct row {
  const char *name;
  uint8_t opcode;
  uint8_t result;  /* enum result_kind */
  uint8_t options; /* enum row_option, besides async and drain */
  bool yields_fd;
  uint32_t preset;   /* flags that the operation stands for by itself */
  const char *since; /* the kernel that brought it, where newer than 6.1 */
  /* The same by system calls, for a kernel without it: result or -errno. */
  int (*by_system_call)(const struct request *q);
  struct arg args[MAX_ARGS + 1];
};

/* What besides the data the kernel reads or fills, see struct aux. */
enum aux_kind {
  AUX_NONE,
  AUX_STATX,
  AUX_PEER,    /* room for an address */
  AUX_ADDRESS, /* an address to hand over */
  AUX_TIME,
  AUX_VECTOR,  /* an iovec for each member of `vector` */
  AUX_MESSAGE, /* a msghdr with such a vector */
  AUX_RAW      /* the members of `vector` are addr, addr2 and addr3 */
};

/* A checked call, not yet an operation.  What every request has comes first;
** of the rest, only what `aux` or the field before it says is there is set. */
struct request {
  struct io_uring_sqe sqe;
  const struct row *row;
  const struct core *core;
  uint16_t event_flags;
  uint8_t aux; /* enum aux_kind */
  bool multishot;
  bool writes;      /* the kernel writes what is lent */
  bool has_control; /* the last member is control data of a message */
  /* What is lent: one range of a Buffer, or the members of a table of ours,
  ** at this stack index.  Members are Buffers and strings. */
  const struct buffer *buffer;
  int vector;
  unsigned nvec;
  /* Strings are lent by keeping this stack index until the end. */
  int keep; /* 0: nothing to keep */
  socklen_t addr_len;
  const struct operation *target; /* to be cancelled, or NULL */
  size_t string_bytes;
  size_t size; /* of the range of `buffer` */
  struct __kernel_timespec time;
  struct sockaddr_storage addr;
};

/* The row of a name, NULL where there is none. */
const struct row *op_find(const char *name);

/* The row whose name is the string at a stack index; raises if there is none.
 */
const struct row *op_check(lua_State *L, int index);
const struct row *op_next(const struct row *row); /* NULL: the first */

/* The row that stands for an opcode; NULL: there is none. */
const struct row *op_of_opcode(uint8_t opcode);

/* Is a result ≥ 0 of this opcode a new descriptor? */
bool op_yields_fd(uint8_t opcode);

/* Raises "unknown operation 'raed' (did you mean 'read'?)". */
int op_unknown(lua_State *L, const char *name);

/* Checks the call of a row whose arguments begin at stack index `first`.
** May push onto the stack what the request refers to. */
void op_request(lua_State *L, const struct core *core, const struct row *row,
                int first, struct request *q);

/* Makes an operation of a request, which is used up. */
struct event *op_commit(lua_State *L, struct ring *r, struct request *q);

void op_register(lua_State *L, struct core *core);

#endif
