/* Streams: sockets, pipes, terminals and files behind one face, with the
** manners of Lua's own files.
**
** A stream owns its descriptor.  At most one call reads and one writes at a
** time (at a file, one does either): whoever has the lane.  The others stand
** in line and get it in their order, so that no two calls share what one of
** them wants, and a line of writers is held up by a peer that does not read.
**
** Nothing is allocated for a call but its results, and no lane is held where
** something could raise: what a call has come to lies in the stream, and the
** bytes it has read stay in hand until it is complete.
*/
#ifndef URING_STREAM_H
#define URING_STREAM_H

#include "formats.h"
#include "outcome.h"
#include "scheduler.h"

struct event;
struct ring;

enum stream_kind { STREAM_SOCKET, STREAM_PIPE, STREAM_TTY, STREAM_FILE };

enum stream_buffering { BUFFER_NOTHING, BUFFER_FULL, BUFFER_LINES };

/* One call at a time; who has it, and what it waits for. */
struct lane {
  struct queue waiting; /* tasks, in the order in which they get it */
  struct task *owner;   /* NULL: it is free */
  uint64_t operation;   /* user_data of what is under way */
};

/* What the owner of a lane waits for. */
enum stream_wait {
  WAIT_NOTHING,
  WAIT_TURN,    /* it has just been given the lane */
  WAIT_RECEIVE, /* bytes, into hand */
  WAIT_FILL,    /* bytes, into a Buffer */
  WAIT_SEND,
  WAIT_READY /* what does not block has to be asked for first */
};

/* Bytes to be written before those of the call. */
struct output {
  struct block *block; /* NULL: there are none */
  unsigned first, last;
};

/* A connection that is silent costs this much; so what can share does. */
struct stream {
  const void *mark; /* streams are known by it, see stream_self */
  struct core *core;
  int fd;            /* -1: closed, or none yet */
  unsigned epoch;    /* of the process whose tasks have the lanes */
  uint8_t kind;      /* enum stream_kind */
  uint8_t buffering; /* enum stream_buffering */
  uint8_t waits[2];  /* enum stream_wait, a lane each */
  uint8_t found;     /* enum found: what the reading call has come to */
  bool borrowed : 1; /* `fd` is not ours to close */
  bool closing : 1;  /* `fd` is only there to be closed */
  bool writable : 1; /* or nobody knows */
  bool regular : 1;  /* it has a position, which others may share */
  bool appends : 1;  /* and is written at its end, wherever that is */
  bool starved : 1;  /* the pool had no buffer for it */
  bool polls : 1;    /* operations on it say EAGAIN: it is polled first */
  bool begun : 1;    /* the writing call has been looked at */
  bool flushes : 1;  /* it leaves nothing in `out` */
  bool tied : 1;     /* what is in `out` is sent before a read waits */
  unsigned chunk;    /* bytes to ask for */
  unsigned room;     /* bytes that `out` keeps, where it is buffered */
  struct lane lanes[2];
  int top[2]; /* values on the stack of a call, a lane each */
  int format; /* of the reading call: where its format is */
  int last;   /* of the writing call: where its last argument is */
  struct input in;
  struct output out;
  size_t total, sent; /* bytes of the writing call */
  union {
    unsigned asked; /* bytes that are being read into hand */
    int filled;     /* bytes that were read into a Buffer, or -1 */
  };
  struct limits limits;
  unsigned unwritten;  /* its place among those with an output, or 0 */
  uint64_t timeout_ns; /* for one call; 0: none */
};

#define STREAM_TYPE "uring.stream"

/* Who has a lane outside of tasks. */
#define LANE_OUTSIDE ((struct task *)-1)

/* Pushes a stream without a descriptor; its name is the value at `name`.  0:
** of a socket that is told of by its own address. */
struct stream *stream_push(lua_State *L, struct core *core,
                           enum stream_kind kind, int name);

/* Gives it its descriptor.  Cannot fail. */
void stream_open(struct stream *s, int fd);

/* The stream at index 1; raises if it is something else. */
struct stream *stream_self(lua_State *L);

/* The same, which must be open. */
struct stream *stream_open_self(lua_State *L);

struct stream *stream_test(lua_State *L, int index);

/* nil, message, errno; a file's errors have no subject, as io's have none. */
int stream_failure(lua_State *L, const struct stream *s, const char *subject,
                   int err);

/* The time of a call is up: not an errno. */
#define STREAM_LATE (-0x10000)

/* "bad argument #n to 'method' (why)", the stream itself not counted. */
int stream_bad_argument(lua_State *L, int n, const char *method,
                        const char *why);

/* Makes sure of room for `n` values more; a function has room for a few as it
** is, and asking for it could fail for want of memory. */
static inline void stream_check_stack(lua_State *L, int n)
{
  if (n > LUA_MINSTACK / 2)
    luaL_checkstack(L, n + LUA_MINSTACK, "too many arguments");
}

static inline bool stream_is_open(const struct stream *s)
{
  return s->fd >= 0 && !s->closing;
}

static inline bool stream_is_file(const struct stream *s)
{
  return s->kind == STREAM_FILE;
}

/* In a child of fork those who wait are the parent's. */
void stream_adopt(struct stream *s);

static inline void stream_enter(struct stream *s)
{
  if (s->epoch != *s->core->epoch)
    stream_adopt(s);
}

static inline size_t output_size(const struct output *out)
{
  return out->last - out->first;
}

static inline void output_drop(struct output *out)
{
  if (out->block != NULL)
    block_unref(out->block);
  out->block = NULL;
  out->first = out->last = 0;
}

static inline const char *stream_kind_name(const struct stream *s)
{
  static const char *const names[] = {"socket", "pipe", "tty", "file"};
  return names[s->kind];
}

/* Methods, for who has put a stream before the arguments. */
int stream_read(lua_State *L);
int stream_write(lua_State *L);

/* What most calls of `write` come to where a stream keeps what is written: its
** arguments, from index `first` to `last`, are added to that.  False: it is
** not that simple, and nothing has been done. */
bool stream_keep(lua_State *L, struct stream *s, int first, int last);

/* Before a file is written or its position is asked for: it is where reading
** looks to be. */
void stream_unread(struct stream *s);

void stream_register(lua_State *L, struct core *core);

/* Adds methods to the table on the top. */
void stream_read_register(lua_State *L);
void stream_write_register(lua_State *L);
void stream_flush_register(lua_State *L);

/* stream:tie([on = true]) -> stream: what is buffered is written before a read
** has to wait */
int stream_tie(lua_State *L);

/* stream_lines(stream, …) -> iterator that closes the stream at its end */
int stream_lines_closing(lua_State *L);

/* stream_readable(stream), stream_writable(stream) -> true, when there is
** something to be read, or room to write; nil, message, errno */
int stream_wait_readable(lua_State *L);
int stream_wait_writable(lua_State *L);

/* stream_pass(stream, data, Passing) -> stream: the descriptors are sent with the
** data; nil, message, errno */
int stream_pass(lua_State *L);

/* stream_finish(stream): what is buffered is written, by a stream that is
** being closed -> true | nil, message, errno */
int stream_finish(lua_State *L);

#endif
