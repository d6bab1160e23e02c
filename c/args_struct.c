/* Arguments that the kernel wants as structures, in places of their own, or
** as more than a range of bytes.
*/
#include "reader.h"

#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "near.h"
#include "registered.h"

static const struct arg word_value = {.name = "value"};

/* The SQE gets a pointer, at this place, to what `extra` holds. */
static void point_at_extra(struct request *q, uint8_t at, size_t size)
{
  q->aux = AUX_EXTRA;
  q->extra_at = at;
  q->extra_size = (uint16_t)size;
}

/* One of a few names, or its number. */
static int to_choice(struct reader *in, const struct arg *a,
                     const char *const *names, int count, int first)
{
  int i = in->index++;
  if (i > in->last || lua_type(in->L, i) != LUA_TSTRING)
    return (int)args_integer(in, a, i, first, first + count - 1);
  for (int n = 0; n < count; n++)
    if (args_is_name(in->L, i, names[n]))
      return first + n;
  return args_bad(in, a,
                  lua_pushfstring(in->L, "'%s', '%s' or '%s' expected",
                                  names[0], names[1], names[2]));
}

/*
** openat2: { flags = ..., mode = ..., resolve = ... }
*/

static uint64_t *how_field(struct open_how *how, lua_State *L, int index,
                           struct near *near)
{
  static const char *const names[] = {"flags", "mode", "resolve"};
  __u64 *fields[] = {&how->flags, &how->mode, &how->resolve};
  for (size_t n = 0; n < COUNT(names); n++) {
    if (args_is_name(L, index, names[n]))
      return (uint64_t *)fields[n];
    near_offer(near, names[n]);
  }
  return NULL;
}

static void unknown_how(const struct reader *in, const char *name,
                        const struct near *near)
{
  lua_State *L = in->L;
  near_push(L, near);
  luaL_error(L,
             "unknown field '%s' of the how of %s%s; it takes flags mode "
             "resolve",
             name, in->q->row->name, lua_tostring(L, -1));
}

void args_read_open_how(struct reader *in, const struct arg *a)
{
  lua_State *L = in->L;
  struct request *q = in->q;
  struct open_how *how = &q->extra.how;
  int i = in->index++;
  if (i > in->last || !lua_istable(L, i))
    args_bad_type(in, a, i, "table");
  memset(how, 0, sizeof *how);
  luaL_checkstack(L, 8, "too many values for a how");
  for (lua_pushnil(L); lua_next(L, i); lua_pop(L, 1)) {
    bool named = lua_type(L, -2) == LUA_TSTRING;
    const char *name = named ? lua_tostring(L, -2) : "?";
    struct arg field = {.name = name};
    struct reader one = *in;
    uint64_t *where;
    struct near near;
    near_start(&near, name);
    where = named ? how_field(how, L, -2, &near) : NULL;
    if (where == NULL)
      unknown_how(in, name, &near);
    one.last = lua_gettop(L);
    *where = (uint64_t)args_integer(&one, &field, one.last, 0, LUA_MAXINTEGER);
  }
  q->sqe.len = sizeof *how;
  point_at_extra(q, a->where, sizeof *how);
}

/*
** madvise
*/

/* The kernel takes whole pages and rounds what it is given outwards, over
** memory that is not the Buffer's.  So: the pages that lie inside of it.
** Some advice empties them, hence as for writing. */
void args_read_pages(struct reader *in, const struct arg *a)
{
  const struct buffer *b = args_buffer(in, a, in->index++, "Buffer");
  size_t size = args_length(in, b->size);
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  uintptr_t from = (uintptr_t)buffer_data(b), to = from + size;
  from = (from + page - 1) & ~(page - 1);
  to &= ~(page - 1);
  args_lend(in, b, size, true);
  args_set_field(in->q, a, (lua_Integer)from);
  in->q->sqe.len = to > from ? (uint32_t)(to - from) : 0;
}

/* Is the advice one that makes nothing but these pages slower, faster or
** empty, and them only as long as they are the Buffer's?  Others make them
** inaccessible, or absent from a child, and freeing them does not undo it. */
static bool is_harmless(lua_Integer advice)
{
  static const uint8_t known[] = {MADV_NORMAL,
                                  MADV_RANDOM,
                                  MADV_SEQUENTIAL,
                                  MADV_WILLNEED,
                                  MADV_DONTNEED,
                                  MADV_FREE,
                                  MADV_MERGEABLE,
                                  MADV_UNMERGEABLE,
                                  MADV_HUGEPAGE,
                                  MADV_NOHUGEPAGE,
                                  MADV_DONTDUMP,
                                  MADV_DODUMP,
                                  URING_MADV_COLD,
                                  URING_MADV_PAGEOUT,
                                  URING_MADV_POPULATE_READ,
                                  URING_MADV_POPULATE_WRITE,
                                  URING_MADV_COLLAPSE};
  for (size_t i = 0; i < COUNT(known); i++)
    if (advice == known[i])
      return true;
  return false;
}

