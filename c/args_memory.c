/* Arguments that are memory: what is lent, what is kept.
**
** What the kernel writes is a Buffer.  What it reads may be a string, and
** that is kept from the collector until the operation has ended.
*/
#include "reader.h"

#include <string.h>
#include <sys/uio.h>

#include "near.h"
#include "pool.h"

/* The most that one read or write moves (MAX_RW_COUNT in the kernel). */
#define LENGTH_MAX ((lua_Integer)0x7ffff000)

/* Bytes of control data before each message in a pool's buffer. */
#define CONTROL_MAX 4096

#define VECTOR_MAX 1024u /* IOV_MAX, the kernel's UIO_MAXIOV */

/*
** Lengths and strings
*/

/* The optional length behind a Buffer or string of `whole` bytes. */
size_t args_length(struct reader *in, size_t whole)
{
  static const struct arg length = {.name = "length"};
  lua_State *L = in->L;
  lua_Integer n;
  if (args_left_out(in))
    return whole < (size_t)LENGTH_MAX ? whole : (size_t)LENGTH_MAX;
  n = args_integer(in, &length, in->index++, 0, LENGTH_MAX);
  if ((size_t)n > whole)
    args_bad(in, &length,
             lua_pushfstring(L, "%I is more than the %I bytes there are",
                             (LUAI_UACINT)n, (LUAI_UACINT)whole));
  return (size_t)n;
}

void args_keep(struct reader *in, int index)
{
  lua_State *L = in->L;
  struct request *q = in->q;
  q->string_bytes += lua_rawlen(L, index);
  if (q->keep == 0) {
    q->keep = index;
    return;
  }
  if (!lua_istable(L, q->keep)) {
    lua_createtable(L, 3, 0);
    lua_pushvalue(L, q->keep);
    lua_rawseti(L, -2, 1);
    q->keep = lua_gettop(L);
  }
  lua_pushvalue(L, index);
  lua_rawseti(L, q->keep, (lua_Integer)lua_rawlen(L, q->keep) + 1);
}

static void read_text(struct reader *in, const struct arg *a, const char *noun)
{
  int i = in->index++;
  size_t len;
  const char *path;
  if (i > in->last || lua_type(in->L, i) != LUA_TSTRING)
    args_bad_type(in, a, i, "string");
  path = lua_tolstring(in->L, i, &len);
  if (memchr(path, '\0', len) != NULL)
    args_bad(in, a,
             lua_pushfstring(in->L, "there is a zero byte in the %s", noun));
  args_set_field(in->q, a, (lua_Integer)(uintptr_t)path);
  args_keep(in, i);
}

void args_read_path(struct reader *in, const struct arg *a)
{
  read_text(in, a, "path");
}

void args_read_name(struct reader *in, const struct arg *a)
{
  read_text(in, a, "name");
}

/*
** One Buffer or string
*/

void args_lend(struct reader *in, const struct buffer *b, size_t size,
               bool writes)
{
  struct request *q = in->q;
  q->buffer = b;
  q->size = size;
  q->writes = writes;
}

/* Takes from a pool in the place of a Buffer. */
static void take_from(struct reader *in, struct pool *pool)
{
  struct request *q = in->q;
  if (!pool->open)
    luaL_error(in->L, "attempt to use a closed pool");
  q->pool = pool;
  q->size = pool->size;
  q->event_flags |= EVENT_SELECTS;
  q->sqe.flags |= IOSQE_BUFFER_SELECT;
  q->sqe.buf_group = pool->group;
}

/* Is the next argument a Pool, or is it left out, so that an option has to
** name a group of buffers? */
static bool read_pool(struct reader *in)
{
  struct pool *pool = NULL;
  if (in->index <= in->last)
    pool = pool_test(in->L, in->q->core, in->index);
  if (pool != NULL) {
    take_from(in, pool);
    in->index++;
    return true;
  }
  in->q->needs_pool = in->index < in->last && lua_isnil(in->L, in->index);
  in->index += in->q->needs_pool;
  return in->q->needs_pool;
}

void args_read_pool(struct reader *in, const struct arg *a)
{
  if (!read_pool(in))
    args_bad_type(in, a, in->index, "Pool");
}

/* Of most calls it is a Buffer: that is looked for first. */
static bool is_no_buffer(const struct reader *in)
{
  return in->index > in->last ||
         buffer_test(in->L, in->q->core, in->index) == NULL;
}

