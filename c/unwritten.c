/* What is left to be written. */
#include "unwritten.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "event.h"
#include "ring.h"
#include "stream_call.h"
#include "timer.h"

/* The cores of the process.  Only this list is shared by threads: what a core
** has belongs to the thread that made it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct core *cores;

static bool grow(struct core *core)
{
  const size_t size = core->unwritten_room * sizeof *core->unwritten;
  const unsigned room =
      core->unwritten_room > 0 ? core->unwritten_room * 2 : 8;
  struct stream **list =
      mem_realloc(core, core->unwritten, size, room * sizeof *core->unwritten);
  if (list == NULL)
    return false;
  core->unwritten = list;
  core->unwritten_room = room;
  return true;
}

bool unwritten_join(struct stream *s)
{
  struct core *core = s->core;
  if (s->unwritten != 0 || core->closed)
    return true;
  if (core->unwritten_count == core->unwritten_room && !grow(core))
    return false;
  core->unwritten[core->unwritten_count++] = s;
  s->unwritten = core->unwritten_count;
  return true;
}

/* The last takes its place. */
void unwritten_leave(struct stream *s)
{
  struct core *core = s->core;
  if (s->unwritten == 0 || core->unwritten == NULL)
    return;
  core->unwritten[s->unwritten - 1] = core->unwritten[--core->unwritten_count];
  core->unwritten[s->unwritten - 1]->unwritten = s->unwritten;
  s->unwritten = 0;
}

/* Some of it, at most so many bytes; false: no more of it can be written. */
static bool write_some(struct stream *s, size_t most)
{
  struct output *out = &s->out;
  const unsigned char *at = out->block->data + out->first;
  size_t size = output_size(out) < most ? output_size(out) : most;
  ssize_t n = s->kind == STREAM_SOCKET
                  ? send(s->fd, at, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                  : write(s->fd, at, size);
  if (n > 0)
    out->first += (unsigned)n;
  return n > 0 || (n < 0 && errno == EINTR);
}

static bool has_some(const struct stream *s)
{
  return s->buffering != BUFFER_NOTHING && output_size(&s->out) > 0;
}

void unwritten_write(struct stream *s)
{
  while (has_some(s) && write_some(s, SIZE_MAX)) {
  }
}

/* Does the kernel have it, or will it in a moment? */
static bool is_under_way(const struct stream *s)
{
  return s->lanes[stream_is_file(s) ? LANE_READ : LANE_WRITE].operation !=
         USER_DATA_NONE;
}

void unwritten_try(struct stream *s)
{
  struct pollfd p = {.fd = s->fd, .events = POLLOUT};
  if (is_under_way(s))
    return;
  while (has_some(s) && poll(&p, 1, 0) == 1 && write_some(s, PIPE_BUF)) {
  }
}

/* How long the kernel is given at exit for what it is writing already. */
#define LAST_WAIT_NS 1000000000u

/* At exit nobody reaps any more: waits until the kernel is done with an
** operation, and counts what that has written of the buffer.  False: it is
** not, or nobody knows what has come of it. */
static bool count_in(struct stream *s, struct ring *r, uint64_t user_data)
{
  const uint64_t deadline = now_ns() + LAST_WAIT_NS;
  for (;;) {
    const struct io_uring_cqe *cqe;
    unsigned head, seen = 0;
    io_uring_for_each_cqe(&r->io, head, cqe)
    {
      size_t n = cqe->res > 0 ? (size_t)cqe->res : 0;
      seen++;
      if (cqe->user_data != user_data)
        continue;
      s->out.first +=
          (unsigned)(n < output_size(&s->out) ? n : output_size(&s->out));
      return true;
    }
    if (now_ns() >= deadline)
      return false;
    (void)r->driver->enter(r, 0, seen + 1, IORING_ENTER_GETEVENTS, deadline);
  }
}

/* May what is in the buffer be written now?  An operation that the kernel has
** not seen it never will. */
static bool is_ours(struct stream *s)
{
  const uint64_t operation =
      s->lanes[stream_is_file(s) ? LANE_READ : LANE_WRITE].operation;
  struct ring *home = s->core->home;
  const struct event *e;
  if (operation == USER_DATA_NONE)
    return true;
  if (home == NULL || home->state != RING_OPEN)
    return false;
  e = event_find(&home->events, operation);
  if (e == NULL)
    return false;
  return !ring_published(home, e) || count_in(s, home, operation);
}

/* Runs in exit(3). */
static void write_all(void)
{
  pthread_t self = pthread_self();
  pthread_mutex_lock(&lock);
  for (struct core *core = cores; core != NULL; core = core->next) {
    if (!pthread_equal(core->thread, self) || core->pid != getpid())
      continue;
    for (unsigned i = 0; i < core->unwritten_count; i++) {
      struct stream *s = core->unwritten[i];
      if (has_some(s) && is_ours(s))
        unwritten_write(s);
    }
  }
  pthread_mutex_unlock(&lock);
}

static void at_exit(void)
{
  atexit(write_all);
}

static void watch(struct core *core)
{
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, at_exit);
  core->thread = pthread_self();
  pthread_mutex_lock(&lock);
  core->next = cores;
  cores = core;
  pthread_mutex_unlock(&lock);
}

void unwritten_close(struct core *core)
{
  pthread_mutex_lock(&lock);
  for (struct core **at = &cores; *at != NULL; at = &(*at)->next) {
    if (*at == core) {
      *at = core->next;
      break;
    }
  }
  pthread_mutex_unlock(&lock);
  mem_free(core, core->unwritten,
           core->unwritten_room * sizeof *core->unwritten);
  core->unwritten = NULL;
  core->unwritten_count = core->unwritten_room = 0;
}

/* write_files(): what regular files have is written, which waits for no
** peer */
static int write_files(lua_State *L)
{
  struct core *core = core_upvalue(L);
  for (unsigned i = 0; i < core->unwritten_count; i++) {
    struct stream *s = core->unwritten[i];
    if (!s->regular || is_under_way(s))
      continue;
    unwritten_write(s);
    if (s->out.first == s->out.last)
      s->out.first = s->out.last = 0;
  }
  return 0;
}

void unwritten_register(lua_State *L, struct core *core)
{
  watch(core);
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, write_files, 1);
  lua_setfield(L, -2, "write_files");
}
