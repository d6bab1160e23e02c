/* Reading from streams. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "errors.h"
#include "stream_call.h"

/* What a call to `lines` may have besides the stream: upvalues of a closure.
 */
#define FORMATS_MAX 250

/*
** Formats
*/

/* The stack index of the last format. */
static int last_format(const struct stream *s)
{
  return s->top[LANE_READ];
}

static enum found find(lua_State *L, struct stream *s, int index,
                       struct piece *piece)
{
  return format_find(L, last_format(s) < 2 ? 0 : index, &s->in, &s->limits,
                     piece);
}

/* A regular file that is read as a whole: how much there is left of it. */
static size_t left_of_file(const struct stream *s)
{
  struct statx info;
  off_t at = lseek(s->fd, 0, SEEK_CUR);
  if (at < 0 ||
      statx(s->fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &info) <
          0 ||
      info.stx_size <= (uint64_t)at)
    return 0;
  return (size_t)(info.stx_size - (uint64_t)at);
}

/* Goes through the formats, from the one that wanted more. */
static enum next look_formats(lua_State *L, struct stream *s,
                              struct piece *piece)
{
  enum found found;
  do {
    s->in.scanned =
        s->in.scanned < s->in.cursor ? s->in.cursor : s->in.scanned;
    found = find(L, s, s->format, piece);
  } while (found == FOUND && s->format < last_format(s) && s->format++);
  s->found = (uint8_t)found;
  if (found != WANTS)
    return DONE;
  if (s->regular && piece->wants > s->chunk) {
    size_t left = left_of_file(s);
    if (left < piece->wants || piece->all)
      piece->wants = left + 1; /* the end is found in one go */
  }
  return WAIT;
}

static int too_long(lua_State *L, const struct stream *s, const char *what,
                    size_t most)
{
  (void)s;
  lua_pushnil(L);
  lua_pushfstring(L, what, (LUAI_UACINT)most);
  lua_pushinteger(L, EMSGSIZE);
  return 3;
}

static void take(struct stream *s)
{
  input_take(&s->in, stream_is_file(s));
}

/* The results of several formats: they are found again, one by one. */
static int push_all(lua_State *L, struct stream *s)
{
  const int last = last_format(s);
  struct piece piece;
  int n = 0;
  s->in.cursor = s->in.scanned = s->in.first;
  for (int i = 2; i <= last; i++) {
    enum found found = find(L, s, i, &piece);
    n++;
    if (found != FOUND) {
      lua_pushnil(L);
      break;
    }
    format_push(L, &s->in, &piece);
    s->in.scanned = s->in.cursor;
  }
  take(s);
  return n;
}

static int finish_formats(lua_State *L, struct stream *s,
                          const struct piece *piece)
{
  const int format = s->format;
  switch ((enum found)s->found) {
  case TOO_LONG: /* nothing has been taken */
    return piece->all
               ? too_long(L, s, "there are more than %I bytes", s->limits.all)
               : too_long(L, s, "line is longer than %I bytes",
                          s->limits.line);
  case NO_FORMAT: /* io has read what the ones before it ask for */
    take(s);
    return stream_bad_argument(L, format - 1, "read",
                               format_complaint(L, format));
  case FOUND:
    if (last_format(s) > 2)
      break;
    format_push(L, &s->in, piece);
    take(s);
    return 1;
  case ABSENT:
    if (last_format(s) > 2)
      break;
    lua_pushnil(L);
    take(s);
    return 1;
  case WANTS:
    break;
  }
  return push_all(L, s);
}

static int read_failed(lua_State *L, struct stream *s, int err, bool begun)
{
  (void)begun;
  return stream_failure(L, s, s->kind == STREAM_SOCKET ? "recv" : "read", err);
}

static int read_k(lua_State *L, int status, lua_KContext ctx);

static const struct stream_call read_call = {.lane = LANE_READ,
                                             .look = look_formats,
                                             .start = stream_receive,
                                             .finish = finish_formats,
                                             .failed = read_failed,
                                             .k = read_k};

static int read_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return stream_call_k(L, ctx, &read_call);
}

/* stream:read(…) -> one result a format, up to the first that is nil; nil,
** message, errno */
int stream_read(lua_State *L)
{
  struct stream *s = stream_open_self(L);
  stream_check_stack(L, lua_gettop(L));
  return stream_call(L, s, &read_call);
}

/*
** Lines
*/

/* Upvalues of the iterator: stream, whether it closes it, how many formats,
** formats. */
enum { LINES_STREAM = 1, LINES_CLOSE, LINES_COUNT, LINES_FORMATS };

static int closed_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)L;
  (void)status;
  (void)ctx;
  return 0;
}

/* What read has given: n values on the top. */
static int lines_results(lua_State *L, int n)
{
  if (n > 0 && lua_toboolean(L, -n))
    return n;
  if (n > 1 && lua_isstring(L, -n + 1))
    return luaL_error(L, "%s", lua_tostring(L, -n + 1));
  if (lua_toboolean(L, lua_upvalueindex(LINES_CLOSE))) {
    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(LINES_STREAM));
    lua_getfield(L, 1, "close");
    lua_insert(L, 1);
    lua_callk(L, 1, 0, 0, closed_k);
  }
  return 0;
}

