/* Calls that only wait until a stream's descriptor is ready, for what is done
** with the descriptor itself then.
*/
#include <poll.h>
#include <string.h>

#include "stream_call.h"

/* There is nothing to be looked at but whether it has been asked. */
static enum next look_readable(lua_State *L, struct stream *s,
                               struct piece *piece)
{
  (void)L;
  memset(piece, 0, sizeof *piece);
  return s->filled >= 0 ? DONE : WAIT;
}

static struct event *wait_readable(lua_State *L, struct stream *s,
                                   struct ring *r, const struct piece *piece)
{
  (void)piece;
  s->filled = 0;
  return stream_poll(L, s, r, LANE_READ, POLLIN);
}

static enum next look_writable(lua_State *L, struct stream *s,
                               struct piece *piece)
{
  (void)L;
  memset(piece, 0, sizeof *piece);
  return s->begun ? DONE : WAIT;
}

static struct event *wait_writable(lua_State *L, struct stream *s,
                                   struct ring *r, const struct piece *piece)
{
  (void)piece;
  s->begun = true;
  return stream_poll(L, s, r, LANE_WRITE, POLLOUT);
}

static int ready(lua_State *L, struct stream *s, const struct piece *piece)
{
  (void)s;
  (void)piece;
  lua_pushboolean(L, 1);
  return 1;
}

static int not_ready(lua_State *L, struct stream *s, int err, bool begun)
{
  (void)begun;
  return stream_failure(L, s, "poll", err);
}

static int readable_k(lua_State *L, int status, lua_KContext ctx);
static int writable_k(lua_State *L, int status, lua_KContext ctx);

static const struct stream_call readable_call = {.lane = LANE_READ,
                                                 .look = look_readable,
                                                 .start = wait_readable,
                                                 .finish = ready,
                                                 .failed = not_ready,
                                                 .k = readable_k};

static const struct stream_call writable_call = {.lane = LANE_WRITE,
                                                 .look = look_writable,
                                                 .start = wait_writable,
                                                 .finish = ready,
                                                 .failed = not_ready,
                                                 .k = writable_k};

static int readable_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return stream_call_k(L, ctx, &readable_call);
}

static int writable_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return stream_call_k(L, ctx, &writable_call);
}

int stream_wait_readable(lua_State *L)
{
  struct stream *s = stream_open_self(L);
  lua_settop(L, 1);
  return stream_call(L, s, &readable_call);
}

int stream_wait_writable(lua_State *L)
{
  struct stream *s = stream_open_self(L);
  lua_settop(L, 1);
  return stream_call(L, s, &writable_call);
}
