/* Writing to streams.
**
** The arguments of a call are sent from where they are, several by one
** vector; a few short ones are put together first.  Where a stream is
** buffered they are copied while there is room, as C's stdio does it.
*/
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "stream_call.h"
#include "unwritten.h"

/* Several arguments of so many bytes, together, are copied to be one. */
#define GATHERED 8192u

/*
** The arguments
*/

size_t stream_argument(lua_State *L, const struct stream *s, int index,
                       const char **text)
{
  const struct buffer *b;
  size_t size;
  const char *at = NULL;
  if (lua_type(L, index) == LUA_TSTRING) {
    at = lua_tolstring(L, index, &size);
  } else {
    b = buffer_test(L, s->core, index);
    size = b->size;
    at = (const char *)buffer_data(b);
  }
  if (text != NULL)
    *text = at;
  return size;
}

static int bad_argument(lua_State *L, int index)
{
  lua_pushfstring(L, "string expected, got %s",
                  luaL_getmetafield(L, index, "__name") == LUA_TSTRING
                      ? lua_tostring(L, -1)
                      : luaL_typename(L, index));
  return stream_bad_argument(L, index - 1, "write", lua_tostring(L, -1));
}

#define NUMBER_MAX 64 /* characters of a number */

/* Numbers as io writes them; returns their size. */
static size_t number_to_text(lua_State *L, int index, char *text)
{
  int n = lua_isinteger(L, index) ? snprintf(text, NUMBER_MAX, LUA_INTEGER_FMT,
                                             lua_tointeger(L, index))
                                  : snprintf(text, NUMBER_MAX, LUA_NUMBER_FMT,
                                             lua_tonumber(L, index));
  return (size_t)n;
}

static void replace_number(lua_State *L, int index)
{
  char text[NUMBER_MAX];
  size_t size = number_to_text(L, index, text);
  lua_pushlstring(L, text, size);
  lua_replace(L, index);
}

/* A Buffer that the program cannot close, of the same bytes. */
static void keep_buffer(lua_State *L, int index, const struct buffer *b)
{
  struct buffer *slice = buffer_push_closed(L);
  buffer_read_access(L, b); /* a finaliser may have closed it */
  slice->block = b->block;
  slice->block->refs++;
  slice->offset = b->offset;
  slice->size = b->size;
  lua_replace(L, index);
}

/* Makes it a string or a Buffer of ours. */
static void check_argument(lua_State *L, const struct stream *s, int index)
{
  const struct buffer *b;
  switch (lua_type(L, index)) {
  case LUA_TSTRING:
    break;
  case LUA_TNUMBER:
    replace_number(L, index);
    break;
  default:
    b = buffer_test(L, s->core, index);
    if (b == NULL)
      bad_argument(L, index);
    else
      keep_buffer(L, index, b);
  }
}

static size_t size_of_all(lua_State *L, const struct stream *s, int last)
{
  size_t total = 0;
  for (int i = 2; i <= last; i++)
    total += stream_argument(L, s, i, NULL);
  return total;
}

/* Is there room for all of it, where the stream keeps what is written? */
static bool has_room(const struct stream *s, size_t size)
{
  size_t capacity = s->out.block != NULL ? s->out.block->size : s->room;
  return s->buffering != BUFFER_NOTHING && s->out.last + size <= capacity;
}

/* Are several arguments to be sent from where they are? */
static bool is_vector(lua_State *L, const struct stream *s, int last)
{
  size_t total;
  if (last <= 2)
    return false;
  total = size_of_all(L, s, last);
  return total > (s->buffering ? 0 : GATHERED) &&
         !(stream_is_idle(s, LANE_WRITE) && has_room(s, total));
}

/* A table that keeps them while they are sent together. */
static void push_keeper(lua_State *L, int last)
{
  lua_createtable(L, last - 1, 0);
  for (int i = 2; i <= last; i++) {
    lua_pushvalue(L, i);
    lua_rawseti(L, -2, i - 1);
  }
}

/*
** Writing
*/

static bool append(struct stream *s, const char *bytes, size_t size,
                   size_t room)
{
  struct output *out = &s->out;
  if (size == 0)
    return true;
  if (!unwritten_join(s))
    return false;
  if (out->block == NULL) {
    out->block = block_new(s->core, room, 16);
    out->first = out->last = 0;
  }
  if (out->block == NULL)
    return false;
  memcpy(out->block->data + out->last, bytes, size);
  out->last += (unsigned)size;
  return true;
}

/* Copies all the arguments; false: out of memory, and none is. */
static bool absorb(lua_State *L, struct stream *s, size_t room)
{
  const unsigned before = s->out.last;
  for (int i = 2; i <= s->last; i++) {
    const char *text;
    size_t size = stream_argument(L, s, i, &text);
    if (!append(s, text, size, room)) {
      s->out.last = before;
      return false;
    }
  }
  s->sent = s->total;
  return true;
}

