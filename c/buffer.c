/* Blocks, loans, and the Buffer object.  Positions are Lua's: from 1, and
** negative ones count from the end, as in string.sub.
*/
#include "buffer.h"

#include <string.h>
#include <sys/mman.h>

#include "event.h"
#include "pool.h"

#define PAGE           4096u
#define HUGE_PAGE      ((size_t)1 << 21)
#define SIZE_MAX_BYTES ((lua_Integer)1 << 40)

/*
** Blocks
*/

/* A block of a page or more begins on a page: what O_DIRECT wants. */
static size_t alignment(size_t size)
{
  return size >= PAGE ? PAGE : 16u;
}

/* A large block is filled from its first byte to its last: huge pages spare
** it a fault every 4 KiB.  A hint, which may come to nothing. */
static void advise(const struct block *b)
{
  const size_t mask = HUGE_PAGE - 1;
  uintptr_t from = ((uintptr_t)b->data + mask) & ~(uintptr_t)mask;
  uintptr_t to = ((uintptr_t)b->data + b->size) & ~(uintptr_t)mask;
  if (b->size >= 2 * HUGE_PAGE && to > from)
    (void)madvise((void *)from, to - from, MADV_HUGEPAGE);
}

struct block *block_new(struct core *core, size_t size, size_t align)
{
  size_t footprint = sizeof(struct block) + align + size;
  struct block *b = mem_alloc(core, footprint);
  uintptr_t data;
  if (b == NULL)
    return NULL;
  data = (uintptr_t)(b + 1);
  data = (data + align - 1) & ~(uintptr_t)(align - 1);
  b->core = core;
  b->pool = NULL;
  b->refs = 1;
  b->footprint = footprint;
  b->size = size;
  b->data = (unsigned char *)data;
  b->loans = NULL;
  advise(b);
  return b;
}

struct block *block_grow(struct block *b, size_t size)
{
  struct core *core = b->core;
  size_t at = (size_t)(b->data - (unsigned char *)b);
  size_t footprint = b->footprint - b->size + size;
  b = mem_realloc(core, b, b->footprint, footprint);
  if (b == NULL)
    return NULL;
  b->footprint = footprint;
  b->size = size;
  b->data = (unsigned char *)b + at;
  advise(b);
  return b;
}

void block_unref(struct block *b)
{
  if (--b->refs > 0)
    return;
  if (b->pool != NULL)
    pool_take_back(b);
  else
    mem_free(b->core, b, b->footprint);
}

/*
** Loans
*/

/* Nothing overlaps with no bytes at all. */
static bool overlaps(const struct loan *l, size_t offset, size_t size)
{
  return size != 0 && l->size != 0 && l->offset < offset + size &&
         offset < l->offset + l->size;
}

const struct loan *loan_conflict(const struct block *block, size_t offset,
                                 size_t size, bool writes)
{
  for (const struct loan *l = block->loans; l != NULL; l = l->next)
    if ((writes || l->writes) && overlaps(l, offset, size))
      return l;
  return NULL;
}

void loan_open(struct loan *loan, struct block *block, size_t offset,
               size_t size, bool writes, const struct event *event)
{
  loan->block = block;
  loan->offset = offset;
  loan->size = size;
  loan->writes = writes;
  loan->event = event;
  loan->prev = NULL;
  loan->next = block->loans;
  if (loan->next != NULL)
    loan->next->prev = loan;
  block->loans = loan;
  block->refs++;
}

void loan_close(struct loan *loan)
{
  struct block *block = loan->block;
  if (block == NULL)
    return;
  if (loan->prev != NULL)
    loan->prev->next = loan->next;
  else
    block->loans = loan->next;
  if (loan->next != NULL)
    loan->next->prev = loan->prev;
  loan->block = NULL;
  block_unref(block);
}

int loan_error(lua_State *L, const char *operation, int fd)
{
  if (fd < 0)
    return luaL_error(L, "buffer is lent to the kernel (%s)", operation);
  return luaL_error(L, "buffer is lent to the kernel (%s on fd %d)", operation,
                    fd);
}

/*
** The Buffer object
*/

/* Registry key of its metatable, which is looked up faster than its name. */
static const char buffer_key = 'b';

/* As luaL_testudata, without looking the type's name up: every read and write
** comes by here. */
struct buffer *buffer_test(lua_State *L, const struct core *core, int index)
{
  struct buffer *b = lua_touserdata(L, index);
  if (b == NULL || !lua_getmetatable(L, index))
    return NULL;
  if (lua_topointer(L, -1) != core->buffer_meta)
    b = NULL;
  lua_pop(L, 1);
  return b;
}

