/* Tasks: coroutines that the turn resumes.
**
** A task is anchored from the registry from spawn to its end, so that a
** parked one is never collected.  It waits for one thing at a time: the
** outcome of an operation that only it knows (`event`), a place in a queue
** (`queue`: of a handle, of a task, of a scope, for room), or a deadline.
*/
#ifndef URING_TASK_H
#define URING_TASK_H

#include "channel.h"
#include "event.h"
#include "outcome.h"
#include "timer.h"

enum task_state {
  TASK_READY,   /* in the ready queue; a new one, too */
  TASK_RUNNING, /* being resumed */
  TASK_WAITING, /* parked */
  TASK_ENDED
};

enum task_end { END_NOT_YET, END_RETURNED, END_FAILED, END_CANCELLED };

struct task {
  /* what every await touches, together */
  struct task *next, *prev; /* neighbours in `queue` */
  struct queue *queue;      /* where it stands, or NULL */
  struct event *event;      /* the operation it waits for, or NULL */
  lua_State *co;
  lua_State *inner; /* what runs, or awaits, for it: co, or one inside of it */
  struct core *core;
  union {
    int nargs;    /* on `co`, until it has started */
    int top;      /* of its stack, before what it is resumed with */
    int nresults; /* on `co`, once it has ended */
  };
  unsigned slot; /* in the table of tasks */
  struct timer timer;
  uint32_t parked;   /* when, see task_parked_for */
  uint8_t state : 4; /* enum task_state */
  uint8_t end : 4;   /* enum task_end */
  uint8_t shields;   /* calls of shield it is in: cancellation is held back */
  bool started : 1;
  bool cancelled : 1;   /* every await from now on raises */
  bool interrupted : 1; /* woken by cancel, not by what it waited for */
  bool observed : 1;    /* somebody has been, or will be, given its failure */
  bool timed : 1;       /* its timer is that of a call, see task_time_call */
  bool finishes : 1;    /* a function of its own is called at its end */
  uint8_t granted : 2;  /* what a channel had for it, see channel.c */
  bool locals_shared;   /* see locals.c */
  uint16_t nplaces;     /* in lines of channels; 0: it stands in none */
  uint16_t which;       /* of these came up */
  union {
    struct outcome outcome; /* all zero while it holds nothing */
    struct {                /* with nplaces */
      struct waiting place;
      struct waiting *places; /* all of them, of one that selects */
    };
  };
  /* the rest */
  struct operation *op; /* the handle it waits for, or NULL */
  struct scope *scope;  /* of which it is a child, NULL once ended */
  struct task *sibling_next, *sibling_prev;
  struct queue awaiting; /* tasks that wait for the end of this one */
  lua_KFunction then;    /* continues an await on a foreign ring */
};

#define TASK_TYPE "uring.task"

/* User values of a task's userdata. */
enum {
  TASK_THREAD = 1,
  TASK_MORE, /* its scope; or, of few, a table of that and other things */
  TASK_VALUES = TASK_MORE
};

/* Places in that table. */
enum task_extra {
  EXTRA_TRACEBACK = 1, /* where it failed */
  EXTRA_LOCALS,        /* its table of uring.locals, see locals.c */
  EXTRA_INNER, /* a coroutine inside of it that waited last, see channel.c */
  EXTRA_LINK,  /* what stands in its place while there is no table */
  EXTRAS = EXTRA_LINK
};

/* Pushes the scope of the task at `index`; of one that has failed, the next
** that did, see scope.c. */
void task_push_link(lua_State *L, int index);

/* Sets it to the value on the top, and pops that.  Cannot raise. */
void task_set_link(lua_State *L, int index);

/* Pushes one of the extras of the task at `index`, or nil. */
void task_push_extra(lua_State *L, int index, enum task_extra which);

/* Sets it to the value on the top, and pops that.  May raise for lack of
** memory, and run finalisers, if it is the task's first. */
void task_set_extra(lua_State *L, int index, enum task_extra which);

