/* Jobs: awaiting them, and what connects the threads with the loop. */
#include "worker.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "errors.h"
#include "loop.h"
#include "ring.h"
#include "rows.h"
#include "task.h"
#include "timer.h"

#define LOOK_NS UINT64_C(1000000) /* where there is nothing to poll */

/* The loop's side of the threads. */
struct workers {
  struct threads *threads;
  unsigned epoch; /* of the process whose threads they are */
  unsigned jobs;  /* queued, with a thread, or done and not taken in */
  int fd;         /* the eventfd, or -1 */
  bool watched;   /* there has been a watch: */
  uint32_t ring;  /* on the ring of this number, */
  uint64_t watch; /* the event of this user_data */
  bool in_vain;   /* since it was armed no job was done */
};

struct job_handle {
  struct core *core;
  struct job *job; /* NULL: it is over */
  struct queue waiting;
  job_deliver *deliver;
  int top; /* of the stack of who awaits it */
  unsigned epoch;
  bool begun; /* the workers have it */
};

#define JOB_TYPE "uring.job"

/*
** The watch: a poll of the eventfd that nobody waits for.  When it completes
** the turn goes on, and that looks after the jobs.
*/

static const struct row watch_row = {.name = "jobs"};

static struct event *find_watch(const struct workers *w, const struct ring *r)
{
  if (!w->watched || w->ring != r->number || r->state != RING_OPEN)
    return NULL;
  return event_find(&r->events, w->watch);
}

/* Does the ring take one more operation without memory of Lua's, and without
** standing between two that are being linked? */
static bool can_arm(const struct workers *w, struct ring *r)
{
  return w->fd >= 0 && !r->linking && r->events.free != NULL &&
         ring_reserve(r);
}

static struct event *arm(struct workers *w, struct ring *r)
{
  struct event *e = event_new(r->core->L, r);
  struct io_uring_sqe sqe;
  memset(&sqe, 0, sizeof sqe);
  sqe.opcode = IORING_OP_POLL_ADD;
  sqe.fd = w->fd;
  sqe.poll32_events = POLLIN;
  sqe.user_data = event_user_data(e);
  e->row = &watch_row;
  e->fd = w->fd;
  w->watched = w->in_vain = true;
  w->ring = r->number;
  w->watch = sqe.user_data;
  ring_queue(r, e, &sqe);
  return e;
}

/* The last job is back: nothing is left open, nothing in flight. */
static void stop_watching(struct workers *w, struct ring *home)
{
  struct event *e = home != NULL ? find_watch(w, home) : NULL;
  if (e != NULL)
    ring_cancel(home, e);
  w->watched = false;
  threads_tell(w->threads, -1);
  if (w->fd >= 0)
    close(w->fd);
  w->fd = -1;
}

/* One job fewer to be told of. */
static void job_is_back(struct core *core, struct workers *w)
{
  if (--w->jobs > 0)
    return;
  stop_watching(w, core->home);
}

void worker_collect(struct core *core)
{
  struct workers *w = core->workers;
  struct job_list done;
  struct job *job;
  if (w == NULL || !threads_have_done(w->threads))
    return;
  w->in_vain = false;
  done = threads_collect(w->threads);
  while ((job = job_list_take(&done)) != NULL) {
    job->done = true;
    if (job->handle != NULL)
      tasks_wake(&job->handle->waiting);
    else
      job_free(job);
    job_is_back(core, w);
  }
}

uint64_t worker_turn(struct core *core, struct ring *home)
{
  struct workers *w = core->workers;
  const struct event *e;
  worker_collect(core);
  if (worker_jobs(core) == 0)
    return NEVER_NS;
    /* valgrind runs one thread at a time, and does not know that the one that
    ** enters a ring waits there: let the others run */
#ifdef URING_VALGRIND
  usleep(200);
  return 0;
#endif
  e = find_watch(w, home);
  if (ring_drains(home)) { /* it is not to wait for jobs */
    threads_nudge(w->threads);
    return now_ns() + LOOK_NS;
  }
  if (e == NULL && !w->in_vain && can_arm(w, home))
    e = arm(w, home);
  else if (e == NULL) /* it failed: not at once again */
    w->in_vain = false;
  if (e != NULL && !(e->flags & EVENT_BACKLOG))
    return NEVER_NS;
  return now_ns() + LOOK_NS;
}

unsigned worker_jobs(const struct core *core)
{
  const struct workers *w = core->workers;
  return w != NULL && w->epoch == *core->epoch ? w->jobs : 0;
}

