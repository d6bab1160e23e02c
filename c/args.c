/* Arguments of one call: from the Lua stack into a request.
**
** One reader a kind of argument.  Readers raise on what is wrong and change
** nothing but the request; what they push stays on the stack until the
** operation has its own hold on it.
*/
#include "args.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/uio.h>

#include "near.h"
#include "operation.h"
#include "sockaddr.h"
#include "timer.h"

/* The most that one read or write moves (MAX_RW_COUNT in the kernel). */
#define LENGTH_MAX ((lua_Integer)0x7ffff000)

#define COUNT(array) (sizeof(array) / sizeof *(array))

#define VECTOR_MAX 1024u /* IOV_MAX, the kernel's UIO_MAXIOV */

struct reader {
  lua_State *L;
  struct request *q;
  int index; /* the next argument */
  int last;  /* the last one; what readers push lies above */
};

/*
** Errors
*/

static int bad(const struct reader *in, const struct arg *a, const char *why)
{
  return luaL_error(in->L, "bad argument '%s' to '%s' (%s)", a->name,
                    in->q->row->name, why);
}

static int bad_type(const struct reader *in, const struct arg *a, int index,
                    const char *expected)
{
  const char *got =
      index > in->last ? "no value" : luaL_typename(in->L, index);
  return luaL_error(in->L, "bad argument '%s' to '%s' (%s expected, got %s)",
                    a->name, in->q->row->name, expected, got);
}

/*
** Values
*/

static lua_Integer to_integer(const struct reader *in, const struct arg *a,
                              int index, lua_Integer min, lua_Integer max)
{
  lua_State *L = in->L;
  lua_Integer n;
  int exact;
  if (index > in->last || lua_type(L, index) != LUA_TNUMBER)
    bad_type(in, a, index, "integer");
  n = lua_tointegerx(L, index, &exact);
  if (!exact)
    bad(in, a, "number has no integer representation");
  if (n < min || n > max)
    bad(in, a, lua_pushfstring(L, "%I is out of range", (LUAI_UACINT)n));
  return n;
}

static struct buffer *to_buffer(const struct reader *in, const struct arg *a,
                                int index, const char *expected)
{
  struct buffer *b =
      index <= in->last ? buffer_test(in->L, in->q->core, index) : NULL;
  if (b == NULL)
    bad_type(in, a, index, expected);
  if (b->block == NULL)
    luaL_error(in->L, "attempt to use a closed buffer");
  return b;
}

static bool missing(const struct reader *in)
{
  return in->index > in->last || lua_isnil(in->L, in->index);
}

/* An optional argument that is not given.  A table in its place is the table
** of options: the rest is not given either. */
static bool left_out(struct reader *in)
{
  if (in->index <= in->last && lua_istable(in->L, in->index))
    return true;
  if (!missing(in))
    return false;
  in->index++;
  return true;
}

static void set_field(struct request *q, const struct arg *a, lua_Integer n)
{
  unsigned char *field = (unsigned char *)&q->sqe + a->where;
  uint64_t u64 = (uint64_t)n;
  uint32_t u32 = (uint32_t)n;
  uint16_t u16 = (uint16_t)n;
  if (a->width == 8)
    memcpy(field, &u64, 8);
  else if (a->width == 4)
    memcpy(field, &u32, 4);
  else
    memcpy(field, &u16, 2);
}

/* Is the string at this index exactly this name? */
static bool is_name(lua_State *L, int index, const char *name)
{
  size_t len;
  const char *s = lua_tolstring(L, index, &len);
  return len == strlen(name) && memcmp(s, name, len) == 0;
}

/*
** Numbers and names
*/

static void read_integer(struct reader *in, const struct arg *a)
{
  if (a->optional && left_out(in))
    set_field(in->q, a, a->fallback);
  else
    set_field(in->q, a, to_integer(in, a, in->index++, a->min, a->max));
}

static void read_fd(struct reader *in, const struct arg *a)
{
  in->q->sqe.fd = (int)to_integer(in, a, in->index++, 0, INT_MAX);
}

