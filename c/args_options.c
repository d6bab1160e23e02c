/* The table of options, the last argument of any operation. */
#include "reader.h"

#include <string.h>
#include <sys/socket.h>

#include "multishot.h"
#include "near.h"
#include "options.h"
#include "pool.h"
#include "registered.h"
#include "skip.h"
#include "timer.h"

enum option_type {
  OPTION_FLAG,   /* true or false */
  OPTION_PLACE,  /* true, or the index of a registered file */
  OPTION_NUMBER, /* 0 to 65535 */
  OPTION_SECONDS
};

#define NAME(name) name, sizeof name - 1

static const struct named_option {
  const char *name;
  uint8_t length; /* of the name */
  uint8_t type;
  uint16_t option;
} options[] = {
    {NAME("async"), OPTION_FLAG, OPTION_ASYNC},
    {NAME("drain"), OPTION_FLAG, OPTION_DRAIN},
    {NAME("multishot"), OPTION_FLAG, OPTION_MULTISHOT},
    {NAME("peer"), OPTION_FLAG, OPTION_PEER},
    {NAME("poll_first"), OPTION_FLAG, OPTION_POLL_FIRST},
    {NAME("link"), OPTION_FLAG, OPTION_LINK},
    {NAME("hardlink"), OPTION_FLAG, OPTION_HARDLINK},
    {NAME("fixed_file"), OPTION_FLAG, OPTION_FIXED_FILE},
    {NAME("bundle"), OPTION_FLAG, OPTION_BUNDLE},
    {NAME("copy"), OPTION_FLAG, OPTION_COPY},
    {NAME("reuse"), OPTION_FLAG, OPTION_REUSE},
    {NAME("buffer_group"), OPTION_NUMBER, OPTION_BUFFER_GROUP},
    {NAME("direct"), OPTION_PLACE, OPTION_DIRECT},
    {NAME("skip_success"), OPTION_FLAG, OPTION_SKIP_SUCCESS},
    {NAME("eager"), OPTION_FLAG, OPTION_EAGER},
    {NAME("timeout"), OPTION_SECONDS, OPTION_TIMEOUT},
};

/* Can the descriptor be an index of a registered file?  epoll_ctl takes none.
** Of splice and tee it is fd_out; for fd_in there is SPLICE_F_FD_IN_FIXED. */
static uint16_t fixed_file(const struct row *row)
{
  return row->args[0].kind == ARG_FD && row->opcode != IORING_OP_EPOLL_CTL
             ? OPTION_FIXED_FILE
             : 0;
}

static uint16_t allowed_options(const struct row *row)
{
  uint16_t allowed = fixed_file(row) | row->options | OPTION_ASYNC |
                     OPTION_DRAIN | OPTION_LINK | OPTION_HARDLINK |
                     OPTION_EAGER | OPTION_TIMEOUT;
  if (row->pools)
    allowed |= OPTION_COPY | OPTION_BUFFER_GROUP | OPTION_REUSE;
  if (row->args[0].kind != ARG_RAW) /* whose success nobody knows */
    allowed |= OPTION_SKIP_SUCCESS;
  return allowed;
}

static void unknown_option(struct reader *in, const char *name,
                           uint16_t allowed)
{
  struct near near;
  near_start(&near, name);
  for (size_t i = 0; i < COUNT(options); i++)
    if (options[i].option & allowed)
      near_offer(&near, options[i].name);
  near_push(in->L, &near);
  lua_pushfstring(in->L, "unknown option '%s' of %s%s; it takes", name,
                  in->q->row->name, lua_tostring(in->L, -1));
  for (size_t i = 0; i < COUNT(options); i++)
    if (options[i].option & allowed)
      lua_pushfstring(in->L, "%s %s", lua_tostring(in->L, -1),
                      options[i].name);
  luaL_error(in->L, "%s", lua_tostring(in->L, -1));
}

/* The option whose name is below the value on the top. */
static const struct named_option *option_named(struct reader *in)
{
  uint16_t allowed = allowed_options(in->q->row);
  size_t length;
  const char *name = lua_tolstring(in->L, -2, &length);
  for (const struct named_option *o = options; o < options + COUNT(options);
       o++)
    if (o->length == length && o->option & allowed &&
        memcmp(o->name, name, length) == 0)
      return o;
  unknown_option(in, name, allowed);
  return NULL;
}