/*
** Jobs
*/

static struct workers *workers_new(const struct core *core)
{
  struct workers *w = calloc(1, sizeof *w);
  if (w == NULL)
    return NULL;
  w->fd = -1;
  w->epoch = *core->epoch;
  w->threads = threads_new();
  if (w->threads != NULL)
    return w;
  free(w);
  return NULL;
}

/* Has the job done; its error is set if there is nobody to do it. */
static void begin(struct workers *w, struct job_handle *h)
{
  int err;
  if (w->jobs == 0) { /* without one the loop looks now and then */
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    threads_tell(w->threads, w->fd);
  }
  w->jobs++;
  err = threads_queue(w->threads, h->job);
  h->begun = err == 0; /* and may have ended by now */
  if (h->begun)
    return;
  h->job->error = err;
  job_is_back(h->core, w);
}

/* Takes a job that no thread has begun out of the queue.  False: one has. */
static bool withdraw(struct job_handle *h)
{
  struct workers *w = h->core->workers;
  if (!threads_withdraw(w->threads, h->job))
    return false;
  h->begun = false;
  job_is_back(h->core, w);
  return true;
}

/* Nobody asks for the job any more. */
static void let_go(struct job_handle *h)
{
  struct job *job = h->job;
  if (job == NULL || h->epoch != *h->core->epoch)
    return; /* the parent's thread has it, or had */
  if (!h->begun || job->done || withdraw(h)) {
    job_free(job);
  } else {
    job->handle = NULL;
    atomic_store(&job->stop, true);
  }
  h->job = NULL;
}

/* Who waits has lost its stack: the program closed its coroutine. */
static int handle_gc(lua_State *L)
{
  struct job_handle *h = lua_touserdata(L, 1);
  tasks_wake(&h->waiting);
  let_go(h);
  return 0;
}

struct job *worker_new_job(lua_State *L, struct core *core, size_t size)
{
  struct job_handle *h = lua_newuserdatauv(L, sizeof *h, 0);
  memset(h, 0, sizeof *h);
  h->core = core;
  luaL_setmetatable(L, JOB_TYPE);
  core_enter(L, core);
  h->epoch = *core->epoch;
  h->job = calloc(1, size);
  if (h->job == NULL)
    luaL_error(L, "not enough memory");
  h->job->handle = h;
  return h->job;
}

/* The job is done: what it came to is pushed, and it is let go. */
static int hand_out(lua_State *L, struct job_handle *h)
{
  int n = h->deliver(L, h->job);
  let_go(h);
  return n;
}

static int await_k(lua_State *L, int status, lua_KContext ctx);

/* The task is cancelled while it waits. */
static int interrupted(lua_State *L, struct task *t, struct job_handle *h)
{
  if (h->job->finishes && !h->job->done && !withdraw(h)) {
    atomic_store(&h->job->stop, true);
    return task_park(L, t, &h->waiting, await_k, (lua_KContext)t);
  }
  let_go(h);
  task_check_interrupted(L, t);
  return 0;
}

static int await_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  struct job_handle *h = lua_touserdata(L, 1);
  (void)status;
  if (!task_is_resumed(t))
    return task_park_again(L, t, await_k);
  if (t->interrupted)
    return interrupted(L, t, h);
  lua_settop(L, h->top);
  if (h->job->stopped && task_is_struck(t)) {
    let_go(h);
    return task_raise_cancelled(L);
  }
  return hand_out(L, h);
}

static bool is_done(void *arg)
{
  const struct job_handle *h = arg;
  return h->job->done;
}

/* So that the watch has a slot: with none the loop would look now and then. */
static void ensure_slot(lua_State *L, struct core *core)
{
  struct ring *home = core_home(L, core);
  struct event *e;
  if (home->events.free != NULL)
    return;
  e = event_new(L, home);
  if (e != NULL)
    event_free(home, e);
}

void worker_begin(lua_State *L, struct core *core, job_deliver *deliver)
{
  struct job_handle *h = luaL_checkudata(L, -1, JOB_TYPE);
  h->deliver = deliver;
  ensure_slot(L, core);
  if (core->workers == NULL)
    core->workers = workers_new(core);
  if (core->workers == NULL)
    luaL_error(L, "not enough memory");
  begin(core->workers, h);
}