static void read_dirfd(struct reader *in, const struct arg *a)
{
  int i = in->index++;
  if (i <= in->last && lua_isnil(in->L, i))
    in->q->sqe.fd = AT_FDCWD;
  else if (i <= in->last && lua_isinteger(in->L, i) &&
           lua_tointeger(in->L, i) == AT_FDCWD)
    in->q->sqe.fd = AT_FDCWD;
  else
    in->q->sqe.fd = (int)to_integer(in, a, i, 0, INT_MAX);
}

static void read_path(struct reader *in, const struct arg *a)
{
  struct request *q = in->q;
  int i = in->index++;
  size_t len;
  const char *path;
  if (i > in->last || lua_type(in->L, i) != LUA_TSTRING)
    bad_type(in, a, i, "string");
  path = lua_tolstring(in->L, i, &len);
  if (memchr(path, '\0', len) != NULL)
    bad(in, a, "there is a zero byte in the path");
  q->sqe.addr = (uintptr_t)path;
  q->keep = i;
  q->string_bytes = len;
}

static void read_how(struct reader *in, const struct arg *a)
{
  static const char *const names[] = {"r", "w", "rw"}; /* SHUT_RD.. */
  int i = in->index++;
  if (i <= in->last && lua_type(in->L, i) == LUA_TSTRING) {
    for (unsigned how = 0; how < 3; how++)
      if (is_name(in->L, i, names[how])) {
        in->q->sqe.len = how;
        return;
      }
    bad(in, a, "'r', 'w' or 'rw' expected");
  }
  in->q->sqe.len = (uint32_t)to_integer(in, a, i, 0, 2);
}

static void read_events(struct reader *in, const struct arg *a)
{
  uint32_t mask = (uint32_t)to_integer(in, a, in->index++, 0, UINT32_MAX);
#if __BYTE_ORDER == __BIG_ENDIAN
  mask = __swahw32(mask);
#endif
  in->q->sqe.poll32_events = mask;
}

static void read_seconds(struct reader *in, const struct arg *a)
{
  int i = in->index++;
  lua_Number seconds;
  uint64_t ns;
  if (i > in->last || lua_type(in->L, i) != LUA_TNUMBER)
    bad_type(in, a, i, "number");
  seconds = lua_tonumber(in->L, i);
  if (!(seconds >= 0))
    bad(in, a, "seconds are negative");
  ns = seconds_to_ns(seconds);
  in->q->time.tv_sec = (int64_t)(ns / 1000000000u);
  in->q->time.tv_nsec = (long long)(ns % 1000000000u);
  in->q->sqe.len = 1;
  in->q->aux = AUX_TIME;
}

/* Which clock, and whether the time is absolute; what else the kernel has
** flags for has rows or options of its own. */
static void read_clock(struct reader *in, const struct arg *a)
{
  const lua_Integer known =
      IORING_TIMEOUT_ABS | IORING_TIMEOUT_BOOTTIME | IORING_TIMEOUT_REALTIME;
  lua_Integer flags;
  if (left_out(in))
    return;
  flags = to_integer(in, a, in->index++, 0, UINT32_MAX);
  if (flags & ~known)
    bad(in, a,
        "IORING_TIMEOUT_ABS, _BOOTTIME and _REALTIME are what it takes");
  in->q->sqe.timeout_flags = (uint32_t)flags;
}

static void read_target(struct reader *in, const struct arg *a)
{
  struct operation *op = operation_test(in->L, in->index);
  if (in->index > in->last || op == NULL)
    bad_type(in, a, in->index, "operation");
  in->index++;
  in->q->target = op;
  in->q->sqe.fd = -1;
  in->q->sqe.addr = operation_user_data(op);
}

