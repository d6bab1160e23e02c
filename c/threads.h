/* Threads that do jobs.  Nothing here knows of Lua: a job is a struct with
** `struct job` as its first member, in memory from malloc, and the threads
** may outlive the Lua state that it was made in.  See worker.h for how jobs
** are awaited.
**
** Threads are started when there is work and all are busy, a few at most, and
** end when they are idle.  Signals are blocked in them.
*/
#ifndef URING_THREADS_H
#define URING_THREADS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct job_handle;

struct job {
  void (*run)(struct job *job);     /* in a thread; never touches Lua */
  void (*release)(struct job *job); /* all but the struct itself; or NULL */
  int error;        /* errno of what failed; EAGAIN: there is no thread */
  bool finishes;    /* who awaits it is kept until it has ended */
  bool stopped;     /* it has ended before its work was done */
  atomic_bool stop; /* it is to end soon: for long ones to look at */
  /* the rest is not for `run` */
  bool running, done;
  struct job *next;
  struct job_handle *handle; /* NULL: nobody waits for it */
};

struct job_list {
  struct job *head, *tail;
};

void job_list_add(struct job_list *list, struct job *job);
struct job *job_list_take(struct job_list *list);
void job_free(struct job *job);

/* NULL for lack of memory.  The first job starts the first thread. */
struct threads *threads_new(void);

/* Queues a job; errno where there is no thread, nor can be one. */
int threads_queue(struct threads *w, struct job *job);

/* Takes a job that no thread has begun out of the queue.  False: one has. */
bool threads_withdraw(struct threads *w, struct job *job);

/* Is there something to collect?  Costs a load. */
bool threads_have_done(struct threads *w);

/* Takes the jobs that are done, in the order in which they ended. */
struct job_list threads_collect(struct threads *w);

/* Writes the eventfd although no job is done. */
void threads_nudge(struct threads *w);

/* The eventfd to write when a job is done; -1: none.  Once this returns none
** writes to the one before. */
void threads_tell(struct threads *w, int fd);

/* How many threads there are. */
unsigned threads_count(struct threads *w);

/* Ends them and releases what is queued or done.  A thread whose job does not
** end in time is left behind: it releases its job, and the last one all of
** this; the code they run stays mapped. */
void threads_close(struct threads *w);

#endif