static struct buffer *tobuffer(lua_State *L)
{
  struct buffer *b = core_self(L);
  return b != NULL ? b : luaL_checkudata(L, 1, BUFFER_TYPE);
}

static struct buffer *open_buffer(lua_State *L)
{
  struct buffer *b = tobuffer(L);
  if (b->block == NULL)
    luaL_error(L, "attempt to use a closed buffer");
  return b;
}

/* Raises if the kernel has any of these bytes in a way that forbids this
** access: nobody looks at what it writes, nobody changes what it reads. */
static void check_access(lua_State *L, const struct buffer *b, size_t from,
                         size_t size, bool writes)
{
  const struct loan *l =
      loan_conflict(b->block, b->offset + from, size, writes);
  if (l != NULL)
    loan_error(L, event_name(l->event), l->event->fd);
}

const void *buffer_read_access(lua_State *L, const struct buffer *b)
{
  if (b->block == NULL)
    luaL_error(L, "attempt to use a closed buffer");
  check_access(L, b, 0, b->size, false);
  return buffer_data(b);
}

void *buffer_write_access(lua_State *L, const struct buffer *b)
{
  if (b->block == NULL)
    luaL_error(L, "attempt to use a closed buffer");
  check_access(L, b, 0, b->size, true);
  return buffer_data(b);
}

struct buffer *buffer_push_closed(lua_State *L)
{
  struct buffer *b = lua_newuserdatauv(L, sizeof *b, 0);
  b->block = NULL;
  b->offset = b->size = b->registered = 0;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &buffer_key);
  lua_setmetatable(L, -2);
  return b;
}

/* The collector sees a userdata of some bytes and not the block behind it.
** Telling it about the block keeps a loop that makes Buffers from outrunning
** it. */
void buffer_tell_collector(lua_State *L, size_t size)
{
  if (size >= 1024)
    lua_gc(L, LUA_GCSTEP, size < ((size_t)1 << 40) ? (int)(size >> 10) : 0);
}

/* buffer(size | string) -> Buffer */
static int buffer_new(lua_State *L)
{
  struct core *core = core_upvalue(L);
  const char *contents = NULL;
  size_t size;
  struct buffer *b;
  core_enter(L, core);
  if (lua_type(L, 1) == LUA_TSTRING) {
    contents = lua_tolstring(L, 1, &size);
  } else {
    lua_Integer n = luaL_checkinteger(L, 1);
    luaL_argcheck(L, n >= 0, 1, "size is negative");
    luaL_argcheck(L, n <= SIZE_MAX_BYTES, 1, "size is too large");
    size = (size_t)n;
  }
  buffer_tell_collector(L, size);
  b = buffer_push_closed(L);
  b->block = block_new(core, size, alignment(size));
  if (b->block == NULL) { /* dropped Buffers may be holding memory */
    lua_gc(L, LUA_GCCOLLECT);
    b->block = block_new(core, size, alignment(size));
  }
  if (b->block == NULL)
    return luaL_error(L, "not enough memory for a buffer of %I bytes",
                      (LUAI_UACINT)size);
  b->size = size;
  if (contents != NULL)
    memcpy(b->block->data, contents, size);
  else
    memset(b->block->data, 0, size);
  return 1;
}

/* The range (i, j) at two arguments as string.sub takes it: offset and size
** within the Buffer. */
static size_t check_range(lua_State *L, const struct buffer *b, int arg,
                          size_t *size)
{
  lua_Integer n = (lua_Integer)b->size;
  lua_Integer i = luaL_optinteger(L, arg, 1);
  lua_Integer j = luaL_optinteger(L, arg + 1, -1);
  if (i < 0)
    i = i < -n ? 1 : n + i + 1;
  else if (i == 0)
    i = 1;
  if (j < 0)
    j = j < -n ? 0 : n + j + 1;
  else if (j > n)
    j = n;
  *size = i <= j ? (size_t)(j - i + 1) : 0;
  return (size_t)(i - 1);
}

/* get([i [, j]]) -> string */
static int buffer_get(lua_State *L)
{
  struct buffer *b = open_buffer(L);
  size_t size, from = check_range(L, b, 2, &size);
  check_access(L, b, from, size, false);
  if (size == 0)
    lua_pushliteral(L, "");
  else
    lua_pushlstring(L, (const char *)buffer_data(b) + from, size);
  return 1;
}

