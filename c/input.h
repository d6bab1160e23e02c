/* The bytes that a stream has read and nobody has taken yet.
**
** They lie in one block: a buffer of the shared pool as the kernel has filled
** it, or a block of the stream's own, which grows.  A call takes nothing
** until it has all it wants: it only moves a cursor over them.  So a read that
** is cancelled, or fails, has nothing to put back.
*/
#ifndef URING_INPUT_H
#define URING_INPUT_H

#include "buffer.h"
#include "outcome.h"

struct input {
  struct block *block; /* NULL: there are none */
  size_t first, last;  /* they are data[first .. last - 1] */
  size_t cursor;       /* of the call: what it wants lies before */
  size_t scanned : 63; /* up to here there is no end of what it looks for */
  bool ended : 1;      /* the call has come to the end of the stream */
};

static inline size_t input_size(const struct input *in)
{
  return in->last - in->first;
}

/* Those that the call has not come to. */
static inline size_t input_ahead(const struct input *in)
{
  return in->last - in->cursor;
}

static inline const unsigned char *input_at(const struct input *in, size_t at)
{
  return in->block != NULL ? in->block->data + at : NULL;
}

/* A call begins. */
static inline void input_begin(struct input *in)
{
  in->cursor = in->scanned = in->first;
  in->ended = false;
}

/* Takes what lies before the cursor; without `keep` an empty block is let go
** of. */
void input_take(struct input *in, bool keep);

/* Lets go of everything. */
void input_drop(struct input *in);

/* Makes room for `size` more bytes in a block of the stream's own; false: out
** of memory, and nothing has changed. */
bool input_reserve(struct core *core, struct input *in, size_t size);

/* The room behind the bytes, in a block that is the stream's own; 0: there is
** none. */
size_t input_room(const struct input *in);

/* A buffer that the kernel has filled; false: out of memory, which it cannot
** be where there was nothing in hand. */
bool input_adopt(struct core *core, struct input *in, struct data *data);

/* Puts `size` bytes behind the others. */
bool input_append(struct core *core, struct input *in, const void *bytes,
                  size_t size);

#endif