static int lines_finish(lua_State *L, struct stream *s,
                        const struct piece *piece)
{
  if (s->found == NO_FORMAT) { /* an argument of `lines`, to who wrote it */
    const char *why = format_complaint(L, s->format);
    take(s);
    return luaL_argerror(L, s->format, why);
  }
  return lines_results(L, finish_formats(L, s, piece));
}

static int lines_failed(lua_State *L, struct stream *s, int err, bool begun)
{
  return lines_results(L, read_failed(L, s, err, begun));
}

static int lines_k(lua_State *L, int status, lua_KContext ctx);

static const struct stream_call lines_call = {.lane = LANE_READ,
                                              .look = look_formats,
                                              .start = stream_receive,
                                              .finish = lines_finish,
                                              .failed = lines_failed,
                                              .k = lines_k};

static int lines_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return stream_call_k(L, ctx, &lines_call);
}

/* A line that is in hand as a whole, which most are. */
static bool push_line_in_hand(lua_State *L, struct stream *s)
{
  struct input *in = &s->in;
  const unsigned char *line, *newline;
  if (in->first == in->last || !stream_is_idle(s, LANE_READ))
    return false;
  line = input_at(in, in->first);
  newline = memchr(line, '\n', input_size(in));
  if (newline == NULL || (size_t)(newline - line) > s->limits.line)
    return false;
  lua_pushlstring(L, (const char *)line, (size_t)(newline - line));
  in->cursor = in->first + (size_t)(newline - line) + 1;
  take(s);
  return true;
}

static int lines_next(lua_State *L)
{
  struct stream *s = lua_touserdata(L, lua_upvalueindex(LINES_STREAM));
  int n = (int)lua_tointeger(L, lua_upvalueindex(LINES_COUNT));
  if (!stream_is_open(s))
    return luaL_error(L, "%s is already closed", stream_kind_name(s));
  stream_enter(s);
  if (n == 0 && push_line_in_hand(L, s))
    return 1;
  lua_settop(L, 0);
  stream_check_stack(L, n);
  lua_pushvalue(L, lua_upvalueindex(LINES_STREAM));
  for (int i = 0; i < n; i++)
    lua_pushvalue(L, lua_upvalueindex(LINES_FORMATS + i));
  return stream_call(L, s, &lines_call);
}

/* The stream and the formats are the stack: replaces them by the iterator. */
static void push_lines(lua_State *L, bool closes)
{
  int n = lua_gettop(L) - 1;
  if (n > FORMATS_MAX)
    stream_bad_argument(L, FORMATS_MAX + 1, "lines", "too many arguments");
  lua_pushvalue(L, 1);
  lua_pushboolean(L, closes);
  lua_pushinteger(L, n);
  lua_rotate(L, 2, 3);
  lua_pushcclosure(L, lines_next, LINES_FORMATS - 1 + n);
}

/* stream:lines(…) -> iterator */
static int stream_lines(lua_State *L)
{
  stream_open_self(L);
  push_lines(L, false);
  return 1;
}

int stream_lines_closing(lua_State *L)
{
  stream_open_self(L);
  push_lines(L, true);
  return 1;
}

/*
** Whatever is there
*/

#define SOME 65536

/* The one argument, which has been checked. */
static enum next look_some(lua_State *L, struct stream *s, struct piece *piece)
{
  size_t most = (size_t)lua_tointeger(L, 2);
  size_t ahead = input_ahead(&s->in);
  memset(piece, 0, sizeof *piece);
  if (ahead == 0 && !s->in.ended)
    return WAIT;
  piece->from = s->in.cursor;
  piece->size = ahead < most ? ahead : most;
  s->in.cursor += piece->size;
  return DONE;
}

static int finish_some(lua_State *L, struct stream *s,
                       const struct piece *piece)
{
  if (piece->size == 0)
    lua_pushnil(L);
  else
    format_push(L, &s->in, piece);
  take(s);
  return 1;
}

static int some_k(lua_State *L, int status, lua_KContext ctx);

static const struct stream_call some_call = {.lane = LANE_READ,
                                             .look = look_some,
                                             .start = stream_receive,
                                             .finish = finish_some,
                                             .failed = read_failed,
                                             .k = some_k};

static int some_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return stream_call_k(L, ctx, &some_call);
}

/* A positive integer; `or` where there is none, unless that is 0. */
static lua_Integer check_positive(lua_State *L, int index, const char *method,
                                  lua_Integer or)
{
  int exact;
  lua_Integer n;
  if (or > 0 && lua_isnoneornil(L, index))
    return or ;
  exact = lua_type(L, index) == LUA_TNUMBER;
  n = exact ? lua_tointegerx(L, index, &exact) : 0;
  if (!exact || n < 1)
    stream_bad_argument(L, index - 1, method, "positive integer expected");
  return n;
}

