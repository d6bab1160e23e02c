/* Pools: buffers that the kernel takes one of when data is there, so that a
** receiver that waits holds none (provided-buffer rings, Linux 5.19).
**
** Each buffer of a pool is a block of its own.  The kernel holds the block's
** one reference until it has put data there; then the reference is the
** completion's, and the program's Buffer's.  When the last one is let go of,
** the buffer is the kernel's again: not when a timer says so, and not before
** a send of it has ended.
*/
#ifndef URING_POOL_H
#define URING_POOL_H

#include "ring.h"

struct pooled;

struct pool {
  struct core *core;
  struct ring *ring; /* NULL: that is closed */
  bool open;
  struct pool *next; /* of the ring */
  uint16_t group;    /* the number that the kernel knows it by */
  bool incremental;  /* a buffer takes data until it is full */
  bool outgoing;     /* the program fills it, to be sent */
  bool object;       /* there is a Pool of it */
  unsigned count, size;
  unsigned users;             /* events that may take from it */
  unsigned provided;          /* buffers that the kernel has */
  unsigned out;               /* those that completions and the program have */
  uint64_t starved;           /* how often an operation found it empty */
  struct event_list starving; /* who waits for a buffer to come back */
  struct pooled *buffers;     /* by number */
  struct pooled *spare;       /* of an outgoing pool: those to be filled */
  unsigned char *memory;
  struct io_uring_buf_ring *entries; /* shared with the kernel */
  unsigned nentries;                 /* a power of two */
};

#define POOL_TYPE "uring.pool"

/* The Pool at a stack index, NULL if it is something else. */
struct pool *pool_test(lua_State *L, const struct core *core, int index);

/* The open pool of this ring that the kernel knows by a number, or NULL. */
struct pool *pool_of_group(const struct ring *r, uint16_t group);

struct pool_options {
  unsigned buffers, size;
  bool incremental, outgoing;
  bool uncleared; /* nobody sees bytes that the kernel has not written */
};

/* NULL with *err = -errno; *err > 0: the kernel has no incremental ones. */
struct pool *pool_open(struct ring *r, const struct pool_options *o, int *err);

/* The kernel gets no more buffers of it; it is freed when nobody has any. */
void pool_close(struct pool *pool);

/* There is no Pool of it any more. */
void pool_dispose(struct pool *pool);

/* The ring is closed, or not ours any more. */
void pools_release(struct ring *r);

/* An event may take from the pool, or it has ended. */
void pool_join(struct pool *pool);
void pool_leave(struct pool *pool);

/* What a completion brought: the bytes are the completion's from here on. */
void pool_claim(struct pool *pool, const struct event *e, int32_t res,
                uint32_t cqe_flags, struct data *data);

/* The bytes are let go of. */
void data_drop(struct data *data);

/* Pushes them: as a string, a Buffer or a table of Buffers.  May raise, and
** then nothing has changed; else they are let go of, or the Buffers'. */
void data_push(lua_State *L, struct data *data, size_t skip, size_t size);

/* A message that a multishot recvmsg has put into a buffer: the sender's
** address and control data stand before its `size` bytes at `offset`. */
struct pool_message {
  struct sockaddr_storage name;
  unsigned name_size;
  const char *control;
  unsigned control_size, flags;
  unsigned offset, size;
};

void pool_message(const struct data *data, unsigned control_room,
                  struct pool_message *m);

/* Does the message say that the stream has ended: nothing, from nobody? */
bool pool_message_is_end(const struct data *data);

/* The last reference to a block of a pool is gone. */
void pool_take_back(struct block *block);

/* Fills a buffer of an outgoing pool and hands it to the kernel, to be sent
** behind those that it has.  False: none is free. */
bool pool_fill(struct pool *pool, const void *bytes, size_t size);

#endif