static bool has_newline(lua_State *L, const struct stream *s)
{
  for (int i = 2; i <= s->last; i++) {
    const char *text;
    size_t size = stream_argument(L, s, i, &text);
    if (memchr(text, '\n', size) != NULL)
      return true;
  }
  return false;
}

/* The first look: how much is there, and can it be copied? */
static void begin_write(lua_State *L, struct stream *s)
{
  s->begun = true;
  s->last = s->top[LANE_WRITE];
  if (lua_istable(L, s->last))
    s->last--;
  s->total = size_of_all(L, s, s->last);
  if (s->total == 0 || !s->writable)
    return;
  stream_unread(s);
  s->flushes = s->buffering != BUFFER_FULL &&
               (s->buffering == BUFFER_NOTHING || has_newline(L, s));
  if (has_room(s, s->total))
    absorb(L, s, s->room); /* or it is sent from where it is */
  else if (s->buffering == BUFFER_NOTHING && s->last > 2 &&
           s->total <= GATHERED)
    absorb(L, s, s->total);
  else
    s->flushes = true;
}

static enum next look_write(lua_State *L, struct stream *s,
                            struct piece *piece)
{
  (void)piece;
  if (!s->begun)
    begin_write(L, s);
  if (s->total == 0 || !s->writable)
    return DONE;
  if (s->sent < s->total)
    return WAIT;
  return s->flushes && output_size(&s->out) > 0 ? WAIT : DONE;
}

static int write_failed(lua_State *L, struct stream *s, int err, bool begun)
{
  size_t sent = begun && s->begun ? s->sent : 0;
  int n;
  if (sent > 0 &&
      s->buffering == BUFFER_NOTHING) { /* what was put together is dropped */
    sent -= output_size(&s->out);
    output_drop(&s->out);
  }
  n = stream_failure(L, s, s->kind == STREAM_SOCKET ? "send" : "write", err);
  lua_pushinteger(L, (lua_Integer)sent);
  return n + 1;
}

static int finish_write(lua_State *L, struct stream *s,
                        const struct piece *piece)
{
  (void)piece;
  if (s->total > 0 && !s->writable)
    return write_failed(L, s, -EBADF, true);
  lua_settop(L, 1);
  return 1;
}

static int write_k(lua_State *L, int status, lua_KContext ctx);

static const struct stream_call write_call = {.lane = LANE_WRITE,
                                              .look = look_write,
                                              .start = stream_send,
                                              .finish = finish_write,
                                              .failed = write_failed,
                                              .k = write_k};

static int write_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return stream_call_k(L, ctx, &write_call);
}

/* One argument behind the others in `out`; false: there is no room, or it is
** neither string nor number. */
static bool keep_one(lua_State *L, struct output *out, int index)
{
  char text[NUMBER_MAX];
  const char *at = text;
  size_t size;
  switch (lua_type(L, index)) {
  case LUA_TSTRING:
    at = lua_tolstring(L, index, &size);
    break;
  case LUA_TNUMBER:
    size = number_to_text(L, index, text);
    break;
  default:
    return false;
  }
  if (size > out->block->size - out->last)
    return false;
  memcpy(out->block->data + out->last, at, size);
  out->last += (unsigned)size;
  return true;
}

bool stream_keep(lua_State *L, struct stream *s, int first, int last)
{
  struct output *out = &s->out;
  const unsigned before = out->last;
  stream_enter(s);
  if (out->block == NULL || s->buffering != BUFFER_FULL ||
      input_size(&s->in) > 0 || !stream_is_idle(s, LANE_WRITE))
    return false;
  for (int i = first; i <= last; i++) {
    if (!keep_one(L, out, i)) {
      out->last = before;
      return false;
    }
  }
  return true;
}

/* stream:write(…) -> stream; nil, message, errno, bytes written.  Takes
** strings, numbers and Buffers */
int stream_write(lua_State *L)
{
  struct stream *s = stream_open_self(L);
  const int last = lua_gettop(L);
  if (stream_keep(L, s, 2, last)) {
    lua_settop(L, 1);
    return 1;
  }
  stream_check_stack(L, last);
  for (int i = 2; i <= last; i++)
    check_argument(L, s, i);
  if (is_vector(L, s, last))
    push_keeper(L, last);
  return stream_call(L, s, &write_call);
}

static const luaL_Reg methods[] = {{"write", stream_write}, {NULL, NULL}};

void stream_write_register(lua_State *L)
{
  luaL_setfuncs(L, methods, 0);
}
