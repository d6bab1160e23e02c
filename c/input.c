/* Bytes in hand. */
#include "input.h"

#include <string.h>

#include "pool.h"

#define LEAST 4096u

/* Past this a block grows by half of itself only. */
#define DOUBLED ((size_t)1 << 26)

void input_drop(struct input *in)
{
  if (in->block != NULL)
    block_unref(in->block);
  in->block = NULL;
  in->first = in->last = in->cursor = in->scanned = 0;
}

void input_take(struct input *in, bool keep)
{
  in->first = in->cursor;
  if (in->first < in->last)
    return;
  if (keep && in->block != NULL && in->block->pool == NULL)
    in->first = in->last = in->cursor = in->scanned = 0;
  else
    input_drop(in);
}

/* May bytes be moved and added in it?  Not in a buffer of the pool's, nor
** where the kernel still has the block. */
static bool is_own(const struct input *in)
{
  return in->block != NULL && in->block->pool == NULL && in->block->refs == 1;
}

size_t input_room(const struct input *in)
{
  return is_own(in) ? in->block->size - in->last : 0;
}

static void moved(struct input *in)
{
  in->cursor -= in->first;
  in->scanned -= in->first;
  in->last -= in->first;
  in->first = 0;
}

bool input_reserve(struct core *core, struct input *in, size_t size)
{
  size_t have = input_size(in), capacity;
  struct block *b;
  if (input_room(in) >= size)
    return true;
  if (is_own(in) && in->block->size - have >= size && have <= in->first) {
    memmove(in->block->data, in->block->data + in->first, have);
    moved(in);
    return true;
  }
  if (size > SIZE_MAX / 4 - have)
    return false;
  capacity = have + size;
  if (have > 0 && capacity < (have < DOUBLED ? have * 2 : have + have / 2))
    capacity = have < DOUBLED ? have * 2 : have + have / 2;
  if (capacity < LEAST)
    capacity = LEAST;
  if (is_own(in) && in->first < have) { /* little would be moved */
    b = block_grow(in->block, in->first + capacity);
    in->block = b != NULL ? b : in->block;
    return b != NULL;
  }
  b = block_new(core, capacity, 16);
  if (b == NULL)
    return false;
  if (have > 0)
    memcpy(b->data, in->block->data + in->first, have);
  if (in->block != NULL)
    block_unref(in->block);
  in->block = b;
  moved(in);
  return true;
}

bool input_append(struct core *core, struct input *in, const void *bytes,
                  size_t size)
{
  if (!input_reserve(core, in, size))
    return false;
  memcpy(in->block->data + in->last, bytes, size);
  in->last += size;
  return true;
}

bool input_adopt(struct core *core, struct input *in, struct data *data)
{
  bool ok = true;
  if (input_size(in) > 0) {
    ok = input_append(core, in, data->block->data + data->offset, data->size);
    data_drop(data);
    return ok;
  }
  input_drop(in);
  in->block = data->block;
  in->first = in->cursor = in->scanned = data->offset;
  in->last = (size_t)data->offset + data->size;
  data->block = NULL;
  return ok;
}