/* stream:read_some([max]) -> string of up to max bytes, as soon as there are
** any; nil at the end; nil, message, errno */
static int stream_read_some(lua_State *L)
{
  struct stream *s = stream_open_self(L);
  lua_Integer most = check_positive(L, 2, "read_some", SOME);
  lua_settop(L, 1);
  lua_pushinteger(L, most);
  return stream_call(L, s, &some_call);
}

/*
** Up to a delimiter
*/

static enum next look_until(lua_State *L, struct stream *s,
                            struct piece *piece)
{
  size_t size;
  const char *delimiter = lua_tolstring(L, 2, &size);
  size_t most = (size_t)lua_tointeger(L, 3);
  enum found found = format_find_text(&s->in, delimiter, size, most, piece);
  s->found = (uint8_t)found;
  return found == WANTS ? WAIT : DONE;
}

static int finish_until(lua_State *L, struct stream *s,
                        const struct piece *piece)
{
  if (s->found == TOO_LONG)
    return too_long(L, s, "no delimiter within %I bytes",
                    (size_t)lua_tointeger(L, 3));
  if (s->found == FOUND)
    format_push(L, &s->in, piece);
  else
    lua_pushnil(L);
  take(s);
  return 1;
}

static int until_k(lua_State *L, int status, lua_KContext ctx);

static const struct stream_call until_call = {.lane = LANE_READ,
                                              .look = look_until,
                                              .start = stream_receive,
                                              .finish = finish_until,
                                              .failed = read_failed,
                                              .k = until_k};

static int until_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return stream_call_k(L, ctx, &until_call);
}

/* stream:read_until(delimiter [, max]) -> string with the delimiter at its
** end; at the end of the stream what is left, without one; nil if that is
** nothing; nil, message, errno (EMSGSIZE: more than max bytes without one) */
static int stream_read_until(lua_State *L)
{
  struct stream *s = stream_open_self(L);
  size_t size = 0;
  lua_Integer most;
  if (lua_type(L, 2) == LUA_TSTRING)
    lua_tolstring(L, 2, &size);
  if (size == 0)
    stream_bad_argument(L, 1, "read_until",
                        "a string that is not empty expected");
  most = s->limits.line < UNLIMITED ? s->limits.line : LUA_MAXINTEGER;
  most = check_positive(L, 3, "read_until", most);
  lua_settop(L, 2);
  lua_pushinteger(L, most);
  return stream_call(L, s, &until_call);
}

/*
** Into a Buffer
*/

static struct buffer *filled(lua_State *L, const struct stream *s)
{
  return buffer_test(L, s->core, 2);
}

static bool can_be_filled(const struct buffer *b)
{
  return b->block != NULL &&
         loan_conflict(b->block, b->offset, b->size, true) == NULL;
}

static enum next look_recv(lua_State *L, struct stream *s, struct piece *piece)
{
  const struct buffer *b = filled(L, s);
  (void)piece;
  if (s->filled >= 0 || input_ahead(&s->in) > 0 || b->size == 0 ||
      !can_be_filled(b))
    return DONE;
  return WAIT;
}

static struct event *start_recv(lua_State *L, struct stream *s, struct ring *r,
                                const struct piece *piece)
{
  (void)piece;
  return stream_fill(L, s, r, filled(L, s));
}

static int finish_recv(lua_State *L, struct stream *s,
                       const struct piece *piece)
{
  const struct buffer *b = filled(L, s);
  struct input *in = &s->in;
  size_t n = input_size(in) < b->size ? input_size(in) : b->size;
  (void)piece;
  if (s->filled >= 0) {
    lua_pushinteger(L, s->filled);
    return 1;
  }
  buffer_write_access(L, b); /* or raises, and nothing has been taken */
  if (n > 0)
    memcpy(buffer_data(b), input_at(in, in->first), n);
  in->cursor = in->first + n;
  take(s);
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

static int recv_k(lua_State *L, int status, lua_KContext ctx);

static const struct stream_call recv_call = {.lane = LANE_READ,
                                             .look = look_recv,
                                             .start = start_recv,
                                             .finish = finish_recv,
                                             .failed = read_failed,
                                             .k = recv_k};

static int recv_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return stream_call_k(L, ctx, &recv_call);
}

/* stream:recv(Buffer) -> bytes, 0 at the end; nil, message, errno */
static int stream_recv(lua_State *L)
{
  struct stream *s = stream_open_self(L);
  if (filled(L, s) == NULL) {
    lua_pushfstring(L, "Buffer expected, got %s", luaL_typename(L, 2));
    return stream_bad_argument(L, 1, "recv", lua_tostring(L, -1));
  }
  lua_settop(L, 2);
  return stream_call(L, s, &recv_call);
}

static const luaL_Reg methods[] = {
    {"read", stream_read},           {"lines", stream_lines},
    {"read_some", stream_read_some}, {"read_until", stream_read_until},
    {"recv", stream_recv},           {NULL, NULL},
};

void stream_read_register(lua_State *L)
{
  luaL_setfuncs(L, methods, 0);
}