/* set(i, string) -> Buffer */
static int buffer_set(lua_State *L)
{
  struct buffer *b = open_buffer(L);
  lua_Integer i = luaL_checkinteger(L, 2);
  size_t size;
  const char *s = luaL_checklstring(L, 3, &size);
  if (i < 0)
    i += (lua_Integer)b->size + 1;
  luaL_argcheck(L, i >= 1, 2, "position out of range");
  if ((size_t)i - 1 > b->size || size > b->size - ((size_t)i - 1))
    return luaL_error(L, "%I bytes at position %I do not fit a buffer of %I",
                      (LUAI_UACINT)size, (LUAI_UACINT)i, (LUAI_UACINT)b->size);
  check_access(L, b, (size_t)i - 1, size, true);
  memcpy(buffer_data(b) + i - 1, s, size);
  lua_settop(L, 1);
  return 1;
}

/* fill([byte [, i [, j]]]) -> Buffer */
static int buffer_fill(lua_State *L)
{
  struct buffer *b = open_buffer(L);
  lua_Integer byte = luaL_optinteger(L, 2, 0);
  size_t size, from = check_range(L, b, 3, &size);
  luaL_argcheck(L, byte >= 0 && byte <= 255, 2, "byte out of range");
  check_access(L, b, from, size, true);
  memset(buffer_data(b) + (size ? from : 0), (int)byte, size);
  lua_settop(L, 1);
  return 1;
}

/* find(string [, i [, j]]) -> first, last; nil if it is not there.  Plain:
** no patterns. */
static int buffer_find(lua_State *L)
{
  struct buffer *b = open_buffer(L);
  size_t len, size;
  const char *s = luaL_checklstring(L, 2, &len);
  const unsigned char *data, *at;
  size_t from;
  from = check_range(L, b, 3, &size);
  check_access(L, b, from, size, false);
  data = buffer_data(b);
  at = from <= b->size ? memmem(data + from, size, s, len) : NULL;
  if (at == NULL) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushinteger(L, at - data + 1);
  lua_pushinteger(L, at - data + (lua_Integer)len);
  return 2;
}

/* slice([i [, j]]) -> Buffer over the same bytes */
static int buffer_slice(lua_State *L)
{
  struct buffer *b = open_buffer(L);
  size_t size, from = check_range(L, b, 2, &size);
  struct buffer *s = buffer_push_closed(L);
  s->block = b->block;
  s->block->refs++;
  s->offset = b->offset + (size ? from : 0);
  s->registered = b->registered;
  s->size = size;
  return 1;
}

/* status() -> "owned" | "lent" */
static int buffer_status(lua_State *L)
{
  struct buffer *b = open_buffer(L);
  bool lent = loan_conflict(b->block, b->offset, b->size, true) != NULL;
  lua_pushstring(L, lent ? "lent" : "owned");
  return 1;
}

static int buffer_len(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)open_buffer(L)->size);
  return 1;
}

void buffer_release(struct buffer *b)
{
  struct block *block = b->block;
  b->block = NULL;
  if (block != NULL)
    block_unref(block);
}

/* close(): lets go of the block, which lives on while it is lent or sliced.
** Idempotent; also __close and __gc. */
static int buffer_close(lua_State *L)
{
  buffer_release(tobuffer(L));
  return 0;
}

static int buffer_tostring(lua_State *L)
{
  struct buffer *b = tobuffer(L);
  if (b->block == NULL)
    lua_pushliteral(L, "buffer (closed)");
  else
    lua_pushfstring(L, "buffer (%I bytes, %p)", (LUAI_UACINT)b->size,
                    (void *)buffer_data(b));
  return 1;
}

static const luaL_Reg buffer_methods[] = {
    {"get", buffer_get},     {"set", buffer_set},
    {"fill", buffer_fill},   {"find", buffer_find},
    {"slice", buffer_slice}, {"status", buffer_status},
    {"close", buffer_close}, {NULL, NULL},
};

static const luaL_Reg buffer_meta[] = {
    {"__len", buffer_len},
    {"__gc", buffer_close},
    {"__close", buffer_close},
    {"__tostring", buffer_tostring},
    {NULL, NULL},
};

void buffer_register(lua_State *L, struct core *core)
{
  luaL_newmetatable(L, BUFFER_TYPE);
  core->buffer_meta = lua_topointer(L, -1);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &buffer_key);
  core_set_methods(L, buffer_meta, -1);
  luaL_newlibtable(L, buffer_methods);
  core_set_methods(L, buffer_methods, -2);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, buffer_new, 1);
  lua_setfield(L, -2, "buffer");
}