/* The value is on the top.  False: the option is off. */
static bool read_value(struct reader *in, const struct named_option *option,
                       int *number, int max, const char *expected)
{
  lua_State *L = in->L;
  int exact = lua_type(L, -1) == LUA_TNUMBER;
  lua_Integer n = exact ? lua_tointegerx(L, -1, &exact) : 0;
  bool is_flag = lua_isboolean(L, -1) && option->type != OPTION_NUMBER;
  if (!is_flag && (!exact || n < 0 || n > max || option->type == OPTION_FLAG))
    luaL_error(L, "option '%s' of %s is %s, not %s", option->name,
               in->q->row->name, expected,
               exact && option->type != OPTION_FLAG
                   ? luaL_tolstring(L, -1, NULL)
                   : lua_pushfstring(L, "a %s", luaL_typename(L, -1)));
  *number = is_flag ? -1 : (int)n;
  return !is_flag || lua_toboolean(L, -1);
}

static bool read_seconds(struct reader *in, const struct named_option *option,
                         struct options *o)
{
  lua_State *L = in->L;
  lua_Number seconds = lua_tonumber(L, -1);
  if (lua_type(L, -1) != LUA_TNUMBER)
    luaL_error(L, "option '%s' of %s is a number of seconds, not a %s",
               option->name, in->q->row->name, luaL_typename(L, -1));
  if (!(seconds >= 0))
    luaL_error(L, "option '%s' of %s is a number of seconds, not %f",
               option->name, in->q->row->name, seconds);
  o->timeout_ns = seconds_to_ns(seconds);
  return true;
}

static bool read_option(struct reader *in, const struct named_option *option,
                        struct options *o)
{
  int none;
  switch ((enum option_type)option->type) {
  case OPTION_PLACE:
    return read_value(in, option, &o->place, FILES_MAX - 1,
                      "true, false or an index of a registered file");
  case OPTION_NUMBER:
    return read_value(in, option, &o->number, UINT16_MAX,
                      "an integer from 0 to 65535");
  case OPTION_SECONDS:
    return read_seconds(in, option, o);
  case OPTION_FLAG:
    break;
  }
  return read_value(in, option, &none, 0, "true or false");
}

void args_push_options(lua_State *L, const struct options *o)
{
  const char *between = "";
  lua_pushliteral(L, "");
  for (size_t i = 0; i < COUNT(options); i++)
    if ((o->set | o->cleared) & options[i].option) {
      lua_pushfstring(L, "%s%s%s", lua_tostring(L, -1), between,
                      options[i].name);
      lua_replace(L, -2);
      between = " ";
    }
}

/* Does the row take all that is said in these? */
static void check_allowed(struct reader *in, const struct options *o)
{
  uint16_t allowed = allowed_options(in->q->row);
  unsigned wrong = (o->set | o->cleared) & ~(unsigned)allowed;
  for (size_t i = 0; wrong != 0 && i < COUNT(options); i++)
    if (wrong & options[i].option)
      unknown_option(in, options[i].name, allowed);
}

void args_take_options(struct reader *in, struct options *o)
{
  if (args_has_options(in)) {
    check_allowed(in, in->options);
    *o = *in->options;
    in->index++;
  } else if (lua_istable(in->L, in->index)) {
    luaL_checkstack(in->L, 8, "too many arguments");
    args_read_options(in, o);
  }
}

void args_read_options(struct reader *in, struct options *o)
{
  lua_State *L = in->L;
  int table = in->index++;
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    const struct named_option *option;
    if (lua_type(L, -2) != LUA_TSTRING)
      luaL_error(L, "options of %s have names", in->q->row->name);
    option = option_named(in);
    if (read_option(in, option, o))
      o->set |= option->option;
    else
      o->cleared |= option->option;
  }
}

/* A timer that fires faster than it can be handled cannot be cancelled. */
static void check_interval(lua_State *L, const struct request *q)
{
  if (q->time.tv_sec == 0 && q->time.tv_nsec < 100000)
    luaL_error(L, "timeout: one that repeats itself needs seconds >= "
                  "0.0001");
}