/* Waits for the job whose handle is at index 1. */
static int await(lua_State *L, struct core *core)
{
  struct job_handle *h = lua_touserdata(L, 1);
  struct task *t = core->sched.current;
  h->top = lua_gettop(L);
  if (!h->begun || h->job->done)
    return hand_out(L, h);
  if (t != NULL)
    return task_park(L, t, &h->waiting, await_k, (lua_KContext)t);
  loop_until(L, core_home(L, core), NEVER_NS, is_done, h);
  return hand_out(L, h);
}

int worker_await(lua_State *L, struct core *core, job_deliver *deliver)
{
  task_awaiting(L, core);
  worker_begin(L, core, deliver);
  lua_insert(L, 1);
  return await(L, core);
}

/* The handle at index 1, of a job that nobody has been given the result of. */
static struct job_handle *check_handle(lua_State *L)
{
  struct job_handle *h = luaL_checkudata(L, 1, JOB_TYPE);
  core_enter(L, h->core);
  if (h->epoch != *h->core->epoch)
    luaL_error(L, "the job was begun before the fork");
  return h;
}

/* job:await() -> what it came to */
static int job_await(lua_State *L)
{
  struct job_handle *h = check_handle(L);
  lua_settop(L, 1);
  if (h->job == NULL || !queue_empty(&h->waiting))
    return luaL_error(L, "the result of a job is for who awaits it first");
  if (h->begun && !h->job->done)
    task_awaiting(L, h->core);
  return await(L, h->core);
}

/* job:stop(): it is to end soon; its result is still to be awaited */
static int job_stop(lua_State *L)
{
  const struct job_handle *h = check_handle(L);
  if (h->job != NULL)
    atomic_store(&h->job->stop, true);
  return 0;
}

/*
** The end
*/

void worker_forget(struct core *core)
{
  struct workers *w = core->workers;
  if (w != NULL && w->fd >= 0)
    close(w->fd);
  core->workers = NULL; /* its lock may be held by a thread that is not here */
}

void worker_close(struct core *core)
{
  struct workers *w = core->workers;
  if (w != NULL && w->epoch != *core->epoch)
    worker_forget(core);
  if (core->workers == NULL)
    return;
  core->workers = NULL;
  stop_watching(w, core->home);
  threads_close(w->threads);
  free(w);
}

/*
** For specs
*/

struct nap {
  struct job job;
  uint64_t ns;
};

static void nap_run(struct job *job)
{
  const struct nap *n = (const struct nap *)job;
  const uint64_t began_ns = now_ns();
  while (now_ns() - began_ns < n->ns) {
    const struct timespec one = {0, 1000000};
    job->stopped = job->finishes && atomic_load(&job->stop);
    if (job->stopped)
      return;
    nanosleep(&one, NULL);
  }
}

static int nap_deliver(lua_State *L, struct job *job)
{
  if (job->error != 0)
    return push_failure(L, "nap", job->error);
  lua_pushboolean(L, 1);
  return 1;
}

/* nap(seconds [, finishes]) -> true | nil, message, errno: a job that sleeps,
** with milliseconds for its grain */
static int worker_nap(lua_State *L)
{
  uint64_t ns = seconds_to_ns(luaL_checknumber(L, 1));
  bool finishes = lua_toboolean(L, 2);
  struct core *core = core_upvalue(L);
  struct nap *n = (struct nap *)worker_new_job(L, core, sizeof *n);
  n->job.run = nap_run;
  n->job.finishes = finishes;
  n->ns = ns;
  return worker_await(L, core, nap_deliver);
}

/* threads() -> how many there are */
static int worker_threads(lua_State *L)
{
  const struct core *core = core_upvalue(L);
  const struct workers *w = core->workers;
  bool ours = w != NULL && w->epoch == *core->epoch;
  lua_pushinteger(L, ours ? threads_count(w->threads) : 0);
  return 1;
}

/* job:close(), also __close: as if it were collected */
static int job_close(lua_State *L)
{
  luaL_checkudata(L, 1, JOB_TYPE);
  return handle_gc(L);
}

static const luaL_Reg job_methods[] = {
    {"await", job_await},
    {"stop", job_stop},
    {"close", job_close},
    {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"nap", worker_nap},
    {"threads", worker_threads},
    {NULL, NULL},
};

void worker_register(lua_State *L, struct core *core)
{
  luaL_newmetatable(L, JOB_TYPE);
  lua_pushcfunction(L, handle_gc);
  lua_setfield(L, -2, "__gc");
  lua_pushcfunction(L, job_close);
  lua_setfield(L, -2, "__close");
  luaL_newlib(L, job_methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, functions, 1);
}
