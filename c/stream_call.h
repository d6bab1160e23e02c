/* Calls on streams that may wait. */
#ifndef URING_STREAM_CALL_H
#define URING_STREAM_CALL_H

#include "stream.h"

enum { LANE_READ, LANE_WRITE };

/* What there is to do next. */
enum next {
  DONE, /* `finish` gives the results, or raises */
  WAIT  /* an operation is to be started */
};

/* A kind of call.  The stream is at stack index 1 all the time, the arguments
** of the call behind it. */
struct stream_call {
  uint8_t lane;
  bool closes; /* it is for a stream that is being closed */
  /* Says how things stand.  Takes nothing, and raises nothing. */
  enum next (*look)(lua_State *L, struct stream *s, struct piece *piece);
  /* Fills in the next operation; NULL: out of memory.  Raises nothing: there
  ** is a free event, and room in the backlog. */
  struct event *(*start)(lua_State *L, struct stream *s, struct ring *r,
                         const struct piece *piece);
  /* The lane is somebody else's by now: this may raise. */
  int (*finish)(lua_State *L, struct stream *s, const struct piece *piece);
  /* The call has come to nothing: -errno, or STREAM_LATE.  `begun`: it has had
  ** the lane, and what there is of a call in the stream is its own. */
  int (*failed)(lua_State *L, struct stream *s, int err, bool begun);
  lua_KFunction k; /* stream_call_k with this call */
};

int stream_call(lua_State *L, struct stream *s, const struct stream_call *c);
int stream_call_k(lua_State *L, lua_KContext ctx, const struct stream_call *c);

/* The same, for a reading call that does not flush before it waits. */
int stream_call_flushed(lua_State *L, struct stream *s,
                        const struct stream_call *c);

/* Of calls that write what is buffered, and no more. */
enum next stream_look_flush(lua_State *L, struct stream *s,
                            struct piece *piece);

/* Flushes, and makes the reading call when that has ended. */
int stream_flush_first(lua_State *L, struct stream *s,
                       const struct stream_call *c);

/* May a call that has to wait for nothing be done at once? */
static inline bool stream_is_idle(const struct stream *s, unsigned lane)
{
  return s->lanes[stream_is_file(s) ? LANE_READ : lane].owner == NULL;
}

/* A call in the lane begins, with so many values on the stack. */
void stream_begin(struct stream *s, unsigned lane, int top);

/* A slot and an SQE for an operation on a descriptor, to be filled in and
** queued; NULL: out of memory.  Raises only where there is no free event. */
struct event *stream_event(lua_State *L, struct ring *r, uint8_t opcode,
                           int fd, struct io_uring_sqe *sqe);

/* The operations by which calls are carried out.  The last one only waits
** until the descriptor can be read or written (POLLIN, POLLOUT). */
struct event *stream_receive(lua_State *L, struct stream *s, struct ring *r,
                             const struct piece *piece);
struct event *stream_fill(lua_State *L, struct stream *s, struct ring *r,
                          const struct buffer *b);
struct event *stream_send(lua_State *L, struct stream *s, struct ring *r,
                          const struct piece *piece);
struct event *stream_poll(lua_State *L, struct stream *s, struct ring *r,
                          unsigned lane, unsigned events);

/* The size of an argument of a writing call, and where its bytes are. */
size_t stream_argument(lua_State *L, const struct stream *s, int index,
                       const char **text);

/* What came of one: 0 or -errno. */
int stream_settle(struct stream *s, unsigned lane, struct outcome *o);

void stream_io_register(void);

/* Waits for the end of what is under way, and counts it in, without running
** anybody: the stream is let go of, and its task will never run again. */
void stream_end_operation(lua_State *L, struct stream *s, unsigned lane);

/* Ends what is under way, and whoever waits in line: the stream is being
** closed. */
void stream_interrupt(struct stream *s);

#endif