static void check_receiver(lua_State *L, const struct request *q)
{
  if (!(q->event_flags & EVENT_SELECTS))
    luaL_error(L, "multishot %s takes a pool in the place of a Buffer",
               q->row->name);
  if (q->sqe.len != 0 && q->row->opcode == IORING_OP_RECV)
    luaL_error(L, "multishot recv takes no length: it fills buffers");
}

static void make_multishot(lua_State *L, struct request *q)
{
  q->multishot = true;
  multishot_ask(&q->sqe);
  if (q->row->streams)
    check_receiver(L, q);
  if (q->row->opcode == IORING_OP_TIMEOUT)
    check_interval(L, q);
}

/* What goes with which pool. */
static const char *pool_mismatch(const struct request *q)
{
  const struct pool *pool = q->pool;
  if (q->event_flags & EVENT_BUNDLE && q->row->opcode == IORING_OP_RECV &&
      q->sqe.msg_flags & MSG_TRUNC)
    return "a bundle is not for MSG_TRUNC";
  if (q->event_flags & EVENT_REUSE &&
      q->event_flags & (EVENT_COPY | EVENT_BUNDLE))
    return "reuse goes neither with copy nor with bundle";
  if (pool == NULL)
    return NULL;
  if (q->event_flags & EVENT_BUNDLE && q->sqe.flags & IOSQE_ASYNC)
    return "a bundle is not for what is made async";
  if (q->event_flags & EVENT_BUNDLE && q->sqe.len > 0)
    return "a bundle takes no length: it is of whole buffers";
  if (pool->outgoing != (q->row->opcode == IORING_OP_SEND))
    return pool->outgoing ? "the pool is for sending"
                          : "the pool is not for sending";
  if (!pool->incremental)
    return NULL;
  if (q->row->opcode != IORING_OP_RECV &&
      q->row->opcode != URING_OP_READ_MULTISHOT)
    return "an incremental pool is for recv and read_multishot";
  if (q->event_flags & EVENT_BUNDLE)
    return "an incremental pool is not for bundles";
  if (q->row->opcode == IORING_OP_RECV && q->sqe.msg_flags & MSG_TRUNC)
    return "an incremental pool is not for MSG_TRUNC";
  return q->sqe.flags & IOSQE_ASYNC
             ? "an incremental pool is not for what is made async"
             : NULL;
}

/* Before each message stand a header, an address and control data. */
static void check_message_room(lua_State *L, const struct request *q)
{
  unsigned before = (unsigned)(sizeof(struct io_uring_recvmsg_out) +
                               sizeof(struct sockaddr_storage)) +
                    q->control_room;
  if (q->pool != NULL && q->pool->size <= before)
    luaL_error(
        L,
        "recvmsg: buffers of %d bytes have no room for a message behind "
        "%d bytes of header, address and control data",
        (int)q->pool->size, (int)before);
}

static void apply_bundle(lua_State *L, struct request *q)
{
  if (!(q->event_flags & EVENT_SELECTS))
    luaL_error(L, "a bundle of %s takes a pool in the place of a Buffer",
               q->row->name);
  q->sqe.ioprio |= URING_RECVSEND_BUNDLE;
  q->event_flags |= EVENT_BUNDLE;
}

static void apply_group(lua_State *L, struct request *q,
                        const struct options *o)
{
  if (!q->needs_pool)
    luaL_error(L, "buffer_group of %s goes with nil in the place of a Buffer",
               q->row->name);
  q->needs_pool = false;
  q->event_flags |= EVENT_SELECTS;
  q->sqe.flags |= IOSQE_BUFFER_SELECT;
  q->sqe.buf_group = (uint16_t)o->number;
}

