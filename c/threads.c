/* Threads and their queues. */
#include "threads.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "mapped.h"
#include "timer.h"

#define THREADS_MAX 16u

/* Enough for the name services of the C library. */
#define STACK_BYTES ((size_t)512 * 1024)

#define IDLE_NS    UINT64_C(5000000000)  /* then a thread ends */
#define ABANDON_NS UINT64_C(200000000)   /* what the end waits for a job; */
#define FINISH_NS  UINT64_C(10000000000) /* for one with `finishes` */

struct thread {
  struct threads *threads;
  pthread_t id;
  bool used;  /* to be joined */
  bool ended; /* and that will not take long */
};

struct threads {
  pthread_mutex_t lock; /* of all that follows */
  pthread_cond_t work;  /* there is a job, or the end */
  pthread_cond_t gone;  /* at the end: a job is done, a thread has ended */
  struct job_list queue, done;
  unsigned nqueued, nthreads, nidle;
  unsigned finishing; /* jobs with `finishes` that run */
  int fd;             /* the eventfd, or -1 */
  bool told;          /* it has been written since it was read */
  bool ending;
  bool left_behind; /* the last thread frees this */
  struct thread places[THREADS_MAX];
  atomic_uint ndone; /* to be read without the lock */
};

void job_free(struct job *job)
{
  if (job->release != NULL)
    job->release(job);
  free(job);
}

/*
** Lists
*/

void job_list_add(struct job_list *list, struct job *job)
{
  job->next = NULL;
  if (list->tail != NULL)
    list->tail->next = job;
  else
    list->head = job;
  list->tail = job;
}

struct job *job_list_take(struct job_list *list)
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

static void tell(struct threads *w)
{
  if (!w->told && w->fd >= 0) {
    w->told = true;
    (void)eventfd_write(w->fd, 1);
  }
}

static void tell_done(struct threads *w, struct job *job)
{
  job_list_add(&w->done, job);
  atomic_fetch_add(&w->ndone, 1);
  tell(w);
}

static void work(struct threads *w, struct job *job)
{
  w->nqueued--;
  w->finishing += job->finishes;
  job->running = true;
  pthread_mutex_unlock(&w->lock);
  job->run(job);
  pthread_mutex_lock(&w->lock);
  w->finishing -= job->finishes;
  if (w->left_behind)
    job_free(job);
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
static bool wait_for_work(struct threads *w)
{
  struct timespec until = at_time(now_ns() + IDLE_NS);
  int rc = 0;
  w->nidle++;
  while (rc == 0 && w->queue.head == NULL && !w->ending)
    rc = pthread_cond_timedwait(&w->work, &w->lock, &until);
  w->nidle--;
  return w->queue.head != NULL || w->ending;
}

static void threads_free(struct threads *w)
{
  pthread_cond_destroy(&w->work);
  pthread_cond_destroy(&w->gone);
  pthread_mutex_destroy(&w->lock);
  free(w);
}

static void *thread_main(void *arg)
{
  struct thread *self = arg;
  struct threads *w = self->threads;
  bool last;
  pthread_mutex_lock(&w->lock);
  while (!w->ending) {
    struct job *job = job_list_take(&w->queue);
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
    threads_free(w);
  return NULL;
}

/*
** Threads, from outside
*/

static void join(struct thread *t)
{
  pthread_join(t->id, NULL);
  t->used = t->ended = false;
}

/* A place for one more thread.  There is one: of those that are used but not
** ended there are nthreads. */
static struct thread *free_place(struct threads *w)
{
  struct thread *t = w->places;
  while (t->used && !t->ended)
    t++;
  if (t->used)
    join(t);
  return t;
}

/* Starts one more thread, in which signals are blocked: they are for the
** thread that runs Lua. */
static int start_thread(struct threads *w)
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
  t->threads = w;
  err = pthread_create(&t->id, &attr, thread_main, t);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
  t->used = err == 0;
  w->nthreads += err == 0;
  return err;
}

/* Somebody to do the job that was queued last; errno if there is nobody. */
static int find_thread(struct threads *w)
{
  int err = 0;
  if (w->nqueued <= w->nidle)
    pthread_cond_signal(&w->work);
  else if (w->nthreads < THREADS_MAX)
    err = start_thread(w);
  return w->nthreads > 0 ? 0 : err;
}

struct threads *threads_new(void)
{
  struct threads *w = calloc(1, sizeof *w);
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
  return w;
}

int threads_queue(struct threads *w, struct job *job)
{
  int err;
  pthread_mutex_lock(&w->lock);
  job_list_add(&w->queue, job);
  w->nqueued++;
  err = find_thread(w);
  if (err != 0) {
    list_remove(&w->queue, job);
    w->nqueued--;
  }
  pthread_mutex_unlock(&w->lock);
  return err;
}

bool threads_withdraw(struct threads *w, struct job *job)
{
  bool waits;
  pthread_mutex_lock(&w->lock);
  waits = !job->running;
  if (waits) {
    list_remove(&w->queue, job);
    w->nqueued--;
  }
  pthread_mutex_unlock(&w->lock);
  return waits;
}

bool threads_have_done(struct threads *w)
{
  return atomic_load(&w->ndone) > 0;
}

struct job_list threads_collect(struct threads *w)
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

void threads_tell(struct threads *w, int fd)
{
  pthread_mutex_lock(&w->lock);
  w->fd = fd;
  w->told = false;
  pthread_mutex_unlock(&w->lock);
}

void threads_nudge(struct threads *w)
{
  pthread_mutex_lock(&w->lock);
  tell(w);
  pthread_mutex_unlock(&w->lock);
}

unsigned threads_count(struct threads *w)
{
  unsigned n;
  pthread_mutex_lock(&w->lock);
  n = w->nthreads;
  pthread_mutex_unlock(&w->lock);
  return n;
}

/*
** The end
*/

/* Is any thread still there when the time is up?  The lock is held. */
static bool wait_for_threads(struct threads *w)
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

static void release_all(struct job_list *list)
{
  struct job *job;
  while ((job = job_list_take(list)) != NULL)
    job_free(job);
}

void threads_close(struct threads *w)
{
  bool left;
  pthread_mutex_lock(&w->lock);
  w->ending = true;
  w->fd = -1;
  pthread_cond_broadcast(&w->work);
  left = wait_for_threads(w) && keep_mapped();
  while (w->nthreads > 0 && !left)
    pthread_cond_wait(&w->gone, &w->lock);
  w->left_behind = left;
  release_all(&w->queue);
  release_all(&w->done);
  for (struct thread *t = w->places; t < w->places + THREADS_MAX; t++)
    if (t->used && t->ended)
      join(t);
    else if (t->used)
      pthread_detach(t->id);
  pthread_mutex_unlock(&w->lock);
  if (!left)
    threads_free(w);
}