static void read_buffer(struct reader *in, const struct arg *a)
{
  struct buffer *b = args_buffer(in, a, in->index++, "Buffer");
  args_set_field(in->q, a, (lua_Integer)(uintptr_t)buffer_data(b));
  args_lend(in, b, b->size, true);
}

static void read_data(struct reader *in, const struct arg *a)
{
  struct request *q = in->q;
  int i = in->index++;
  if (i <= in->last && lua_type(in->L, i) == LUA_TSTRING) {
    args_set_field(q, a, (lua_Integer)(uintptr_t)lua_tostring(in->L, i));
    q->size = lua_rawlen(in->L, i);
    args_keep(in, i);
  } else {
    struct buffer *b = args_buffer(in, a, i, "Buffer or string");
    args_set_field(q, a, (lua_Integer)(uintptr_t)buffer_data(b));
    args_lend(in, b, b->size, false);
  }
}

/* How much of a buffer of the pool may be used; 0: all of it. */
static void read_pool_length(struct reader *in)
{
  struct request *q = in->q;
  if (args_left_out(in))
    return;
  q->sqe.len = (uint32_t)args_length(in, q->pool != NULL ? q->size
                                                         : (size_t)LENGTH_MAX);
}

void args_read_length(struct reader *in, const struct arg *a)
{
  struct request *q = in->q;
  (void)a;
  q->size = args_length(in, q->size);
  q->sqe.len = (uint32_t)q->size;
}

void args_read_buffer(struct reader *in, const struct arg *a)
{
  if (in->q->row->pools && is_no_buffer(in) && read_pool(in)) {
    read_pool_length(in);
    return;
  }
  read_buffer(in, a);
  args_read_length(in, a);
}

void args_read_data(struct reader *in, const struct arg *a)
{
  if (in->q->row->pools && is_no_buffer(in) && read_pool(in)) {
    read_pool_length(in);
    return;
  }
  read_data(in, a);
  args_read_length(in, a);
  if (in->q->keep != 0)
    in->q->string_bytes = in->q->size;
}

/* How many pieces of sqe->len bytes the Buffer is to be cut into. */
void args_read_pieces(struct reader *in, const struct arg *a)
{
  struct request *q = in->q;
  lua_Integer n = args_integer(in, a, in->index++, 1, UINT16_MAX);
  if ((size_t)n * q->sqe.len > q->size)
    args_bad(in, a, "the Buffer has not so many bytes");
  q->size = (size_t)n * q->sqe.len;
  q->sqe.fd = (int)n;
}

/* As Buffer and data, but the length is an argument further on. */
void args_read_room(struct reader *in, const struct arg *a)
{
  read_buffer(in, a);
}

void args_read_value(struct reader *in, const struct arg *a)
{
  read_data(in, a);
}

/*
** Tables of them
*/

/* Checks member `n` of the vector (on the top of the stack), puts it into
** our copy. */
void args_take_member(struct reader *in, const struct arg *a, bool strings,
                      unsigned n)
{
  lua_State *L = in->L;
  struct request *q = in->q;
  const struct buffer *b = buffer_test(L, q->core, -1);
  if (b != NULL && b->block == NULL)
    luaL_error(L, "attempt to use a closed buffer");
  if (b == NULL && !(strings && lua_type(L, -1) == LUA_TSTRING))
    args_bad(in, a,
             lua_pushfstring(L, "%s expected at [%d], got %s",
                             strings ? "Buffer or string" : "Buffer", (int)n,
                             luaL_typename(L, -1)));
  if (b == NULL) {
    q->string_bytes += lua_rawlen(L, -1);
    q->keep = q->vector;
  }
  lua_rawseti(L, q->vector, n);
}

/* Copies the first `count` members of the table at `index`: the program may
** change its table while the kernel uses ours. */
static void copy_members(struct reader *in, const struct arg *a, int index,
                         unsigned count, bool strings)
{
  lua_State *L = in->L;
  lua_createtable(L, (int)count + 1, 0);
  in->q->vector = lua_gettop(L);
  for (unsigned n = 1; n <= count; n++) {
    lua_rawgeti(L, index, n);
    args_take_member(in, a, strings, n);
  }
  in->q->nvec = count;
}

static unsigned member_count(struct reader *in, const struct arg *a, int index)
{
  size_t count = lua_rawlen(in->L, index);
  if (count > VECTOR_MAX)
    args_bad(in, a, "more than 1024 members");
  return (unsigned)count;
}