static void apply_pool_options(lua_State *L, struct request *q,
                               const struct options *o)
{
  const char *why;
  if (o->set & OPTION_BUFFER_GROUP)
    apply_group(L, q, o);
  if (q->needs_pool)
    luaL_error(L,
               "bad argument to '%s' (Buffer, Pool, or nil with the option "
               "buffer_group, expected)",
               q->row->name);
  if (o->set & OPTION_BUNDLE)
    apply_bundle(L, q);
  if (o->set & OPTION_COPY)
    q->event_flags |= EVENT_COPY;
  if (o->set & OPTION_REUSE)
    q->event_flags |= EVENT_REUSE;
  why = pool_mismatch(q);
  if (why != NULL)
    luaL_error(L, "%s: %s", q->row->name, why);
}

/* Closing a registered file, and cancelling by one, say so in fields of their
** own. */
static void name_fixed_file(struct request *q)
{
  if (q->row->opcode == IORING_OP_CLOSE) {
    q->sqe.file_index = (uint32_t)q->sqe.fd + 1;
    q->sqe.fd = 0;
  } else if (q->row->opcode == IORING_OP_ASYNC_CANCEL) {
    q->sqe.cancel_flags |= IORING_ASYNC_CANCEL_FD_FIXED;
  } else {
    q->sqe.flags |= IOSQE_FIXED_FILE;
  }
}

/* Its SQE is handed over at once, which a group can only be as a whole. */
static void make_eager(lua_State *L, struct request *q)
{
  if (q->sqe.flags & SQE_LINKS)
    luaL_error(L,
               "option 'eager' of %s: an operation that is linked to the next "
               "has to wait for it",
               q->row->name);
  q->eager = true;
}

/* What it opens goes into a slot, this one or (-1) any that is empty.  A pipe
** takes this one and the next, and tells both apart from the result. */
static void make_direct(lua_State *L, struct request *q, int place)
{
  if (q->multishot && place >= 0)
    luaL_error(L,
               "option 'direct' of %s is true, and no slot, where it is "
               "multishot: each result takes another",
               q->row->name);
  q->sqe.file_index =
      place < 0 ? IORING_FILE_INDEX_ALLOC : (unsigned)place + 1;
  q->event_flags |= EVENT_DIRECT;
  q->place = q->row->result == RESULT_PIPE ? -1 : place;
}

static void apply_common(struct request *q, unsigned set)
{
  if (set & OPTION_FIXED_FILE)
    name_fixed_file(q);
  if (set & OPTION_ASYNC)
    q->sqe.flags |= IOSQE_ASYNC;
  if (set & OPTION_DRAIN)
    q->event_flags |= EVENT_DRAIN;
  if (set & OPTION_LINK)
    q->sqe.flags |= IOSQE_IO_LINK;
  if (set & OPTION_HARDLINK)
    q->sqe.flags |= IOSQE_IO_HARDLINK;
}

void args_apply_options(lua_State *L, struct request *q,
                        const struct options *o)
{
  const unsigned set = o->set;
  if (set != 0)
    apply_common(q, set);
  if (!args_has_special(q, set))
    return;
  if (set & OPTION_POLL_FIRST)
    q->sqe.ioprio |= IORING_RECVSEND_POLL_FIRST;
  if (q->row->pools)
    apply_pool_options(L, q, o);
  if (set & OPTION_MULTISHOT || q->row->multishot)
    make_multishot(L, q);
  if (set & OPTION_DIRECT)
    make_direct(L, q, o->place);
  if (q->row->result == RESULT_MESSAGE && q->multishot)
    check_message_room(L, q);
  if (q->has_control && q->multishot)
    luaL_error(L, "recvmsg: with multishot, control is a number of bytes");
  if (q->control_room > 0 && !q->multishot)
    luaL_error(L, "recvmsg: without multishot, control is a Buffer");
  if (set & OPTION_EAGER)
    make_eager(L, q);
  if (set & OPTION_TIMEOUT) {
    q->timed = true;
    q->deadline_ns = now_ns() + o->timeout_ns;
  }
  if (set & OPTION_SKIP_SUCCESS && skip_suits(q))
    q->event_flags |= EVENT_SKIPS;
  /* the peer's address is there to be had unless it is not wanted; a
  ** multishot accept has only one place for the addresses of many */
  if (q->row->result == RESULT_PEER && !(o->cleared & OPTION_PEER) &&
      !q->multishot) {
    q->event_flags |= EVENT_PEER;
    q->aux = AUX_PEER;
  }
}