/* Pushes the userdata of a task that has not ended. */
void task_push(lua_State *L, const struct task *t);

/* Is this a task that has not ended?  It may be anything. */
bool task_exists(lua_State *L, const struct core *core, const void *t);

/* For how long it has been parked: nanoseconds, to within some milliseconds,
** modulo 52 days. */
uint64_t task_parked_for(const struct task *t, uint64_t now);

/* Who awaits: the running task, or NULL outside of tasks, where the caller
** turns the loop itself.  Raises where the task cannot be suspended, and in a
** cancelled task. */
struct task *task_awaiting(lua_State *L, struct core *core);

/* Suspends the running task; `k` runs when it is woken.  Use as
** `return task_park(…)`.  With a queue it stands there meanwhile. */
int task_park(lua_State *L, struct task *t, struct queue *queue,
              lua_KFunction k, lua_KContext ctx);

/* In `k`: was it the turn that resumed the task?  If a program called
** coroutine.resume on the task's coroutine, what the task waits for has not
** come, and it must be parked again: `return task_park_again(…)`. */
static inline bool task_is_resumed(const struct task *t)
{
  return t->core->sched.current == t;
}

int task_park_again(lua_State *L, struct task *t, lua_KFunction k);

/* In `k`: raises the cancellation that woke the task, if one did. */
void task_check_interrupted(lua_State *L, struct task *t);

/* A call that awaits, perhaps several times, has so long: from then on the
** operation that the task waits for is cancelled, and a queue left.  What is
** there before is still handed out.  Ended by task_call_ends, whatever comes;
** the caller has asked timer_reserve. */
void task_time_call(struct task *t, uint64_t deadline_ns);
void task_call_ends(struct task *t);

/* Is the time of the call up? */
static inline bool task_call_is_late(const struct task *t)
{
  return t->timed && t->timer.slot == 0;
}

/* Raises the `cancelled` object. */
int task_raise_cancelled(lua_State *L);

/* The operation that the task waits for has ended and `outcome` is set: it
** runs in this turn or the next. */
void task_complete(struct task *t);

/* Wakes everybody in the queue, in order; or the first `n`. */
void tasks_wake(struct queue *q);
void tasks_wake_some(struct queue *q, unsigned n);

/* Everybody in the queue goes on waiting, but not there. */
void tasks_leave(struct queue *q);

/* Does cancellation strike the task now? */
static inline bool task_is_struck(const struct task *t)
{
  return t->cancelled && t->shields == 0;
}

/* As task:status() has it. */
const char *task_status_name(const struct task *t);

/* Asks the task to end: see the protocol in task.c.  Idempotent. */
void task_cancel(struct task *t);

/* Wakes tasks whose deadlines are past. */
void tasks_wake_due(struct core *core);

/* Resumes everybody who is ready now; who gets ready meanwhile runs in the
** next turn. */
void tasks_run_ready(lua_State *L, struct core *core);

/* No task runs again, and nothing of ours points to any: at the end of the
** state. */
void tasks_let_go(lua_State *L, struct core *core);

/* Forgets every task without running it: in a child of fork. */
void tasks_abandon(lua_State *L, struct core *core);

/* How many values there are on the stack of a task, below the function that it
** is for: itself, the message handler; what is called at the end and two
** arguments to that. */
enum { TASK_BASE = 2, TASK_FINISH_BASE = 5 };

/* Between task.c and task_object.c: the body of every coroutine and its
** message handler; anchoring a new task, which is on the top of the stack; the
** ready queue; leaving whatever queue it stands in; the registry key of the
** `cancelled` object. */
int task_main(lua_State *L);
int task_note_traceback(lua_State *L);
void task_anchor(lua_State *L, struct task *t);
void task_make_ready(struct task *t);
void task_leave_queue(struct task *t);
extern const char task_cancelled_key;

void task_register(lua_State *L, struct core *core);

#endif
