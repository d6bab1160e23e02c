/* Memory that the kernel may write: refcounted blocks, and the Buffer that
** shows a part of one to Lua.
**
** A block is owned by C alone.  Buffers hold a reference to it,
** slices of a Buffer hold another, and every loan holds one more: a block is
** freed when the last of them lets go, so a collected Buffer never takes
** memory away from the kernel.
*/
#ifndef URING_BUFFER_H
#define URING_BUFFER_H

#include "core.h"

struct event;

/* A range of a block handed to the kernel until its event is terminal. */
struct loan {
  struct block *block; /* NULL: this loan is not in use */
  size_t offset;       /* bytes */
  size_t size : 63;
  bool writes : 1; /* the kernel writes; else it only reads */
  const struct event *event;
  struct loan *prev, *next; /* other loans of the same block */
};

struct block {
  struct core *core;
  struct pool *pool; /* that gets it back, NULL: it is freed */
  unsigned refs;
  size_t footprint; /* bytes allocated, this header included */
  size_t size;      /* bytes at `data` */
  unsigned char *data;
  struct loan *loans;
};

/* What Lua sees: `size` bytes of a block from `offset` on. */
struct buffer {
  struct block *block; /* NULL: closed */
  size_t offset, size;
  uint16_t registered; /* the index under which it may be registered */
};

#define BUFFER_TYPE "uring.buffer"

/* Tells the collector of so many bytes that it does not see. */
void buffer_tell_collector(lua_State *L, size_t size);

/* A new Buffer on the stack, closed until it gets its block: an error in
** between leaves a consistent object. */
struct buffer *buffer_push_closed(lua_State *L);

/* The Buffer at a stack index, NULL if it is something else. */
struct buffer *buffer_test(lua_State *L, const struct core *core, int index);

static inline unsigned char *buffer_data(const struct buffer *b)
{
  return b->block->data + b->offset;
}

/* The bytes of a Buffer to be read at once; raises if it is closed or the
** kernel writes them. */
const void *buffer_read_access(lua_State *L, const struct buffer *b);

/* To be written at once; raises if it is closed or lent. */
void *buffer_write_access(lua_State *L, const struct buffer *b);

/* Closes a Buffer. */
void buffer_release(struct buffer *b);

/* A block that begins at a multiple of `align`, a power of two, with its one
** reference; NULL for lack of memory.  Its bytes are not set. */
struct block *block_new(struct core *core, size_t size, size_t align);

/* Makes a block larger that nobody else refers to and that is aligned to 16
** bytes at most; it may move.  NULL for lack of memory, and it is as it was.
*/
struct block *block_grow(struct block *b, size_t size);

/* Lets go of a reference to a block. */
void block_unref(struct block *b);

/* The loan that forbids handing this range to the kernel, NULL if none does.
** A range that the kernel writes conflicts with every other loan; one it only
** reads conflicts with those it writes. */
const struct loan *loan_conflict(const struct block *block, size_t offset,
                                 size_t size, bool writes);

/* Lends; the caller has asked loan_conflict. */
void loan_open(struct loan *loan, struct block *block, size_t offset,
               size_t size, bool writes, const struct event *event);

/* Gives back.  Frees the block if nobody else has it. */
void loan_close(struct loan *loan);

/* Raises "buffer is lent to the kernel (read on fd 5)" for an operation. */
int loan_error(lua_State *L, const char *operation, int fd);

void buffer_register(lua_State *L, struct core *core);

#endif