static void read_address(struct reader *in, const struct arg *a)
{
  struct request *q = in->q;
  int i = in->index++;
  const char *wrong, *text;
  size_t len;
  if (i > in->last || lua_type(in->L, i) != LUA_TSTRING)
    bad_type(in, a, i, "address as a string");
  text = lua_tolstring(in->L, i, &len);
  wrong = sockaddr_parse(text, len, &q->addr, &q->addr_len);
  if (wrong != NULL)
    bad(in, a, lua_pushfstring(in->L, "'%s': %s", text, wrong));
  q->aux = AUX_ADDRESS;
}

/*
** Memory
*/

/* The optional length behind a Buffer or string of `whole` bytes. */
static size_t read_length(struct reader *in, size_t whole)
{
  static const struct arg length = {.name = "length"};
  lua_State *L = in->L;
  lua_Integer n;
  if (left_out(in))
    return whole < (size_t)LENGTH_MAX ? whole : (size_t)LENGTH_MAX;
  n = to_integer(in, &length, in->index++, 0, LENGTH_MAX);
  if ((size_t)n > whole)
    bad(in, &length,
        lua_pushfstring(L, "%I is more than the %I bytes there are",
                        (LUAI_UACINT)n, (LUAI_UACINT)whole));
  return (size_t)n;
}

static void lend_buffer(struct request *q, const struct buffer *b, size_t size,
                        bool writes)
{
  q->buffer = b;
  q->size = size;
  q->writes = writes;
  q->sqe.addr = (uintptr_t)buffer_data(b);
  q->sqe.len = (uint32_t)size;
}

static void read_buffer(struct reader *in, const struct arg *a)
{
  struct buffer *b = to_buffer(in, a, in->index++, "Buffer");
  lend_buffer(in->q, b, read_length(in, b->size), true);
}

static void read_data(struct reader *in, const struct arg *a)
{
  struct request *q = in->q;
  int i = in->index++;
  size_t len;
  const char *s;
  if (i > in->last || lua_type(in->L, i) != LUA_TSTRING) {
    struct buffer *b = to_buffer(in, a, i, "Buffer or string");
    lend_buffer(q, b, read_length(in, b->size), false);
    return;
  }
  s = lua_tolstring(in->L, i, &len);
  q->keep = i;
  q->string_bytes = read_length(in, len);
  q->sqe.addr = (uintptr_t)s;
  q->sqe.len = (uint32_t)q->string_bytes;
}

/* Checks member `n` of the vector (on the top of the stack), puts it into
** our copy. */
static void take_member(struct reader *in, const struct arg *a, bool strings,
                        unsigned n)
{
  lua_State *L = in->L;
  struct request *q = in->q;
  const struct buffer *b = buffer_test(L, q->core, -1);
  if (b != NULL && b->block == NULL)
    luaL_error(L, "attempt to use a closed buffer");
  if (b == NULL && !(strings && lua_type(L, -1) == LUA_TSTRING))
    bad(in, a,
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
    take_member(in, a, strings, n);
  }
  in->q->nvec = count;
}

static unsigned member_count(struct reader *in, const struct arg *a, int index)
{
  size_t count = lua_rawlen(in->L, index);
  if (count > VECTOR_MAX)
    bad(in, a, "more than 1024 members");
  return (unsigned)count;
}

static void read_vector(struct reader *in, const struct arg *a, bool writes)
{
  static const struct arg number = {.name = "count"};
  int i = in->index++;
  unsigned count;
  if (i > in->last || !lua_istable(in->L, i))
    bad_type(in, a, i, "table");
  count = member_count(in, a, i);
  if (!left_out(in))
    count = (unsigned)to_integer(in, &number, in->index++, 0, count);
  copy_members(in, a, i, count, !writes);
  in->q->writes = writes;
  in->q->aux = AUX_VECTOR;
}

static void read_buffers(struct reader *in, const struct arg *a)
{
  read_vector(in, a, true);
}