static void read_vector(struct reader *in, const struct arg *a, bool writes)
{
  static const struct arg number = {.name = "count"};
  int i = in->index++;
  unsigned count;
  if (i > in->last || !lua_istable(in->L, i))
    args_bad_type(in, a, i, "table");
  count = member_count(in, a, i);
  if (!args_left_out(in))
    count = (unsigned)args_integer(in, &number, in->index++, 0, count);
  copy_members(in, a, i, count, !writes);
  in->q->writes = writes;
  in->q->aux = AUX_VECTOR;
}

void args_read_buffers(struct reader *in, const struct arg *a)
{
  read_vector(in, a, true);
}

void args_read_datas(struct reader *in, const struct arg *a)
{
  read_vector(in, a, false);
}

/*
** Messages: { data = …, to = address, control = … }
*/

/* The data: one Buffer or string, or a table of them. */
static void read_message_data(struct reader *in, const struct arg *a,
                              int message, bool writes)
{
  lua_State *L = in->L;
  int type = lua_getfield(L, message, "data");
  int data = lua_gettop(L);
  struct pool *pool = writes ? pool_test(L, in->q->core, data) : NULL;
  if (type == LUA_TTABLE) {
    copy_members(in, a, data, member_count(in, a, data), !writes);
    return;
  }
  lua_createtable(L, 2, 0);
  in->q->vector = lua_gettop(L);
  if (pool != NULL) {
    take_from(in, pool);
  } else if (type != LUA_TNIL) { /* a message may be empty */
    lua_pushvalue(L, data);
    args_take_member(in, a, !writes, 1);
    in->q->nvec = 1;
  }
}

static void read_message_control(struct reader *in, const struct arg *a,
                                 int message, bool writes)
{
  static const struct arg control = {.name = "control"};
  struct reader one = *in;
  int type = lua_getfield(in->L, message, "control");
  if (type == LUA_TNIL)
    return;
  one.last = lua_gettop(in->L);
  if (in->q->pool != NULL && type == LUA_TNUMBER) {
    in->q->control_room =
        (uint16_t)args_integer(&one, &control, one.last, 0, CONTROL_MAX);
    return;
  }
  args_take_member(in, a, !writes, ++in->q->nvec);
  in->q->has_control = true;
}

static void read_message_to(struct reader *in, const struct arg *a,
                            int message)
{
  lua_State *L = in->L;
  struct reader one = *in;
  if (lua_getfield(L, message, "to") == LUA_TNIL)
    return;
  one.index = one.last = lua_gettop(L);
  args_address(&one, a);
}

static bool message_knows(lua_State *L, bool writes, struct near *near)
{
  static const char *const names[] = {"data", "control", "to"};
  for (size_t i = 0; i < COUNT(names) - writes; i++) {
    near_offer(near, names[i]);
    if (args_is_name(L, -2, names[i]))
      return true;
  }
  return false;
}

static void check_message_names(struct reader *in, int message, bool writes)
{
  lua_State *L = in->L;
  struct near near;
  for (lua_pushnil(L); lua_next(L, message); lua_pop(L, 1)) {
    const char *name =
        lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    near_start(&near, name);
    if (lua_type(L, -2) == LUA_TSTRING && message_knows(L, writes, &near))
      continue;
    near_push(L, &near);
    luaL_error(L,
               "unknown field '%s' of the message of %s%s; it takes data "
               "control%s",
               name, in->q->row->name, lua_tostring(L, -1),
               writes ? "" : " to");
  }
}

static void read_message(struct reader *in, const struct arg *a, bool writes)
{
  int i = in->index++;
  struct request *q = in->q;
  if (i > in->last || !lua_istable(in->L, i))
    args_bad_type(in, a, i, "table");
  luaL_checkstack(in->L, 8, "too many values for a message");
  check_message_names(in, i, writes);
  if (!writes)
    read_message_to(in, a, i);
  read_message_data(in, a, i, writes);
  read_message_control(in, a, i, writes);
  q->writes = writes;
  q->sqe.len = 1;
  q->aux = AUX_MESSAGE;
}

void args_read_message_in(struct reader *in, const struct arg *a)
{
  read_message(in, a, true);
}

void args_read_message_out(struct reader *in, const struct arg *a)
{
  read_message(in, a, false);
}
