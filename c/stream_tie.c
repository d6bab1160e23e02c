/* Tied streams: what is buffered is written before a read has to wait, so that
** no answer is waited for whose question has not been sent.
*/
#include <stdint.h>

#include "stream_call.h"

/* A flush that a reading call begins with: that lies under its arguments. */
static const struct stream_call *reading(lua_State *L)
{
  const struct stream_call *c = lua_touserdata(L, 2);
  lua_remove(L, 2);
  return c;
}

static int finish_first(lua_State *L, struct stream *s,
                        const struct piece *piece)
{
  (void)piece;
  lua_settop(L, s->top[LANE_WRITE]);
  return stream_call_flushed(L, s, reading(L));
}

static int first_failed(lua_State *L, struct stream *s, int err, bool begun)
{
  (void)begun; /* the reading call has not */
  return reading(L)->failed(L, s, err, false);
}

static int first_k(lua_State *L, int status, lua_KContext ctx);

static const struct stream_call first_call = {.lane = LANE_WRITE,
                                              .look = stream_look_flush,
                                              .start = stream_send,
                                              .finish = finish_first,
                                              .failed = first_failed,
                                              .k = first_k};

static int first_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return stream_call_k(L, ctx, &first_call);
}

int stream_flush_first(lua_State *L, struct stream *s,
                       const struct stream_call *c)
{
  lua_pushlightuserdata(L, (void *)(uintptr_t)c);
  lua_insert(L, 2);
  return stream_call(L, s, &first_call);
}

/* stream:tie([on = true]) -> stream: what is buffered is written before a read
** has to wait */
int stream_tie(lua_State *L)
{
  struct stream *s = stream_open_self(L);
  s->tied = lua_isnone(L, 2) || lua_toboolean(L, 2);
  lua_settop(L, 1);
  return 1;
}
