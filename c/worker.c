/* Threads, the queue of jobs, and what connects them with the loop. */
#include "worker.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
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

#define THREADS_MAX 16u

/* Enough for the name services of the C library. */
#define STACK_BYTES ((size_t)512 * 1024)

#define IDLE_NS    UINT64_C(5000000000)  /* then a thread ends */
#define LOOK_NS    UINT64_C(1000000)     /* where there is nothing to poll */
#define ABANDON_NS UINT64_C(200000000)   /* what lua_close waits for a job; */
#define FINISH_NS  UINT64_C(10000000000) /* for one with `finishes` */

struct thread {
  struct workers *workers;
  pthread_t id;
  bool used;  /* to be joined */
  bool ended; /* and that will not take long */
};

struct job_list {
  struct job *head, *tail;
};

struct workers {
  /* under the lock */
  pthread_mutex_t lock;
  pthread_cond_t work; /* there is a job, or the end */
  pthread_cond_t gone; /* a thread has ended, a job with `finishes` is done */
  struct job_list queue, done;
  unsigned nqueued, nthreads, nidle;
  unsigned finishing; /* jobs with `finishes` that run */
  bool told;          /* the eventfd has been written since it was read */
  bool ending;
  bool left_behind; /* the Lua state is gone; the last thread frees this */
  int fd;           /* the eventfd, or -1 */
  struct thread threads[THREADS_MAX];
  atomic_uint ndone; /* also without the lock */
  /* the loop's alone */
  unsigned epoch; /* of the process whose threads they are */
  unsigned jobs;  /* queued, with a thread, or done and not taken in */
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

static void free_job(struct job *job)
{
  if (job->release != NULL)
    job->release(job);
  free(job);
}

/*
** Lists
*/

static void list_add(struct job_list *list, struct job *job)
{
  job->next = NULL;
  if (list->tail != NULL)
    list->tail->next = job;
  else
    list->head = job;
  list->tail = job;
}

static struct job *list_take(struct job_list *list)
{
  struct job *job = list->head;
  if (job == NULL)
    return NULL;
  list->head = job->next;
  if (list->head == NULL)
    list->tail = NULL;
  return job;
}

static void list_remove(struct job_list *list, const struct job *job)
{
  struct job *last = NULL;
  struct job **p = &list->head;
  while (*p != job) {
    last = *p;
    p = &last->next;
  }
  *p = job->next;
  if (list->tail == job)
    list->tail = last;
}

/*
** In the threads
*/

static void tell_done(struct workers *w, struct job *job)
{
  list_add(&w->done, job);
  atomic_fetch_add(&w->ndone, 1);
  if (!w->told && w->fd >= 0) {
    w->told = true;
    (void)eventfd_write(w->fd, 1);
  }
}

static void work(struct workers *w, struct job *job)
{
  w->nqueued--;
  w->finishing += job->finishes;
  job->running = true;
  pthread_mutex_unlock(&w->lock);
  job->run(job);
  pthread_mutex_lock(&w->lock);
  w->finishing -= job->finishes;
  if (w->left_behind)
    free_job(job);
  else
    tell_done(w, job);
  if (w->ending)
    pthread_cond_signal(&w->gone);
}

static struct timespec at_time(uint64_t ns)
{
  struct timespec ts = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
  return ts;
}

/* False: there has been no work for too long. */
static bool wait_for_work(struct workers *w)
{
  struct timespec until = at_time(now_ns() + IDLE_NS);
  int rc = 0;
  w->nidle++;
  while (rc == 0 && w->queue.head == NULL && !w->ending)
    rc = pthread_cond_timedwait(&w->work, &w->lock, &until);
  w->nidle--;
  return w->queue.head != NULL || w->ending;
}

static void workers_free(struct workers *w)
{
  pthread_cond_destroy(&w->work);
  pthread_cond_destroy(&w->gone);
  pthread_mutex_destroy(&w->lock);
  free(w);
}

static void *thread_main(void *arg)
{
  struct thread *self = arg;
  struct workers *w = self->workers;
  bool last;
  pthread_mutex_lock(&w->lock);
  while (!w->ending) {
    struct job *job = list_take(&w->queue);
    if (job != NULL)
      work(w, job);
    else if (!wait_for_work(w))
      break;
  }
  self->ended = true;
  w->nthreads--;
  last = w->left_behind && w->nthreads == 0;
  pthread_cond_signal(&w->gone);
  pthread_mutex_unlock(&w->lock);
  if (last)
    workers_free(w);
  return NULL;
}

/*
** Threads, from the loop's side
*/

static void join(struct thread *t)
{
  pthread_join(t->id, NULL);
  t->used = t->ended = false;
}

/* A place for one more thread.  There is one: of those that are used but not
** ended there are nthreads. */
static struct thread *free_place(struct workers *w)
{
  struct thread *t = w->threads;
  while (t->used && !t->ended)
    t++;
  if (t->used)
    join(t);
  return t;
}

/* Starts one more thread, in which signals are blocked: they are for the
** thread that runs Lua. */
static int start_thread(struct workers *w)
{
  struct thread *t = free_place(w);
  pthread_attr_t attr;
  sigset_t all, before;
  int err = pthread_attr_init(&attr);
  if (err != 0)
    return err;
  pthread_attr_setstacksize(&attr, STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  t->workers = w;
  err = pthread_create(&t->id, &attr, thread_main, t);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
  t->used = err == 0;
  w->nthreads += err == 0;
  return err;
}

/* Somebody to do the job that was queued last; errno if there is nobody. */
static int find_thread(struct workers *w)
{
  int err = 0;
  if (w->nqueued <= w->nidle)
    pthread_cond_signal(&w->work);
  else if (w->nthreads < THREADS_MAX)
    err = start_thread(w);
  return w->nthreads > 0 ? 0 : err;
}

static struct workers *workers_new(const struct core *core)
{
  struct workers *w = calloc(1, sizeof *w);
  pthread_condattr_t attr;
  if (w == NULL)
    return NULL;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_mutex_init(&w->lock, NULL);
  pthread_cond_init(&w->work, &attr);
  pthread_cond_init(&w->gone, &attr);
  pthread_condattr_destroy(&attr);
  w->fd = -1;
  w->epoch = *core->epoch;
  return w;
}

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
  w->watched = w->told = false;
  if (w->fd >= 0)
    close(w->fd);
  w->fd = -1;
}

/* One job fewer to be told of. */
static void job_is_back(struct core *core, struct workers *w)
{
  if (--w->jobs > 0)
    return;
  pthread_mutex_lock(&w->lock);
  stop_watching(w, core->home);
  pthread_mutex_unlock(&w->lock);
}

static struct job_list take_done(struct workers *w)
{
  struct job_list done;
  pthread_mutex_lock(&w->lock);
  done = w->done;
  memset(&w->done, 0, sizeof w->done);
  atomic_store(&w->ndone, 0);
  if (w->told) {
    eventfd_t count;
    (void)eventfd_read(w->fd, &count);
    w->told = false;
  }
  pthread_mutex_unlock(&w->lock);
  return done;
}

void worker_collect(struct core *core)
{
  struct workers *w = core->workers;
  struct job_list done;
  struct job *job;
  if (w == NULL || atomic_load(&w->ndone) == 0)
    return;
  w->in_vain = false;
  done = take_done(w);
  while ((job = list_take(&done)) != NULL) {
    job->done = true;
    if (job->handle != NULL)
      tasks_wake(&job->handle->waiting);
    else
      free_job(job);
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
  e = find_watch(w, home);
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

/* Queues the job; errno if there is nobody to do it. */
static int begin(struct workers *w, struct job_handle *h)
{
  int err;
  pthread_mutex_lock(&w->lock);
  if (w->jobs == 0) /* without one the loop looks now and then */
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  list_add(&w->queue, h->job);
  w->nqueued++;
  w->jobs++;
  err = find_thread(w);
  if (err != 0) {
    list_remove(&w->queue, h->job);
    w->nqueued--;
  }
  pthread_mutex_unlock(&w->lock);
  if (err != 0)
    job_is_back(h->core, w);
  h->begun = err == 0;
  return err;
}

/* Takes a job that no thread has begun out of the queue.  False: one has. */
static bool withdraw(struct job_handle *h)
{
  struct workers *w = h->core->workers;
  bool waits;
  pthread_mutex_lock(&w->lock);
  waits = !h->job->running;
  if (waits) {
    list_remove(&w->queue, h->job);
    w->nqueued--;
  }
  pthread_mutex_unlock(&w->lock);
  if (waits) {
    h->begun = false;
    job_is_back(h->core, w);
  }
  return waits;
}

/* Nobody asks for the job any more. */
static void let_go(struct job_handle *h)
{
  struct job *job = h->job;
  if (job == NULL || h->epoch != *h->core->epoch)
    return; /* the parent's thread has it, or had */
  if (!h->begun || job->done || withdraw(h)) {
    free_job(job);
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

int worker_await(lua_State *L, struct core *core, job_deliver *deliver)
{
  struct job_handle *h = luaL_checkudata(L, -1, JOB_TYPE);
  struct task *t = task_awaiting(L, core);
  lua_insert(L, 1);
  h->deliver = deliver;
  h->top = lua_gettop(L);
  ensure_slot(L, core);
  if (core->workers == NULL)
    core->workers = workers_new(core);
  if (core->workers == NULL)
    return luaL_error(L, "not enough memory");
  h->job->error = begin(core->workers, h);
  if (h->job->error != 0)
    return hand_out(L, h);
  if (t != NULL)
    return task_park(L, t, &h->waiting, await_k, (lua_KContext)t);
  loop_until(L, core_home(L, core), NEVER_NS, is_done, h);
  return hand_out(L, h);
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

/* Is any thread still there when the time is up?  The lock is held. */
static bool wait_for_threads(struct workers *w)
{
  struct timespec until = at_time(now_ns() + FINISH_NS);
  int rc = 0;
  while (w->finishing > 0 && rc == 0)
    rc = pthread_cond_timedwait(&w->gone, &w->lock, &until);
  until = at_time(now_ns() + ABANDON_NS);
  for (rc = 0; w->nthreads > 0 && rc == 0;)
    rc = pthread_cond_timedwait(&w->gone, &w->lock, &until);
  return w->nthreads > 0;
}

/* Keeps the code that threads run mapped, though Lua unloads the module. */
static bool keep_module(void)
{
  static const char inside = 0;
  Dl_info info;
  const void *kept = NULL;
  if (dladdr(&inside, &info) != 0)
    kept = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
  return kept != NULL;
}

static void release_all(struct job_list *list)
{
  struct job *job;
  while ((job = list_take(list)) != NULL)
    free_job(job);
}

void worker_close(struct core *core)
{
  struct workers *w = core->workers;
  bool left;
  if (w != NULL && w->epoch != *core->epoch)
    worker_forget(core);
  if (core->workers == NULL)
    return;
  core->workers = NULL;
  pthread_mutex_lock(&w->lock);
  w->ending = true;
  pthread_cond_broadcast(&w->work);
  left = wait_for_threads(w) && keep_module();
  while (w->nthreads > 0 && !left)
    pthread_cond_wait(&w->gone, &w->lock);
  w->left_behind = left;
  stop_watching(w, core->home);
  release_all(&w->queue);
  release_all(&w->done);
  for (struct thread *t = w->threads; t < w->threads + THREADS_MAX; t++)
    if (t->used && t->ended)
      join(t);
    else if (t->used)
      pthread_detach(t->id);
  pthread_mutex_unlock(&w->lock);
  if (!left)
    workers_free(w);
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
  struct workers *w = core->workers;
  unsigned n = 0;
  if (w != NULL && w->epoch == *core->epoch) {
    pthread_mutex_lock(&w->lock);
    n = w->nthreads;
    pthread_mutex_unlock(&w->lock);
  }
  lua_pushinteger(L, n);
  return 1;
}

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
  lua_pop(L, 1);
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, functions, 1);
}
