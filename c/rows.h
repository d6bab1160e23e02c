/* The table of operations: one row an opcode.
**
** Adding an opcode is adding a row.
*/
#ifndef URING_ROWS_H
#define URING_ROWS_H

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

#include "calls.h"

enum arg_kind {
  ARG_END,
  ARG_INTEGER, /* into an SQE field */
  ARG_FD,
  ARG_DIRFD,   /* nil: AT_FDCWD */
  ARG_PATH,    /* string */
  ARG_NAME,    /* string */
  ARG_BUFFER,  /* Buffer that the kernel writes [, length] */
  ARG_DATA,    /* Buffer or string that it reads [, length] */
  ARG_ROOM,    /* as ARG_BUFFER, its length is given further on */
  ARG_VALUE,   /* as ARG_DATA, likewise */
  ARG_LENGTH,  /* of either */
  ARG_BUFFERS, /* table of Buffers [, how many] */
  ARG_DATAS,   /* table of Buffers and strings [, how many] */
  ARG_ADDRESS, /* string */
  ARG_SECONDS,
  ARG_CLOCK,       /* flags of a timer, optional */
  ARG_NEW_SECONDS, /* of a timeout that has begun */
  ARG_TARGET,      /* operation */
  ARG_RING,
  ARG_DATA_WORD,   /* integer for another ring */
  ARG_SOURCE_SLOT, /* file for another ring */
  ARG_TARGET_SLOT, /* its place there, optional */
  ARG_HOW,         /* "r" | "w" | "rw" or SHUT_* */
  ARG_EVENTS,      /* poll mask */
  ARG_MESSAGE_IN,
  ARG_MESSAGE_OUT,
  ARG_PAGES,        /* Buffer whose pages are meant [, length] */
  ARG_ADVICE,       /* for them */
  ARG_WORD,         /* Buffer with a futex */
  ARG_WORDS,        /* table of { Buffer, value [, kind] } */
  ARG_WORD_KIND,    /* FUTEX2_* */
  ARG_OPEN_HOW,     /* table */
  ARG_EPOLL_OP,     /* "add" | "del" | "mod" or EPOLL_CTL_* */
  ARG_EPOLL_EVENT,  /* events [, data] */
  ARG_OPTION_ROOM,  /* [Buffer [, length]] */
  ARG_OPTION_VALUE, /* integer; or Buffer or string [, length] */
  ARG_POOL,
  ARG_PIECES,     /* how many of `len` bytes a Buffer is */
  ARG_COMMAND,    /* string, optional */
  ARG_FILES,      /* table of descriptors */
  ARG_FIRST_SLOT, /* for them; optional */
  ARG_RAW         /* the table that raw takes */
};

struct arg {
  const char *name;
  uint8_t kind;
  uint8_t where, width; /* the SQE field, in bytes; where it is one */
  bool optional;
  lua_Integer min, max, fallback;
};

enum result_kind {
  RESULT_INTEGER,
  RESULT_STATX,    /* 0 and a table */
  RESULT_PEER,     /* a descriptor and, if asked, the peer's address */
  RESULT_MESSAGE,  /* bytes and a table: from, flags, control_length */
  RESULT_PIPE,     /* 0 and two descriptors */
  RESULT_OPTION,   /* bytes and, without a Buffer, the integer */
  RESULT_CHILD,    /* 0 and a table */
  RESULT_EPOLL,    /* a number and a table of { events, data } */
  RESULT_PROVIDED, /* buffers have become the kernel's */
  RESULT_REMOVED,  /* some have not any more */
  RESULT_FILES,    /* a number and, of those not named, the slots */
  RESULT_WORD,     /* len and data of a message */
  RESULT_TIMEOUT   /* -ETIME is what was asked for */
};

enum row_option {
  OPTION_ASYNC = 1,
  OPTION_DRAIN = 2,
  OPTION_MULTISHOT = 4,
  OPTION_POLL_FIRST = 8,
  OPTION_PEER = 16,
  OPTION_LINK = 32,
  OPTION_HARDLINK = 64,
  OPTION_FIXED_FILE = 128,
  OPTION_DIRECT = 256,
  OPTION_SKIP_SUCCESS = 512,
  OPTION_EAGER = 1024,
  OPTION_BUNDLE = 2048,
  OPTION_COPY = 4096,
  OPTION_BUFFER_GROUP = 8192,
  OPTION_REUSE = 16384,
  OPTION_TIMEOUT = 32768
};

#define MAX_ARGS 6

struct row {
  const char *name;
  uint8_t opcode;
  uint8_t result;   /* enum result_kind */
  uint16_t options; /* enum row_option, besides async and drain */
  bool yields_fd;
  bool registered;    /* the data is in a registered Buffer */
  bool pools;         /* takes a Pool in the place of a Buffer */
  bool streams;       /* receives; 0 bytes are the end */
  bool multishot;     /* always */
  bool fails_quietly; /* and what is linked to it goes on */
  bool zero_copy;     /* the result comes before the memory is given back */
  uint8_t command;    /* of a socket */
  uint8_t sqe_flags;  /* IOSQE_* that it cannot do without */
  uint8_t room;       /* the SQE field that points at what it fills; 0: none */
  uint8_t came_with;  /* an opcode as new as it is, where its own is older */
  uint32_t preset;    /* flags that the operation stands for by itself */
  const char *since;  /* the kernel that brought it, where newer than 6.1 */
  /* The same by system calls, for a kernel without it: result or -errno. */
  by_call *by_system_call;
  struct arg args[MAX_ARGS + 1];
};

static inline bool row_provides(const struct row *row)
{
  return row->result == RESULT_PROVIDED || row->result == RESULT_REMOVED;
}

/* The row of a name, NULL where there is none. */
const struct row *op_find(const char *name);

/* The row whose name is the string at a stack index; raises if there is none.
 */
const struct row *op_check(lua_State *L, int index);
const struct row *op_next(const struct row *row); /* NULL: the first */

/* The row that stands for an opcode; NULL: there is none. */
const struct row *op_of_opcode(uint8_t opcode);

/* Is a result ≥ 0 of this opcode a new descriptor?  Those of a pipe are
** elsewhere. */
bool op_yields_fd(uint8_t opcode);

/* Raises "unknown operation 'raed' (did you mean 'read'?)". */
int op_unknown(lua_State *L, const char *name);

#endif
