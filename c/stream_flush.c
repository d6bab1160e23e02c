/* Calls of streams that write what is buffered before they do what they are
** for: flushing, closing, another buffer, another position.
*/
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "stream_call.h"

/* What a stream keeps before it is written, unless told otherwise. */
#define ROOM 16384u

enum next stream_look_flush(lua_State *L, struct stream *s,
                            struct piece *piece)
{
  (void)L;
  (void)piece;
  return output_size(&s->out) > 0 ? WAIT : DONE;
}

static int finish_flush(lua_State *L, struct stream *s,
                        const struct piece *piece)
{
  (void)piece;
  stream_unread(s);
  lua_settop(L, 1);
  return 1;
}

static int flush_failed(lua_State *L, struct stream *s, int err, bool begun)
{
  (void)begun;
  return stream_failure(L, s, s->kind == STREAM_SOCKET ? "send" : "write",
                        err);
}

static int flush_k(lua_State *L, int status, lua_KContext ctx);

static const struct stream_call flush_call = {.lane = LANE_WRITE,
                                              .look = stream_look_flush,
                                              .start = stream_send,
                                              .finish = finish_flush,
                                              .failed = flush_failed,
                                              .k = flush_k};

static int flush_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return stream_call_k(L, ctx, &flush_call);
}

/* stream:flush() -> stream; nil, message, errno */
static int stream_flush(lua_State *L)
{
  struct stream *s = stream_open_self(L);
  lua_settop(L, 1);
  return stream_call(L, s, &flush_call);
}

static int finish_k(lua_State *L, int status, lua_KContext ctx);

static const struct stream_call finish_call = {.lane = LANE_WRITE,
                                               .closes = true,
                                               .look = stream_look_flush,
                                               .start = stream_send,
                                               .finish = finish_flush,
                                               .failed = flush_failed,
                                               .k = finish_k};

static int finish_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return stream_call_k(L, ctx, &finish_call);
}

int stream_finish(lua_State *L)
{
  struct stream *s = stream_self(L);
  lua_settop(L, 1);
  return stream_call(L, s, &finish_call);
}

/*
** Buffering
*/

static int finish_setvbuf(lua_State *L, struct stream *s,
                          const struct piece *piece)
{
  (void)piece;
  output_drop(&s->out); /* there is nothing in it */
  s->buffering = (uint8_t)lua_tointeger(L, 2);
  s->room = (unsigned)lua_tointeger(L, 3);
  lua_pushboolean(L, 1);
  return 1;
}

static int setvbuf_k(lua_State *L, int status, lua_KContext ctx);

static const struct stream_call setvbuf_call = {.lane = LANE_WRITE,
                                                .look = stream_look_flush,
                                                .start = stream_send,
                                                .finish = finish_setvbuf,
                                                .failed = flush_failed,
                                                .k = setvbuf_k};

static int setvbuf_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return stream_call_k(L, ctx, &setvbuf_call);
}

/* One of the names at argument `arg`; io's words where it is none. */
static int check_name(lua_State *L, int arg, const char *method,
                      const char *const names[], int or)
{
  const char *name;
  if (or >= 0 && lua_isnoneornil(L, arg))
    return or ;
  name = lua_tostring(L, arg);
  if (name == NULL) {
    lua_pushfstring(L, "string expected, got %s",
                    lua_isnone(L, arg) ? "no value" : luaL_typename(L, arg));
    return stream_bad_argument(L, arg - 1, method, lua_tostring(L, -1));
  }
  for (int i = 0; names[i] != NULL; i++)
    if (strcmp(name, names[i]) == 0)
      return i;
  lua_pushfstring(L, "invalid option '%s'", name);
  return stream_bad_argument(L, arg - 1, method, lua_tostring(L, -1));
}

static lua_Integer check_integer(lua_State *L, int arg, const char *method,
                                 lua_Integer or)
{
  int exact;
  lua_Integer n;
  if (lua_isnoneornil(L, arg))
    return or ;
  n = lua_tointegerx(L, arg, &exact);
  if (exact)
    return n;
  if (lua_isnumber(L, arg))
    lua_pushliteral(L, "number has no integer representation");
  else
    lua_pushfstring(L, "number expected, got %s", luaL_typename(L, arg));
  return stream_bad_argument(L, arg - 1, method, lua_tostring(L, -1));
}

/* stream:setvbuf("no" | "full" | "line" [, size]) -> true; nil, message,
** errno */
static int stream_setvbuf(lua_State *L)
{
  static const char *const modes[] = {"no", "full", "line", NULL};
  struct stream *s = stream_open_self(L);
  int mode = check_name(L, 2, "setvbuf", modes, -1);
  lua_Integer size = check_integer(L, 3, "setvbuf", ROOM);
  if (size < 1)
    size = 1;
  if (size > 1 << 30)
    size = 1 << 30;
  lua_settop(L, 1);
  lua_pushinteger(L, mode);
  lua_pushinteger(L, size);
  return stream_call(L, s, &setvbuf_call);
}

/*
** Positions
*/

static int finish_seek(lua_State *L, struct stream *s,
                       const struct piece *piece)
{
  static const int whences[] = {SEEK_SET, SEEK_CUR, SEEK_END};
  int whence = whences[lua_tointeger(L, 2)];
  off_t offset = (off_t)lua_tointeger(L, 3), at;
  bool tells = whence == SEEK_CUR && offset == 0;
  (void)piece;
  if (!tells)
    stream_unread(s);
  at = lseek(s->fd, offset, whence);
  if (at < 0)
    return stream_failure(L, s, "seek", -errno);
  if (tells && s->regular)
    at -= (off_t)input_size(&s->in);
  lua_pushinteger(L, at);
  return 1;
}

static int seek_k(lua_State *L, int status, lua_KContext ctx);

static const struct stream_call seek_call = {.lane = LANE_WRITE,
                                             .look = stream_look_flush,
                                             .start = stream_send,
                                             .finish = finish_seek,
                                             .failed = flush_failed,
                                             .k = seek_k};

static int seek_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return stream_call_k(L, ctx, &seek_call);
}

/* stream:seek([whence [, offset]]) -> position; nil, message, errno */
static int stream_seek(lua_State *L)
{
  static const char *const whences[] = {"set", "cur", "end", NULL};
  struct stream *s = stream_open_self(L);
  int whence = check_name(L, 2, "seek", whences, 1);
  lua_Integer offset = check_integer(L, 3, "seek", 0);
  lua_settop(L, 1);
  lua_pushinteger(L, whence);
  lua_pushinteger(L, offset);
  return stream_call(L, s, &seek_call);
}

static const luaL_Reg methods[] = {
    {"flush", stream_flush},
    {"setvbuf", stream_setvbuf},
    {"seek", stream_seek},
    {NULL, NULL},
};

void stream_flush_register(lua_State *L)
{
  luaL_setfuncs(L, methods, 0);
}
