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

void unwritten_join(struct stream *s)
{
  struct core *core = s->core;
  s->place = &core->unwritten;
  s->next = core->unwritten;
  if (s->next != NULL)
    s->next->place = &s->next;
  core->unwritten = s;
}

void unwritten_leave(struct stream *s)
{
  if (s->place == NULL)
    return;
  *s->place = s->next;
  if (s->next != NULL)
    s->next->place = s->place;
  s->next = NULL;
  s->place = NULL;
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
    for (struct stream *s = core->unwritten; s != NULL; s = s->next)
      if (has_some(s) && is_ours(s))
        unwritten_write(s);
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
}

/* write_files(): what regular files have is written, which waits for no
** peer */
static int write_files(lua_State *L)
{
  struct core *core = core_upvalue(L);
  for (struct stream *s = core->unwritten; s != NULL; s = s->next) {
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
