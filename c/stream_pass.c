/* Descriptors that are sent through a stream, in the lane of writing: what
** others write is before them and their data or behind, and not in between.
*/
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "passing.h"
#include "stream_call.h"

/* The data is argument 2, the descriptors are 3. */
static struct passing *passing_of(lua_State *L)
{
  return lua_touserdata(L, 3);
}

/* They go with the first bytes of the data that the socket takes. */
static enum next pass(lua_State *L, struct stream *s, struct passing *p)
{
  size_t size;
  const char *data = lua_tolstring(L, 2, &size);
  ssize_t n = passing_send(p, s->fd, data, size);
  if (n == -EAGAIN && (p->err = passing_own(p)) == 0)
    return WAIT;
  if (n < 0) {
    p->err = p->err != 0 ? p->err : (int)n;
    return DONE;
  }
  s->begun = true;
  s->last = 2;
  s->total = size;
  s->sent = (size_t)n;
  return s->sent < s->total ? WAIT : DONE;
}

static enum next look_pass(lua_State *L, struct stream *s, struct piece *piece)
{
  struct passing *p = passing_of(L);
  (void)piece;
  if (s->begun)
    return s->sent < s->total ? WAIT : DONE;
  if (output_size(&s->out) == 0)
    return pass(L, s, p);
  p->err = passing_own(p);
  return p->err == 0 ? WAIT : DONE;
}

static struct event *start_pass(lua_State *L, struct stream *s, struct ring *r,
                                const struct piece *piece)
{
  if (s->begun || output_size(&s->out) > 0)
    return stream_send(L, s, r, piece);
  return stream_poll(L, s, r, LANE_WRITE, POLLOUT);
}

static int pass_failed(lua_State *L, struct stream *s, int err, bool begun)
{
  (void)begun;
  return stream_failure(L, s, "sendmsg", err);
}

static int finish_pass(lua_State *L, struct stream *s,
                       const struct piece *piece)
{
  const struct passing *p = passing_of(L);
  (void)piece;
  if (p->err < 0)
    return pass_failed(L, s, p->err, true);
  lua_settop(L, 1);
  return 1;
}

static int pass_k(lua_State *L, int status, lua_KContext ctx);

static const struct stream_call pass_call = {.lane = LANE_WRITE,
                                             .look = look_pass,
                                             .start = start_pass,
                                             .finish = finish_pass,
                                             .failed = pass_failed,
                                             .k = pass_k};

static int pass_k(lua_State *L, int status, lua_KContext ctx)
{
  (void)status;
  return stream_call_k(L, ctx, &pass_call);
}

int stream_pass(lua_State *L)
{
  struct stream *s = stream_open_self(L);
  struct passing *p = passing_at(L, 3);
  luaL_checkstring(L, 2);
  lua_settop(L, 3);
  if (!stream_is_idle(s, LANE_WRITE))
    p->err = passing_own(p);
  if (p->err < 0)
    return pass_failed(L, s, p->err, false);
  return stream_call(L, s, &pass_call);
}