void args_read_advice(struct reader *in, const struct arg *a)
{
  lua_Integer advice = args_integer(in, a, in->index++, 0, INT_MAX);
  if (!is_harmless(advice))
    args_bad(in, a, "this advice is not for memory that is shared with Lua");
  in->q->sqe.fadvise_advice = (uint32_t)advice;
}

/*
** Futexes.  A word that is waited on is there to be changed by somebody else
** meanwhile, and the kernel only looks at it.  So the Buffer is not lent: its
** memory is kept by a loan of no bytes at all, and that forbids nothing.
*/

static uint64_t word_address(const struct reader *in, const struct arg *a,
                             const struct buffer *b)
{
  uintptr_t address;
  if (b->size < sizeof(uint32_t))
    args_bad(in, a, "a word has 4 bytes");
  address = (uintptr_t)buffer_data(b);
  if (address % sizeof(uint32_t) != 0)
    args_bad(in, a, "the word is not aligned to 4 bytes");
  return address;
}

void args_read_word(struct reader *in, const struct arg *a)
{
  const struct buffer *b = args_buffer(in, a, in->index++, "Buffer");
  in->q->sqe.addr = word_address(in, a, b);
  args_lend(in, b, 0, false);
}

/* Which bits of futex2 flags are set.  Others than these make the kernel look
** beyond the four bytes of the word, or write there. */
static uint32_t to_word_kind(const struct reader *in, const struct arg *a,
                             int index)
{
  lua_Integer n = args_integer(in, a, index, 0, UINT32_MAX);
  if (n != URING_FUTEX2_U32 && n != (URING_FUTEX2_U32 | URING_FUTEX2_PRIVATE))
    args_bad(in, a,
             "FUTEX2_SIZE_U32, with or without FUTEX2_PRIVATE, "
             "expected");
  return (uint32_t)n;
}

void args_read_word_kind(struct reader *in, const struct arg *a)
{
  in->q->sqe.fd = URING_FUTEX2_U32 | URING_FUTEX2_PRIVATE;
  if (!args_left_out(in))
    in->q->sqe.fd = (int)to_word_kind(in, a, in->index++);
}

/* { word, value [, kind] }, on the top of the stack: into member n of the
** vector and into the array. */
static void take_word(struct reader *in, const struct arg *a, unsigned n,
                      struct futex_waitv *w)
{
  lua_State *L = in->L;
  struct reader one = *in;
  int entry = lua_gettop(L);
  const struct buffer *b;
  if (!lua_istable(L, entry))
    args_bad(in, a,
             lua_pushfstring(L, "table expected at [%d], got %s", (int)n,
                             luaL_typename(L, entry)));
  lua_rawgeti(L, entry, 1);
  one.last = entry + 1;
  b = args_buffer(&one, a, entry + 1, "Buffer");
  w->uaddr = word_address(in, a, b);
  lua_rawseti(L, in->q->vector, n);
  lua_rawgeti(L, entry, 2);
  w->val = (uint64_t)args_integer(&one, &word_value, entry + 1, 0, UINT32_MAX);
  lua_pop(L, 1);
  w->flags = URING_FUTEX2_U32 | URING_FUTEX2_PRIVATE;
  if (lua_rawgeti(L, entry, 3) != LUA_TNIL)
    w->flags = to_word_kind(&one, a, entry + 1);
  lua_settop(L, entry - 1);
}

/* The kernel only reads the array, so it may be Lua's memory, kept. */
void args_read_words(struct reader *in, const struct arg *a)
{
  lua_State *L = in->L;
  struct request *q = in->q;
  int i = in->index++;
  struct futex_waitv *w;
  unsigned count;
  if (i > in->last || !lua_istable(L, i))
    args_bad_type(in, a, i, "table");
  if (lua_rawlen(L, i) > FUTEX_WAITV_MAX)
    args_bad(in, a, "more than 128 words");
  luaL_checkstack(L, 8, "too many values for words");
  count = (unsigned)lua_rawlen(L, i);
  lua_createtable(L, (int)count, 0);
  q->vector = lua_gettop(L);
  w = lua_newuserdatauv(L, count * sizeof *w + 1, 0);
  memset(w, 0, count * sizeof *w);
  q->keep = lua_gettop(L);
  for (unsigned n = 1; n <= count; n++) {
    lua_rawgeti(L, i, n);
    take_word(in, a, n, &w[n - 1]);
  }
  q->nvec = count;
  q->aux = AUX_WORDS;
  q->sqe.addr = (uintptr_t)w;
  q->sqe.len = count;
}

/*
** epoll
*/

void args_read_epoll_op(struct reader *in, const struct arg *a)
{
  static const char *const names[] = {"add", "del", "mod"}; /* from 1 on */
  in->q->sqe.len = (uint32_t)to_choice(in, a, names, 3, EPOLL_CTL_ADD);
}

