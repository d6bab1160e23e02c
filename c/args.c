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

#include "message.h"
#include "near.h"
#include "operation.h"
#include "options.h"
#include "reader.h"
#include "registered.h"
#include "ring_object.h"
#include "sockaddr.h"
#include "timer.h"

/*
** Errors
*/

int args_bad(const struct reader *in, const struct arg *a, const char *why)
{
  return luaL_error(in->L, "bad argument '%s' to '%s' (%s)", a->name,
                    in->q->row->name, why);
}

int args_bad_type(const struct reader *in, const struct arg *a, int index,
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

lua_Integer args_integer(const struct reader *in, const struct arg *a,
                         int index, lua_Integer min, lua_Integer max)
{
  lua_State *L = in->L;
  lua_Integer n;
  int exact;
  if (index > in->last || lua_type(L, index) != LUA_TNUMBER)
    args_bad_type(in, a, index, "integer");
  n = lua_tointegerx(L, index, &exact);
  if (!exact)
    args_bad(in, a, "number has no integer representation");
  if (n < min || n > max)
    args_bad(in, a, lua_pushfstring(L, "%I is out of range", (LUAI_UACINT)n));
  return n;
}

struct buffer *args_buffer(const struct reader *in, const struct arg *a,
                           int index, const char *expected)
{
  struct buffer *b =
      index <= in->last ? buffer_test(in->L, in->q->core, index) : NULL;
  if (b == NULL)
    args_bad_type(in, a, index, expected);
  if (b->block == NULL)
    luaL_error(in->L, "attempt to use a closed buffer");
  return b;
}

bool args_missing(const struct reader *in)
{
  return in->index > in->last || lua_isnil(in->L, in->index);
}

bool args_has_options(struct reader *in)
{
  if (in->options == NULL && lua_type(in->L, in->index) == LUA_TUSERDATA)
    in->options = options_test(in->L, in->q->core, in->index);
  return in->options != NULL;
}

/* An optional argument that is not given.  A table in its place is the table
** of options: the rest is not given either. */
bool args_left_out(struct reader *in)
{
  if (in->index <= in->last &&
      (lua_istable(in->L, in->index) || args_has_options(in)))
    return true;
  if (!args_missing(in))
    return false;
  in->index++;
  return true;
}

void args_set_field(struct request *q, const struct arg *a, lua_Integer n)
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
bool args_is_name(lua_State *L, int index, const char *name)
{
  size_t len;
  const char *s = lua_tolstring(L, index, &len);
  return len == strlen(name) && memcmp(s, name, len) == 0;
}

/*
** Numbers and names
*/

/* The fields of a request are 0 to begin with. */
static void args_default(struct request *q, const struct arg *a)
{
  if (a->fallback != 0)
    args_set_field(q, a, a->fallback);
}

static void read_integer(struct reader *in, const struct arg *a)
{
  if (a->optional && args_left_out(in))
    args_default(in->q, a);
  else
    args_set_field(in->q, a, args_integer(in, a, in->index++, a->min, a->max));
}

static void read_fd(struct reader *in, const struct arg *a)
{
  args_set_field(in->q, a, args_integer(in, a, in->index++, 0, INT_MAX));
}

static void read_dirfd(struct reader *in, const struct arg *a)
{
  int i = in->index++;
  bool here = i <= in->last &&
              (lua_isnil(in->L, i) || (lua_isinteger(in->L, i) &&
                                       lua_tointeger(in->L, i) == AT_FDCWD));
  args_set_field(in->q, a,
                 here ? AT_FDCWD : args_integer(in, a, i, 0, INT_MAX));
}

static void read_how(struct reader *in, const struct arg *a)
{
  static const char *const names[] = {"r", "w", "rw"}; /* SHUT_RD.. */
  int i = in->index++;
  if (i <= in->last && lua_type(in->L, i) == LUA_TSTRING) {
    for (unsigned how = 0; how < 3; how++)
      if (args_is_name(in->L, i, names[how])) {
        in->q->sqe.len = how;
        return;
      }
    args_bad(in, a, "'r', 'w' or 'rw' expected");
  }
  in->q->sqe.len = (uint32_t)args_integer(in, a, i, 0, 2);
}

static void read_events(struct reader *in, const struct arg *a)
{
  uint32_t mask = (uint32_t)args_integer(in, a, in->index++, 0, UINT32_MAX);
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
    args_bad_type(in, a, i, "number");
  seconds = lua_tonumber(in->L, i);
  if (!(seconds >= 0))
    args_bad(in, a, "seconds are negative");
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
  if (args_left_out(in))
    return;
  flags = args_integer(in, a, in->index++, 0, UINT32_MAX);
  if (flags & ~known)
    args_bad(in, a,
             "IORING_TIMEOUT_ABS, _BOOTTIME and _REALTIME are what it takes");
  in->q->sqe.timeout_flags = (uint32_t)flags;
}

/* The new time of a timeout, which is named by its address: so the time is
** looked for elsewhere. */
static void read_new_seconds(struct reader *in, const struct arg *a)
{
  read_seconds(in, a);
  in->q->sqe.len = 0;
  in->q->aux = AUX_NEW_TIME;
}

/* May the target be left out, because the flags behind it say that any
** operation will do? */
static bool any_will_do(const struct reader *in, const struct arg *a)
{
  return a->optional && in->index < in->last && lua_isnil(in->L, in->index) &&
         lua_isinteger(in->L, in->index + 1) &&
         lua_tointeger(in->L, in->index + 1) & IORING_ASYNC_CANCEL_ANY;
}

static void read_target(struct reader *in, const struct arg *a)
{
  struct operation *op = operation_test(in->L, in->index);
  in->q->sqe.fd = -1;
  if (!any_will_do(in, a)) {
    if (in->index > in->last || op == NULL)
      args_bad_type(in, a, in->index, "operation");
    in->q->target = op;
    in->q->sqe.addr = operation_user_data(op);
  }
  in->index++;
}

static void read_ring(struct reader *in, const struct arg *a)
{
  int i = in->index++;
  if (i > in->last || luaL_testudata(in->L, i, RING_TYPE) == NULL)
    args_bad_type(in, a, i, "ring");
  in->q->sqe.fd = ring_object_open(in->L, i)->io.ring_fd;
}

static void read_data_word(struct reader *in, const struct arg *a)
{
  lua_Integer n = args_integer(in, a, in->index++, 0, UINT32_MAX);
  in->q->sqe.off = message_user_data((uint32_t)n);
}

/* A file to be sent to another ring: where this ring has it, */
static void read_source_slot(struct reader *in, const struct arg *a)
{
  in->q->sqe.addr = IORING_MSG_SEND_FD;
  in->q->sqe.addr3 =
      (uint64_t)args_integer(in, a, in->index++, 0, FILES_MAX - 1);
}

/* and where the other is to, */
static void read_target_slot(struct reader *in, const struct arg *a)
{
  if (args_left_out(in))
    in->q->sqe.file_index = IORING_FILE_INDEX_ALLOC;
  else
    in->q->sqe.file_index =
        1 + (uint32_t)args_integer(in, a, in->index++, 0, FILES_MAX - 1);
}

void args_address(struct reader *in, const struct arg *a)
{
  struct request *q = in->q;
  int i = in->index++;
  const char *wrong, *text;
  size_t len;
  if (i > in->last || lua_type(in->L, i) != LUA_TSTRING)
    args_bad_type(in, a, i, "address as a string");
  text = lua_tolstring(in->L, i, &len);
  wrong = sockaddr_parse(text, len, &q->addr, &q->addr_len);
  if (wrong != NULL)
    args_bad(in, a, lua_pushfstring(in->L, "'%s': %s", text, wrong));
  q->aux = AUX_ADDRESS;
}

/*
** The whole call
*/

static read_one *const readers[] = {
    [ARG_INTEGER] = read_integer,
    [ARG_FD] = read_fd,
    [ARG_DIRFD] = read_dirfd,
    [ARG_PATH] = args_read_path,
    [ARG_NAME] = args_read_name,
    [ARG_BUFFER] = args_read_buffer,
    [ARG_DATA] = args_read_data,
    [ARG_BUFFERS] = args_read_buffers,
    [ARG_DATAS] = args_read_datas,
    [ARG_ADDRESS] = args_address,
    [ARG_SECONDS] = read_seconds,
    [ARG_CLOCK] = read_clock,
    [ARG_NEW_SECONDS] = read_new_seconds,
    [ARG_TARGET] = read_target,
    [ARG_RING] = read_ring,
    [ARG_DATA_WORD] = read_data_word,
    [ARG_SOURCE_SLOT] = read_source_slot,
    [ARG_TARGET_SLOT] = read_target_slot,
    [ARG_HOW] = read_how,
    [ARG_EVENTS] = read_events,
    [ARG_MESSAGE_IN] = args_read_message_in,
    [ARG_MESSAGE_OUT] = args_read_message_out,
    [ARG_ROOM] = args_read_room,
    [ARG_VALUE] = args_read_value,
    [ARG_LENGTH] = args_read_length,
    [ARG_PAGES] = args_read_pages,
    [ARG_ADVICE] = args_read_advice,
    [ARG_WORD] = args_read_word,
    [ARG_WORDS] = args_read_words,
    [ARG_WORD_KIND] = args_read_word_kind,
    [ARG_OPEN_HOW] = args_read_open_how,
    [ARG_EPOLL_OP] = args_read_epoll_op,
    [ARG_EPOLL_EVENT] = args_read_epoll_event,
    [ARG_OPTION_ROOM] = args_read_option_room,
    [ARG_OPTION_VALUE] = args_read_option_value,
    [ARG_POOL] = args_read_pool,
    [ARG_PIECES] = args_read_pieces,
    [ARG_COMMAND] = args_read_command,
    [ARG_FILES] = args_read_files,
    [ARG_FIRST_SLOT] = args_read_first_slot,
    [ARG_RAW] = args_read_raw,
};

static void check_no_more(struct reader *in)
{
  for (; in->index <= in->last; in->index++)
    if (!lua_isnil(in->L, in->index))
      luaL_error(in->L, "too many arguments to '%s'", in->q->row->name);
}

void args_read(lua_State *L, struct request *q, int first)
{
  struct reader in = {L, q, first, lua_gettop(L), NULL};
  struct options options = {0};
  for (const struct arg *a = q->row->args; a->kind != ARG_END; a++)
    if (a->optional && a->kind == ARG_INTEGER &&
        (in.index > in.last || in.options != NULL))
      args_default(q, a); /* most calls end before the last arguments */
    else
      readers[a->kind](&in, a);
  if (in.index <= in.last) {
    args_take_options(&in, &options);
    check_no_more(&in);
  }
  if (options.set || args_has_special(q, 0))
    args_apply_options(L, q, &options);
}
