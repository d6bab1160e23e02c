/* Jobs: work that blocks and has no opcode (getaddrinfo, getdents64), done by
** threads, off the loop.
**
** A job is a struct with `struct job` as its first member.  `run` is called in
** a thread and touches neither Lua nor memory of Lua's: the job has its own,
** from malloc, since a thread may outlive the Lua state.  `release` lets go of
** what the job has when it is over, which may be in the thread.
**
** Who owns it: the handle, a userdata on the stack of who awaits it, together
** with the thread that works on it, if one does.  The last of the two releases
** it, so nothing is freed under a thread and nothing is kept for nobody.
**
** Cancelling the task that waits:
**  - a job that no thread has begun leaves the queue and never runs;
**  - one that runs cannot be interrupted.  It is left alone, the task unwinds
**    at once, and the job is released when it ends.  That is sound since what
**    the thread uses belongs to the job and to nobody else, neither memory of
**    Lua's nor a descriptor that the program could close meanwhile: a job that
**    needs a descriptor has one of its own;
**  - one with `finishes` changes what others can see, the files that a task
**    unwinding would clean up.  It is told to stop, and the task stays parked
**    until it has.
**
** A thread tells of jobs that are done through one eventfd, which the home
** ring polls while jobs are out.  It is opened with the first of them and
** closed with the last.  Where it cannot be had, or the ring cannot poll it
** now, the loop looks every millisecond: so it is while an operation is
** drained, which would wait for the poll and so for the jobs.
**
** A child of fork has no threads and forgets the parent's; what those had
** stays allocated there.  At lua_close they are joined, see threads_close.
*/
#ifndef URING_WORKER_H
#define URING_WORKER_H

#include "core.h"
#include "threads.h"

/* Pushes a handle with a new job of `size` bytes, zeroed.  Raises for lack of
** memory. */
struct job *worker_new_job(lua_State *L, struct core *core, size_t size);

/* Pushes what the job came to and returns how many values that is.  What was
** on the stack beneath the handle is from index 2 on, the handle at 1. */
typedef int job_deliver(lua_State *L, struct job *job);

/* Has the job whose handle is on the top done, suspends the running task
** until it is, and delivers.  Outside of tasks it turns the loop.  Use as
** `return worker_await(…)`. */
int worker_await(lua_State *L, struct core *core, job_deliver *deliver);

/* Has it begun, and leaves the handle on the top for the program, which calls
** job:await() for what it came to, once, and job:stop() to have it end soon.
** A handle that is collected is as a task that is cancelled. */
void worker_begin(lua_State *L, struct core *core, job_deliver *deliver);

/* Collects, and has the ring watch for more.  Returns when the loop is to look
** again at the latest. */
uint64_t worker_turn(struct core *core, struct ring *home);

/* Takes in what threads have done: who waits for it gets ready. */
void worker_collect(struct core *core);

/* How many jobs are queued or with a thread. */
unsigned worker_jobs(const struct core *core);

/* In a child of fork: there are no threads. */
void worker_forget(struct core *core);

/* At the end of the state.  Handles are gone, so only abandoned jobs run. */
void worker_close(struct core *core);

void worker_register(lua_State *L, struct core *core);

#endif