/* events, data: what epoll_wait gives back, the descriptor if not given. */
void args_read_epoll_event(struct reader *in, const struct arg *a)
{
  static const struct arg data = {.name = "data"};
  struct request *q = in->q;
  struct epoll_event *event = &q->extra.events[0];
  event->events = 0;
  event->data.u64 = q->sqe.off;
  if (!args_left_out(in))
    event->events = (uint32_t)args_integer(in, a, in->index++, 0, UINT32_MAX);
  if (!args_left_out(in))
    event->data.u64 = (uint64_t)args_integer(in, &data, in->index++,
                                             LUA_MININTEGER, LUA_MAXINTEGER);
  point_at_extra(q, a->where, sizeof *event);
}

/*
** Options of sockets
*/

static void set_option(struct request *q, const void *value, size_t size)
{
  const uint64_t address = (uintptr_t)value;
  const uint32_t len = (uint32_t)size;
  memcpy((char *)&q->sqe + URING_SQE_OPTVAL, &address, sizeof address);
  memcpy((char *)&q->sqe + URING_SQE_OPTLEN, &len, sizeof len);
}

/* Where the option goes: a Buffer; or without one an int of the event's,
** which becomes a result. */
void args_read_option_room(struct reader *in, const struct arg *a)
{
  struct request *q = in->q;
  int level;
  memcpy(&level, (char *)&q->sqe + URING_SQE_LEVEL, sizeof level);
  q->by_call = level != SOL_SOCKET; /* the command knows no other */
  if (args_left_out(in)) {
    set_option(q, NULL, sizeof(int));
    point_at_extra(q, URING_SQE_OPTVAL, 0);
  } else {
    const struct buffer *b = args_buffer(in, a, in->index++, "Buffer");
    args_lend(in, b, args_length(in, b->size), true);
    set_option(q, buffer_data(b), q->size);
  }
}

void args_read_option_value(struct reader *in, const struct arg *a)
{
  struct request *q = in->q;
  int i = in->index++;
  int type = i <= in->last ? lua_type(in->L, i) : LUA_TNONE;
  if (type == LUA_TNUMBER) {
    q->extra.value = (int)args_integer(in, a, i, INT_MIN, INT_MAX);
    set_option(q, NULL, sizeof(int));
    point_at_extra(q, URING_SQE_OPTVAL, sizeof(int));
  } else if (type == LUA_TSTRING) {
    args_keep(in, i);
    q->string_bytes = args_length(in, q->string_bytes);
    set_option(q, lua_tostring(in->L, i), q->string_bytes);
  } else {
    const struct buffer *b =
        args_buffer(in, a, i, "integer, Buffer or string");
    args_lend(in, b, args_length(in, b->size), false);
    set_option(q, buffer_data(b), q->size);
  }
}

/*
** Commands for drivers
*/

/* Their bytes are the end of the SQE itself. */
void args_read_command(struct reader *in, const struct arg *a)
{
  struct request *q = in->q;
  const char *bytes;
  size_t len;
  if (args_left_out(in))
    return;
  if (lua_type(in->L, in->index) != LUA_TSTRING)
    args_bad_type(in, a, in->index, "string");
  bytes = lua_tolstring(in->L, in->index++, &len);
  if (len > sizeof q->sqe - a->where)
    args_bad(in, a, "longer than 16 bytes");
  memcpy((char *)&q->sqe + a->where, bytes, len);
}

/*
** Files to be registered.  The kernel reads their descriptors and, where it
** chooses the slots, puts those in their place.
*/

void args_read_files(struct reader *in, const struct arg *a)
{
  lua_State *L = in->L;
  struct request *q = in->q;
  int i = in->index++;
  if (i > in->last || !lua_istable(L, i))
    args_bad_type(in, a, i, "table");
  if (lua_rawlen(L, i) > FILES_UPDATE_MAX)
    args_bad(in, a, "more than 64 descriptors");
  q->sqe.len = (uint32_t)lua_rawlen(L, i);
  luaL_checkstack(L, 8, "too many values for descriptors");
  for (unsigned n = 0; n < q->sqe.len; n++) {
    const char *wrong;
    lua_rawgeti(L, i, n + 1);
    wrong = registered_descriptor(L, (int)n + 1, &q->extra.files[n]);
    if (wrong != NULL)
      args_bad(in, a, wrong);
    lua_pop(L, 1);
  }
  point_at_extra(q, a->where, q->sqe.len * sizeof *q->extra.files);
}

void args_read_first_slot(struct reader *in, const struct arg *a)
{
  struct request *q = in->q;
  if (!args_left_out(in)) {
    q->sqe.off = (uint64_t)args_integer(in, a, in->index++, 0, FILES_MAX - 1);
    return;
  }
  q->sqe.off = IORING_FILE_INDEX_ALLOC;
  q->event_flags |= EVENT_DIRECT;
  q->place = -1;
}
