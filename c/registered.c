/* Registered buffers and files.
**
** The ring holds a reference to the block of every registered Buffer, and an
** operation on one holds its loan besides: neither unregistering nor dropping
** the Buffer takes memory from the kernel.  The program goes on using the
** Buffer; only what an operation has is lent.
*/
#include "registered.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "errors.h"
#include "ring_object.h"

#define BUFFERS_MAX 16384 /* IORING_MAX_REG_BUFFERS */

/*
** Buffers
*/

/* Does the registered buffer of an index hold a range of a block? */
static bool holds(const struct ring *r, unsigned index,
                  const struct block *block, size_t offset, size_t size)
{
  const struct registered *b = &r->buffers[index];
  return b->block == block && offset >= b->offset &&
         offset + size <= b->offset + b->size;
}

/* How many ranges begin at this address or before. */
static unsigned starts_up_to(const struct ring *r, uintptr_t address)
{
  unsigned low = 0, high = r->nbuffers;
  while (low < high) {
    unsigned middle = (low + high) / 2;
    if (r->starts[middle].address <= address)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* Of the ranges that begin early enough, the one that ends last holds what any
** of them does. */
int registered_index(const struct ring *r, const struct block *block,
                     size_t offset, size_t size, unsigned likely)
{
  unsigned before;
  if (likely < r->nbuffers && holds(r, likely, block, offset, size))
    return (int)likely;
  before = starts_up_to(r, (uintptr_t)block->data + offset);
  if (before == 0)
    return -1;
  likely = r->starts[before - 1].farthest;
  return holds(r, likely, block, offset, size) ? (int)likely : -1;
}

static int compare_starts(const void *a, const void *b)
{
  const struct registered_start *one = a, *other = b;
  return (one->address > other->address) - (one->address < other->address);
}

static uintptr_t end_of(const struct registered *b)
{
  return (uintptr_t)b->block->data + b->offset + b->size;
}

/* Fills in `starts` from `buffers`. */
static void sort_starts(struct registered_start *starts,
                        const struct registered *buffers, unsigned count)
{
  unsigned farthest;
  for (unsigned i = 0; i < count; i++) {
    starts[i].address = (uintptr_t)buffers[i].block->data + buffers[i].offset;
    starts[i].index = (uint16_t)i;
  }
  qsort(starts, count, sizeof *starts, compare_starts);
  farthest = starts[0].index;
  for (unsigned i = 0; i < count; i++) {
    if (end_of(&buffers[starts[i].index]) > end_of(&buffers[farthest]))
      farthest = starts[i].index;
    starts[i].farthest = (uint16_t)farthest;
  }
}

static void free_ranges(struct ring *r, struct registered *buffers,
                        struct registered_start *starts, unsigned count)
{
  mem_free(r->core, buffers, count * sizeof *buffers);
  mem_free(r->core, starts, count * sizeof *starts);
}

void registered_release(struct ring *r)
{
  for (unsigned i = 0; i < r->nbuffers; i++)
    block_unref(r->buffers[i].block);
  free_ranges(r, r->buffers, r->starts, r->nbuffers);
  r->buffers = NULL;
  r->starts = NULL;
  r->nbuffers = 0;
}

/* The Buffer at place `i` of the table at index 2; raises if it is none. */
static struct buffer *member(lua_State *L, const struct ring *r, lua_Integer i)
{
  struct buffer *b;
  lua_rawgeti(L, 2, i);
  b = buffer_test(L, r->core, -1);
  if (b == NULL || b->block == NULL)
    luaL_error(L, "register_buffers: open Buffer expected at [%d], got %s",
               (int)i, luaL_tolstring(L, -1, NULL));
  lua_pop(L, 1);
  return b;
}

static lua_Integer member_count(lua_State *L, lua_Integer max)
{
  lua_Integer count;
  luaL_checktype(L, 2, LUA_TTABLE);
  count = (lua_Integer)lua_rawlen(L, 2);
  luaL_argcheck(L, count > 0, 2, "there is nothing in the table");
  luaL_argcheck(L, count <= max, 2, "too many to register");
  return count;
}

/* They are registered: the ring holds their blocks. */
static void note_ranges(lua_State *L, struct ring *r,
                        struct registered *buffers,
                        struct registered_start *starts, unsigned count)
{
  for (unsigned i = 0; i < count; i++) {
    struct buffer *b = member(L, r, i + 1);
    buffers[i].block = b->block;
    buffers[i].offset = b->offset;
    buffers[i].size = b->size;
    b->registered = (uint16_t)i;
    b->block->refs++;
  }
  sort_starts(starts, buffers, count);
  r->buffers = buffers;
  r->starts = starts;
  r->nbuffers = count;
}

/* ring:register_buffers { Buffer, … } -> true | nil, message, errno */
static int register_buffers(lua_State *L)
{
  unsigned count = (unsigned)member_count(L, BUFFERS_MAX);
  struct iovec *iov = lua_newuserdatauv(L, count * sizeof *iov, 0);
  struct ring *r = ring_object_open(L, 1); /* no finaliser runs from here on */
  struct registered *buffers;
  struct registered_start *starts;
  int rc;
  if (r->nbuffers > 0)
    return luaL_error(L, "register_buffers: there are registered buffers "
                         "already; unregister them first");
  for (unsigned i = 0; i < count; i++) {
    const struct buffer *b = member(L, r, i + 1);
    iov[i].iov_base = buffer_data(b);
    iov[i].iov_len = b->size;
  }
  buffers = mem_alloc(r->core, count * sizeof *buffers);
  starts = mem_alloc(r->core, count * sizeof *starts);
  rc = buffers != NULL && starts != NULL
           ? io_uring_register_buffers(&r->io, iov, count)
           : -ENOMEM;
  if (rc < 0) {
    bool lacking = buffers == NULL || starts == NULL;
    free_ranges(r, buffers, starts, count);
    return lacking ? luaL_error(L, "not enough memory")
                   : push_failure(L, "register_buffers", -rc);
  }
  note_ranges(L, r, buffers, starts, count);
  lua_pushboolean(L, 1);
  return 1;
}

/* ring:unregister_buffers() -> true | nil, message, errno */
static int unregister_buffers(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  int rc = io_uring_unregister_buffers(&r->io);
  if (rc < 0)
    return push_failure(L, "unregister_buffers", -rc);
  registered_release(r);
  lua_pushboolean(L, 1);
  return 1;
}

/*
** Files: slots of a table, named by their index from 0 with the option
** `fixed_file`
*/

const char *registered_descriptor(lua_State *L, int n, int *fd)
{
  int exact;
  lua_Integer number = lua_tointegerx(L, -1, &exact);
  if (lua_type(L, -1) != LUA_TNUMBER || !exact || number < -1 ||
      number > INT_MAX)
    return lua_pushfstring(
        L, "descriptor, or -1 for none, expected at [%d], got %s", n,
        luaL_tolstring(L, -1, NULL));
  *fd = (int)number;
  return NULL;
}

/* The descriptors of the table at index 2. */
static int *push_descriptors(lua_State *L, unsigned count)
{
  int *fds = lua_newuserdatauv(L, count * sizeof *fds, 0);
  for (unsigned i = 0; i < count; i++) {
    const char *wrong;
    lua_rawgeti(L, 2, i + 1);
    wrong = registered_descriptor(L, (int)i + 1, &fds[i]);
    if (wrong != NULL)
      luaL_error(L, "%s", wrong);
    lua_pop(L, 1);
  }
  return fds;
}

/* ring:register_files { fd, … } or (count), all empty
** -> true | nil, message, errno */
static int register_files(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  int rc;
  if (lua_type(L, 2) == LUA_TNUMBER) {
    lua_Integer count = luaL_checkinteger(L, 2);
    luaL_argcheck(L, count > 0 && count <= FILES_MAX, 2, "out of range");
    rc = io_uring_register_files_sparse(&r->io, (unsigned)count);
  } else {
    unsigned count = (unsigned)member_count(L, FILES_MAX);
    rc = io_uring_register_files(&r->io, push_descriptors(L, count), count);
  }
  if (rc < 0)
    return push_failure(L, "register_files", -rc);
  lua_pushboolean(L, 1);
  return 1;
}

/* ring:register_files_update({ fd, … }, first slot = 0)
** -> how many | nil, message, errno */
static int register_files_update(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  unsigned count = (unsigned)member_count(L, FILES_MAX);
  lua_Integer first = luaL_optinteger(L, 3, 0);
  int rc;
  luaL_argcheck(L, first >= 0 && first <= FILES_MAX, 3, "out of range");
  rc = io_uring_register_files_update(&r->io, (unsigned)first,
                                      push_descriptors(L, count), count);
  if (rc < 0)
    return push_failure(L, "register_files_update", -rc);
  lua_pushinteger(L, rc);
  return 1;
}

/* ring:register_file_alloc_range(first, count) -> true | nil, message, errno:
** the slots among which the kernel chooses where it is to */
static int register_file_alloc_range(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  lua_Integer first = luaL_checkinteger(L, 2);
  lua_Integer count = luaL_checkinteger(L, 3);
  int rc;
  luaL_argcheck(L, first >= 0 && first <= FILES_MAX, 2, "out of range");
  luaL_argcheck(L, count >= 0 && count <= FILES_MAX, 3, "out of range");
  rc = io_uring_register_file_alloc_range(&r->io, (unsigned)first,
                                          (unsigned)count);
  if (rc < 0)
    return push_failure(L, "register_file_alloc_range", -rc);
  lua_pushboolean(L, 1);
  return 1;
}

/* ring:unregister_files() -> true | nil, message, errno */
static int unregister_files(lua_State *L)
{
  int rc = io_uring_unregister_files(&ring_object_open(L, 1)->io);
  if (rc < 0)
    return push_failure(L, "unregister_files", -rc);
  lua_pushboolean(L, 1);
  return 1;
}

static const luaL_Reg methods[] = {
    {"register_buffers", register_buffers},
    {"unregister_buffers", unregister_buffers},
    {"register_files", register_files},
    {"register_files_update", register_files_update},
    {"register_file_alloc_range", register_file_alloc_range},
    {"unregister_files", unregister_files},
    {NULL, NULL},
};

void registered_methods(lua_State *L)
{
  luaL_setfuncs(L, methods, 0);
}