static void read_datas(struct reader *in, const struct arg *a)
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
  if (type == LUA_TTABLE) {
    copy_members(in, a, data, member_count(in, a, data), !writes);
    return;
  }
  lua_createtable(L, 2, 0);
  in->q->vector = lua_gettop(L);
  if (type != LUA_TNIL) { /* a message may be empty */
    lua_pushvalue(L, data);
    take_member(in, a, !writes, 1);
    in->q->nvec = 1;
  }
}

static void read_message_control(struct reader *in, const struct arg *a,
                                 int message, bool writes)
{
  if (lua_getfield(in->L, message, "control") == LUA_TNIL)
    return;
  take_member(in, a, !writes, ++in->q->nvec);
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
  read_address(&one, a);
}

static bool message_knows(lua_State *L, bool writes, struct near *near)
{
  static const char *const names[] = {"data", "control", "to"};
  for (size_t i = 0; i < COUNT(names) - writes; i++) {
    near_offer(near, names[i]);
    if (is_name(L, -2, names[i]))
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
    bad_type(in, a, i, "table");
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

static void read_message_in(struct reader *in, const struct arg *a)
{
  read_message(in, a, true);
}

static void read_message_out(struct reader *in, const struct arg *a)
{
  read_message(in, a, false);
}

/*
** Raw: any SQE by its fields
*/

#define FIELD(f)                                                              \
  (uint8_t) offsetof(struct io_uring_sqe, f),                                 \
      sizeof(((struct io_uring_sqe *)0)->f)

static const struct raw_field {
  const char *name;
  uint8_t where, width;
} raw_fields[] = {
    {"fd", FIELD(fd)},
    {"len", FIELD(len)},
    {"flags", 1, 1}, /* sqe->flags; by number: it is a bit-field's width */
    {"ioprio", FIELD(ioprio)},
    {"rw_flags", FIELD(rw_flags)},
    {"buf_index", FIELD(buf_index)},
    {"personality", FIELD(personality)},
    {"file_index", FIELD(splice_fd_in)},
};

static const char *const raw_pointers[] = {"addr", "addr2", "addr3"};
static const char *const raw_others[] = {"opcode", "off", "keep", "multishot"};

static bool raw_knows(lua_State *L, struct near *near)
{
  bool found = false;
  for (size_t i = 0; i < COUNT(raw_fields); i++) {
    near_offer(near, raw_fields[i].name);
    found |= is_name(L, -2, raw_fields[i].name);
  }
  for (size_t i = 0; i < COUNT(raw_pointers); i++) {
    near_offer(near, raw_pointers[i]);
    found |= is_name(L, -2, raw_pointers[i]);
  }
  for (size_t i = 0; i < COUNT(raw_others); i++) {
    near_offer(near, raw_others[i]);
    found |= is_name(L, -2, raw_others[i]);
  }
  return found;
}

static void check_raw_names(struct reader *in, int table)
{
  lua_State *L = in->L;
  struct near near;
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    const char *name =
        lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    near_start(&near, name);
    if (lua_type(L, -2) == LUA_TSTRING && raw_knows(L, &near))
      continue;
    near_push(L, &near);
    luaL_error(L, "unknown field '%s' of raw%s", name, lua_tostring(L, -1));
  }
}

static void read_raw_field(struct reader *in, int table,
                           const struct raw_field *f)
{
  struct arg a = {.name = f->name, .where = f->where, .width = f->width};
  lua_Integer max = f->width == 1   ? UINT8_MAX
                    : f->width == 2 ? UINT16_MAX
                                    : UINT32_MAX;
  struct reader one = *in;
  lua_Integer n;
  if (lua_getfield(in->L, table, f->name) != LUA_TNIL) {
    one.last = lua_gettop(in->L);
    n = to_integer(&one, &a, one.last, INT32_MIN, max);
    if (f->width == 1)
      in->q->sqe.flags = (uint8_t)n;
    else
      set_field(in->q, &a, n);
  }
  lua_pop(in->L, 1);
}

/* Does the opcode only read what it is pointed at?  Only then may it be
** pointed at a Lua string. */
static bool only_reads(uint8_t opcode)
{
  const struct row *row = op_of_opcode(opcode);
  if (row == NULL)
    return false;
  for (const struct arg *a = row->args; a->kind != ARG_END; a++)
    if (a->kind == ARG_DATA || a->kind == ARG_PATH)
      return true;
  return false;
}

static size_t data_length(lua_State *L, const struct core *core, int index)
{
  const struct buffer *b = buffer_test(L, core, index);
  return b != NULL ? b->size : lua_rawlen(L, index);
}

/* addr, addr2 or addr3: a Buffer or a string to lend, or a plain number.
** Members of the vector are kept in this order; `false` holds a place. */
static void read_raw_pointer(struct reader *in, int table, unsigned n,
                             uint64_t *field)
{
  lua_State *L = in->L;
  struct request *q = in->q;
  struct arg a = {.name = raw_pointers[n]};
  struct reader one = *in;
  int type = lua_getfield(L, table, a.name);
  one.last = lua_gettop(L);
  if (type == LUA_TNUMBER)
    *field = (uint64_t)to_integer(&one, &a, one.last, LUA_MININTEGER,
                                  LUA_MAXINTEGER);
  if (type == LUA_TNUMBER || type == LUA_TNIL) {
    lua_pop(L, 1);
    lua_pushboolean(L, 0);
    lua_rawseti(L, q->vector, n + 1);
    return;
  }
  if (type == LUA_TSTRING && !(n == 0 && only_reads(q->sqe.opcode)))
    bad(in, &a, "the kernel may write there: give it a Buffer");
  if (n == 0 && lua_getfield(L, table, "len") == LUA_TNIL)
    q->sqe.len = (uint32_t)data_length(L, q->core, one.last);
  lua_settop(L, one.last);
  take_member(&one, &a, true, n + 1);
}

/* What `keep` names is held until the end, whatever happens to the table. */
static void read_raw_keep(struct reader *in, int table)
{
  lua_State *L = in->L;
  struct request *q = in->q;
  if (lua_getfield(L, table, "keep") == LUA_TNIL) {
    lua_pop(L, 1);
    return;
  }
  if (lua_istable(L, -1)) {
    lua_Integer count = (lua_Integer)lua_rawlen(L, -1);
    for (lua_Integer i = 1; i <= count; i++) {
      lua_rawgeti(L, -1, i);
      lua_rawseti(L, q->vector, 3 + i);
    }
    lua_pop(L, 1);
  } else {
    lua_rawseti(L, q->vector, 4);
  }
  q->keep = q->vector;
}

static void read_raw_opcode(struct reader *in, int table)
{
  static const struct arg opcode = {.name = "opcode"};
  static const struct arg off = {.name = "off"};
  struct reader one = *in;
  lua_getfield(in->L, table, "opcode");
  one.last = lua_gettop(in->L);
  in->q->sqe.opcode =
      (uint8_t)to_integer(&one, &opcode, one.last, 0, UINT8_MAX);
  lua_getfield(in->L, table, "off");
  one.last = lua_gettop(in->L);
  if (!lua_isnil(in->L, -1))
    in->q->sqe.off = (uint64_t)to_integer(&one, &off, one.last, LUA_MININTEGER,
                                          LUA_MAXINTEGER);
  lua_getfield(in->L, table, "multishot");
  in->q->multishot = lua_toboolean(in->L, -1);
  lua_pop(in->L, 3);
}

/* Of an opcode whose `len` is known to count the bytes at `addr`, no more of
** them than there are. */
static void check_raw_length(struct reader *in)
{
  static const struct arg len = {.name = "len"};
  const struct row *row = op_of_opcode(in->q->sqe.opcode);
  size_t size;
  lua_rawgeti(in->L, in->q->vector, 1);
  size = data_length(in->L, in->q->core, lua_gettop(in->L));
  if (row != NULL && !lua_isboolean(in->L, -1))
    for (const struct arg *a = row->args; a->kind != ARG_END; a++)
      if ((a->kind == ARG_BUFFER || a->kind == ARG_DATA) &&
          in->q->sqe.len > size)
        bad(in, &len,
            lua_pushfstring(in->L, "%I is more than the %I bytes there are",
                            (LUAI_UACINT)in->q->sqe.len, (LUAI_UACINT)size));
  lua_pop(in->L, 1);
}

/* What the library could not keep account of. */
static void check_raw_flags(struct reader *in)
{
  static const struct arg flags = {.name = "flags"};
  struct request *q = in->q;
  if (q->sqe.flags & IOSQE_CQE_SKIP_SUCCESS)
    bad(in, &flags, "an operation without a completion would never end");
  if (q->sqe.flags & IOSQE_IO_DRAIN) { /* see the backlog in ring.c */
    q->sqe.flags &= (uint8_t)~IOSQE_IO_DRAIN;
    q->event_flags |= EVENT_DRAIN;
  }
}

static void read_raw(struct reader *in, const struct arg *a)
{
  lua_State *L = in->L;
  struct request *q = in->q;
  int table = in->index++;
  uint64_t addr = 0, addr2, addr3 = 0;
  if (table > in->last || !lua_istable(L, table))
    bad_type(in, a, table, "table");
  check_raw_names(in, table);
  read_raw_opcode(in, table);
  for (size_t i = 0; i < COUNT(raw_fields); i++)
    read_raw_field(in, table, &raw_fields[i]);
  q->writes = true; /* it may: nobody else gets at the Buffers meanwhile */
  lua_createtable(L, 4, 0);
  q->vector = lua_gettop(L);
  q->nvec = 3;
  addr2 = q->sqe.off;
  read_raw_pointer(in, table, 0, &addr);
  read_raw_pointer(in, table, 1, &addr2);
  read_raw_pointer(in, table, 2, &addr3);
  q->sqe.addr = addr;
  q->sqe.off = addr2;
  q->sqe.__pad2[0] = addr3;
  read_raw_keep(in, table);
  q->aux = AUX_RAW;
  if (op_yields_fd(q->sqe.opcode) && q->sqe.file_index == 0)
    q->event_flags |= EVENT_YIELDS_FD;
  check_raw_flags(in);
  check_raw_length(in);
}

/*
** Options
*/

static const struct {
  const char *name;
  uint8_t option;
} options[] = {
    {"async", OPTION_ASYNC},           {"drain", OPTION_DRAIN},
    {"multishot", OPTION_MULTISHOT},   {"peer", OPTION_PEER},
    {"poll_first", OPTION_POLL_FIRST}, {"link", OPTION_LINK},
    {"hardlink", OPTION_HARDLINK},
};

static uint8_t allowed_options(const struct row *row)
{
  return row->options | OPTION_ASYNC | OPTION_DRAIN | OPTION_LINK |
         OPTION_HARDLINK;
}

/* The option whose name is below the value on the top. */
static uint8_t option_named(struct reader *in)
{
  const char *name = lua_tostring(in->L, -2);
  uint8_t allowed = allowed_options(in->q->row);
  struct near near;
  near_start(&near, name);
  for (size_t i = 0; i < COUNT(options); i++) {
    if (!(options[i].option & allowed))
      continue;
    if (is_name(in->L, -2, options[i].name))
      return options[i].option;
    near_offer(&near, options[i].name);
  }
  near_push(in->L, &near);
  lua_pushfstring(in->L, "unknown option '%s' of %s%s; it takes", name,
                  in->q->row->name, lua_tostring(in->L, -1));
  for (size_t i = 0; i < COUNT(options); i++)
    if (options[i].option & allowed)
      lua_pushfstring(in->L, "%s %s", lua_tostring(in->L, -1),
                      options[i].name);
  luaL_error(in->L, "%s", lua_tostring(in->L, -1));
  return 0;
}

static void read_options(struct reader *in, unsigned *set, unsigned *cleared)
{
  lua_State *L = in->L;
  int table = in->index++;
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    uint8_t option;
    if (lua_type(L, -2) != LUA_TSTRING)
      luaL_error(L, "options of %s have names", in->q->row->name);
    option = option_named(in);
    if (!lua_isboolean(L, -1))
      luaL_error(L, "option '%s' of %s is true or false, not a %s",
                 lua_tostring(L, -2), in->q->row->name, luaL_typename(L, -1));
    *(lua_toboolean(L, -1) ? set : cleared) |= option;
  }
}

static void make_multishot(lua_State *L, struct request *q)
{
  q->multishot = true;
  if (q->row->opcode == IORING_OP_POLL_ADD) {
    q->sqe.len |= IORING_POLL_ADD_MULTI;
  } else if (q->row->opcode == IORING_OP_ACCEPT) {
    q->sqe.ioprio |= IORING_ACCEPT_MULTISHOT;
  } else {
    q->sqe.timeout_flags |= URING_TIMEOUT_MULTISHOT;
    /* one that fires faster than it can be handled cannot be cancelled */
    if (q->time.tv_sec == 0 && q->time.tv_nsec < 100000)
      luaL_error(L, "timeout: one that repeats itself needs seconds >= "
                    "0.0001");
  }
}

static void apply_options(lua_State *L, struct request *q, unsigned set,
                          unsigned cleared)
{
  if (set & OPTION_ASYNC)
    q->sqe.flags |= IOSQE_ASYNC;
  if (set & OPTION_DRAIN)
    q->event_flags |= EVENT_DRAIN;
  if (set & OPTION_LINK)
    q->sqe.flags |= IOSQE_IO_LINK;
  if (set & OPTION_HARDLINK)
    q->sqe.flags |= IOSQE_IO_HARDLINK;
  if (set & OPTION_POLL_FIRST)
    q->sqe.ioprio |= IORING_RECVSEND_POLL_FIRST;
  if (set & OPTION_MULTISHOT)
    make_multishot(L, q);
  /* the peer's address is there to be had unless it is not wanted; a
  ** multishot accept has only one place for the addresses of many */
  if (q->row->result == RESULT_PEER && !(cleared & OPTION_PEER) &&
      !q->multishot) {
    q->event_flags |= EVENT_PEER;
    q->aux = AUX_PEER;
  }
}

/*
** The whole call
*/

typedef void read_one(struct reader *in, const struct arg *a);

static read_one *const readers[] = {
    [ARG_INTEGER] = read_integer,
    [ARG_FD] = read_fd,
    [ARG_DIRFD] = read_dirfd,
    [ARG_PATH] = read_path,
    [ARG_BUFFER] = read_buffer,
    [ARG_DATA] = read_data,
    [ARG_BUFFERS] = read_buffers,
    [ARG_DATAS] = read_datas,
    [ARG_ADDRESS] = read_address,
    [ARG_SECONDS] = read_seconds,
    [ARG_CLOCK] = read_clock,
    [ARG_TARGET] = read_target,
    [ARG_HOW] = read_how,
    [ARG_EVENTS] = read_events,
    [ARG_MESSAGE_IN] = read_message_in,
    [ARG_MESSAGE_OUT] = read_message_out,
    [ARG_RAW] = read_raw,
};

static void check_no_more(struct reader *in)
{
  for (; in->index <= in->last; in->index++)
    if (!lua_isnil(in->L, in->index))
      luaL_error(in->L, "too many arguments to '%s'", in->q->row->name);
}

void args_read(lua_State *L, struct request *q, int first)
{
  struct reader in = {L, q, first, lua_gettop(L)};
  unsigned set = 0, cleared = 0;
  for (const struct arg *a = q->row->args; a->kind != ARG_END; a++)
    readers[a->kind](&in, a);
  if (in.index <= in.last) {
    luaL_checkstack(L, 8, "too many arguments");
    if (lua_istable(L, in.index))
      read_options(&in, &set, &cleared);
    check_no_more(&in);
  }
  if (q->row->options || set)
    apply_options(L, q, set, cleared);
}
