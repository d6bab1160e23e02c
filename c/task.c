/* Tasks.
**
** Cancelling a task, step by step:
**
** 1. `task_cancel` marks it; asking twice changes nothing.
** 2. Not yet run: it never will; it ends as cancelled.
** 3. Waiting for an operation: the operation is cancelled and the task stays
**    parked until the terminal CQE, so that nothing it lent is still out when
**    it unwinds.  If the operation was faster its result is delivered, and
**    the cancellation is raised by the next await.
** 4. Waiting for its children (a scope): they are cancelled, and it goes on
**    waiting until the last has ended; see scope.c.
** 5. Waiting for anything else: it leaves the queue or the heap, and wakes.
** 6. Inside `shield` 3 to 5 are left undone, and awaits do not raise.
** 7. On waking, the object `uring.cancelled` is raised in the task, so that
**    <close> variables unwind.  It may be caught, but every later await
**    that would have to wait raises it again.  What is there already is
**    handed out: an operation that is done, a task that has ended.
** 8. The task has ended as cancelled if that object is what it ended with;
**    if it returned it has returned, and another error is a failure.
**
** The races:
**
**  - Cancelled while it is ready: what it waited for has come (a result, a
**    permit, a value, its deadline) and is its own.  `interrupted` stays
**    false, so that is delivered; 7 holds for the next await.
**  - Cancelled before its SQE is published: the operation is withdrawn
**    without a system call, and completes as cancelled in the next turn.
**  - The cancel request crosses the completion: the request finds nothing, and
**    its own CQE, which is counted and ignored, ends no operation.  The next
**    one in the slot has another generation, so it is not hit.
**  - A timer and a cancellation in one turn: who is first takes the timer from
**    the heap, and the other finds the task ready.
**  - The deadline of a scope and the end of a child in one turn: the child is
**    ready, and may return; success wins.
**  - Cancelled by a scope that is left in the same turn: a task that has ended
**    is in no scope, so it cannot be found to be cancelled.
**  - Spawned in a scope that was cancelled meanwhile: 2, at once.
*/
#include "task.h"

#include <limits.h>
#include <string.h>

#include "loop.h"
#include "operation.h"
#include "place.h"
#include "ring.h"
#include "scope.h"
#include "task_list.h"

/* Registry key of the `cancelled` object. */
const char task_cancelled_key = 'c';

/*
** Queues
*/

static void enqueue(struct queue *q, struct task *t)
{
  t->queue = q;
  t->next = NULL;
  t->prev = q->tail;
  if (q->tail != NULL)
    q->tail->next = t;
  else
    q->head = t;
  q->tail = t;
}

void task_leave_queue(struct task *t)
{
  struct queue *q = t->queue;
  if (t->nplaces > 0)
    waiting_leave(t);
  if (q == NULL)
    return;
  if (t->prev != NULL)
    t->prev->next = t->next;
  else
    q->head = t->next;
  if (t->next != NULL)
    t->next->prev = t->prev;
  else
    q->tail = t->prev;
  t->queue = NULL;
}

void task_make_ready(struct task *t)
{
  t->state = TASK_READY;
  enqueue(&t->core->sched.ready, t);
}

void tasks_wake_some(struct queue *q, unsigned n)
{
  for (; n > 0 && q->head != NULL; n--) {
    struct task *t = q->head;
    task_leave_queue(t);
    t->op = NULL;
    task_make_ready(t);
  }
}

void tasks_wake(struct queue *q)
{
  tasks_wake_some(q, UINT_MAX);
}

void tasks_leave(struct queue *q)
{
  while (q->head != NULL)
    task_leave_queue(q->head);
}

void task_complete(struct task *t)
{
  task_leave_queue(t);
  t->event = NULL;
  task_make_ready(t);
}

/* The time of the task's call is up. */
static void call_expires(struct task *t)
{
  if (t->state != TASK_WAITING)
    return;
  if (t->event != NULL) {
    ring_cancel(t->core->home, t->event);
  } else {
    task_leave_queue(t);
    task_make_ready(t);
  }
}

void task_time_call(struct task *t, uint64_t deadline_ns)
{
  t->timed = true;
  timer_arm(t->core, &t->timer, TIMER_TASK, deadline_ns);
}

void task_call_ends(struct task *t)
{
  if (t->timed)
    timer_disarm(t->core, &t->timer);
  t->timed = false;
}

static struct task *of_timer(struct timer *timer)
{
  return (struct task *)((char *)timer - offsetof(struct task, timer));
}

void tasks_wake_due(struct core *core)
{
  struct timer *timer;
  enum timer_kind kind;
  uint64_t now;
  if (core->sched.ntimers == 0)
    return;
  now = now_ns();
  if (timer_nearest(core) > now)
    return;
  core->sched.woken_ns = now;
  core->sched.woken = 0;
  while ((timer = timer_due(core, now, &kind)) != NULL) {
    core->sched.woken++;
    if (kind == TIMER_OBJECT)
      timer_object_ring(timer);
    else if (kind == TIMER_SCOPE)
      scope_expire(timer);
    else if (kind == TIMER_OPERATION)
      ring_expire(core, timer);
    else if (of_timer(timer)->timed)
      call_expires(of_timer(timer));
    else
      task_make_ready(of_timer(timer));
  }
}

/*
** Awaiting
*/

int task_raise_cancelled(lua_State *L)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &task_cancelled_key);
  return lua_error(L);
}

/* Lua cannot suspend `stuck`: the task's coroutine, or one inside of it. */
static int raise_not_yieldable(lua_State *L, lua_State *stuck)
{
  const char *place = place_push(L, stuck);
  if (strncmp(place, "_G.", 3) == 0)
    place += 3;
  return luaL_error(L,
                    "cannot await inside %s: Lua cannot suspend it; await "
                    "before or after it",
                    place);
}

struct task *task_awaiting(lua_State *L, struct core *core)
{
  struct task *t = core->sched.current;
  if (t == NULL)
    return NULL;
  if (t->inner != L && !lua_isyieldable(t->inner))
    raise_not_yieldable(L, t->inner);
  if (t->inner != L)
    luaL_error(L, "cannot await inside a coroutine of the program's own: "
                  "only its task can be suspended (uring.coroutine has "
                  "resume and wrap that let an await through)");
  if (!lua_isyieldable(L))
    raise_not_yieldable(L, L);
  if (task_is_struck(t))
    task_raise_cancelled(L);
#ifdef URING_GCSTRESS
  lua_gc(L, LUA_GCCOLLECT);
#endif
  return t;
}

/* Of the clock by which a task notes when it was parked: steps of about a
** millisecond. */
#define PARKED_SHIFT 20

uint64_t task_parked_for(const struct task *t, uint64_t now)
{
  uint32_t steps = (uint32_t)(now >> PARKED_SHIFT) - t->parked;
  return (uint64_t)steps << PARKED_SHIFT;
}

int task_park(lua_State *L, struct task *t, struct queue *queue,
              lua_KFunction k, lua_KContext ctx)
{
  t->state = TASK_WAITING;
  t->interrupted = false;
  t->parked = (uint32_t)(t->core->sched.turned_ns >> PARKED_SHIFT);
  if (queue != NULL)
    enqueue(queue, t);
  return lua_yieldk(L, 0, ctx, k);
}

int task_park_again(lua_State *L, struct task *t, lua_KFunction k)
{
  return lua_yieldk(L, 0, (lua_KContext)t, k);
}

void task_check_interrupted(lua_State *L, struct task *t)
{
  if (t->interrupted) {
    t->interrupted = false;
    task_raise_cancelled(L);
  }
}

void task_cancel(struct task *t)
{
  if (t->cancelled || t->state == TASK_ENDED)
    return;
  t->cancelled = true;
  if (t->state != TASK_WAITING || t->shields > 0)
    return;
  t->interrupted = true;
  if (t->event != NULL) {
    ring_cancel(t->core->home, t->event);
  } else if (t->op != NULL) {
    operation_cancel(t->op);
  } else {
    task_leave_queue(t);
    timer_disarm(t->core, &t->timer);
    task_make_ready(t);
  }
}

/*
** The table of tasks: what anchors them.  Free slots are chained through
** their values, integers.
*/

/* The table of tasks is on the top.  May raise for lack of memory, and then
** the new slots are simply not there yet. */
static void tasks_grow(lua_State *L, struct sched *s)
{
  unsigned first = s->tasks_cap + 1;
  unsigned cap = s->tasks_cap ? s->tasks_cap * 2 : 16;
  for (unsigned i = first; i <= cap; i++) {
    lua_pushinteger(L, i < cap ? i + 1 : 0);
    lua_rawseti(L, -2, i);
  }
  s->tasks_cap = cap;
  s->free_slot = first;
}

/* Anchors the task on the top of the stack. */
void task_anchor(lua_State *L, struct task *t)
{
  struct sched *s = &t->core->sched;
  lua_rawgeti(L, LUA_REGISTRYINDEX, t->core->tasks_ref);
  if (s->free_slot == 0)
    tasks_grow(L, s);
  t->slot = s->free_slot;
  lua_rawgeti(L, -1, t->slot);
  s->free_slot = (unsigned)lua_tointeger(L, -1);
  lua_pop(L, 1);
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, t->slot); /* a place that exists: cannot raise */
  lua_pop(L, 1);
  s->ntasks++;
}

void task_push(lua_State *L, const struct task *t)
{
  lua_rawgeti(L, LUA_REGISTRYINDEX, t->core->tasks_ref);
  lua_rawgeti(L, -1, t->slot);
  lua_remove(L, -2);
}

bool task_exists(lua_State *L, const struct core *core, const void *t)
{
  bool found = false;
  lua_rawgeti(L, LUA_REGISTRYINDEX, core->tasks_ref);
  for (unsigned i = 1; i <= core->sched.tasks_cap && !found; i++) {
    lua_rawgeti(L, -1, i);
    found = lua_touserdata(L, -1) == t && t != NULL;
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return found;
}

void task_push_extra(lua_State *L, int index, enum task_extra which)
{
  if (lua_getiuservalue(L, index, TASK_MORE) == LUA_TTABLE)
    lua_rawgeti(L, -1, which);
  else
    lua_pushnil(L);
  lua_remove(L, -2);
}

void task_set_extra(lua_State *L, int index, enum task_extra which)
{
  index = lua_absindex(L, index);
  if (lua_getiuservalue(L, index, TASK_MORE) != LUA_TTABLE) {
    lua_createtable(L, EXTRAS, 0);
    lua_insert(L, -2);
    lua_rawseti(L, -2, EXTRA_LINK);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, index, TASK_MORE);
  }
  lua_insert(L, -2);
  lua_rawseti(L, -2, which);
  lua_pop(L, 1);
}

void task_push_link(lua_State *L, int index)
{
  if (lua_getiuservalue(L, index, TASK_MORE) != LUA_TTABLE)
    return;
  lua_rawgeti(L, -1, EXTRA_LINK);
  lua_remove(L, -2);
}

void task_set_link(lua_State *L, int index)
{
  index = lua_absindex(L, index);
  if (lua_getiuservalue(L, index, TASK_MORE) == LUA_TTABLE) {
    lua_insert(L, -2);
    lua_rawseti(L, -2, EXTRA_LINK); /* where there was room: cannot raise */
    lua_pop(L, 1);
  } else {
    lua_pop(L, 1);
    lua_setiuservalue(L, index, TASK_MORE);
  }
}

/* Lets go of the task and leaves it on the top of the stack. */
static void release(lua_State *L, struct task *t)
{
  struct sched *s = &t->core->sched;
  lua_rawgeti(L, LUA_REGISTRYINDEX, t->core->tasks_ref);
  lua_rawgeti(L, -1, t->slot);
  lua_pushinteger(L, s->free_slot);
  lua_rawseti(L, -3, t->slot);
  s->free_slot = t->slot;
  t->slot = 0;
  lua_remove(L, -2);
  s->ntasks--;
}

/*
** Running
*/

/* The message handler of every task: notes the traceback while the stack of
** the error is still there.  The error itself passes unchanged. */
int task_note_traceback(lua_State *L)
{
  struct core *core = core_of(L);
  struct task *t = core->sched.current;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &task_cancelled_key);
  if (t == NULL || t->co != L || lua_rawequal(L, 1, -1)) {
    lua_settop(L, 1);
    return 1;
  }
  task_push(L, t);
  task_push_traceback(L, -1, L, 1);
  task_set_extra(L, -2, EXTRA_TRACEBACK);
  lua_settop(L, 1);
  return 1;
}

static bool is_fine(int status)
{
  return status == LUA_OK || status == LUA_YIELD;
}

/* What is called at the end has ended.  Its error takes the place of another,
** as that of a <close> variable does. */
static int task_finished(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  (void)L;
  if (!is_fine(status))
    t->end = END_FAILED;
  return t->end == END_FAILED ? 1 : 0;
}

/* The function returned or raised; its results, or the error, are what the
** coroutine ends with. */
static int task_finish(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  t->end = is_fine(status) ? END_RETURNED : END_FAILED;
  if (!t->finishes)
    return t->end == END_RETURNED ? lua_gettop(L) - TASK_BASE : 1;
  lua_settop(L, TASK_FINISH_BASE + 1); /* the error, or nil */
  for (int i = TASK_BASE + 1; i <= TASK_FINISH_BASE + 1; i++)
    lua_pushvalue(L, i);
  status = lua_pcallk(L, 3, 0, 2, ctx, task_finished);
  return task_finished(L, status, ctx);
}

/* The body of every task: task, handler, function, arguments; with `finishes`
** what is called at the end and its two arguments are between, and the results
** of the function do not matter.
**
** The protected call is here, inside the coroutine, so that <close> variables
** of a failing function are closed where they can still await.  The task stays
** on the stack: the continuations refer to it, and a child of fork may still
** resume them. */
int task_main(lua_State *L)
{
  struct task *t = lua_touserdata(L, 1);
  const int base = t->finishes ? TASK_FINISH_BASE : TASK_BASE;
  int status =
      lua_pcallk(L, lua_gettop(L) - base - 1, t->finishes ? 0 : LUA_MULTRET, 2,
                 (lua_KContext)t, task_finish);
  return task_finish(L, status, (lua_KContext)t);
}

static bool is_cancelled_object(lua_State *L, int index)
{
  bool same;
  index = lua_absindex(L, index);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &task_cancelled_key);
  same = lua_rawequal(L, index, -1);
  lua_pop(L, 1);
  return same;
}

/* The task never runs again: nothing may point to it, since it has no
** finaliser (which would cost every task dearly). */
static void let_go(struct task *t)
{
  t->state = TASK_ENDED;
  if (t->event != NULL)
    ring_orphan(t->core->home, t->event);
  t->event = NULL;
  task_leave_queue(t);
  timer_disarm(t->core, &t->timer);
  outcome_drop(t->core, &t->outcome);
}

/* The task has run for the last time; nresults values are on its stack. */
static void task_end(lua_State *L, struct task *t)
{
  let_go(t);
  if (t->end == END_FAILED && t->cancelled && is_cancelled_object(t->co, -1))
    t->end = END_CANCELLED;
  if (!queue_empty(&t->awaiting))
    t->observed = true;
  tasks_wake(&t->awaiting);
  release(L, t); /* ... task */
  scope_child_ended(L, t);
  lua_pop(L, 1);
}

/* Ends a task that was cancelled before it ever ran. */
static void never_run(lua_State *L, struct task *t)
{
  lua_settop(t->co, 0);
  lua_rawgetp(t->co, LUA_REGISTRYINDEX, &task_cancelled_key);
  t->end = END_FAILED;
  t->nresults = 1;
  task_end(L, t);
}

static void resume(lua_State *L, struct task *t)
{
  struct sched *s = &t->core->sched;
  int status, n = 0, nargs = t->started ? 0 : t->nargs;
  t->started = true;
  t->state = TASK_RUNNING;
  s->current = t;
  t->inner = t->co;
  status = lua_resume(t->co, L, nargs, &n);
  s->current = NULL;
  if (status == LUA_YIELD) {
    if (t->state == TASK_RUNNING) { /* a yield of the program's own */
      lua_pop(t->co, n);
      task_make_ready(t);
    }
    return;
  }
  if (status != LUA_OK) { /* the protected call itself ran out of memory */
    t->end = END_FAILED;
    n = 1;
  }
  t->nresults = n;
  task_end(L, t);
}

void tasks_run_ready(lua_State *L, struct core *core)
{
  struct queue *ready = &core->sched.ready;
  const struct task *last = ready->tail;
  const struct task *done = NULL;
  while (done != last) {
    struct task *t = ready->head;
    task_leave_queue(t);
    if (ready->head != NULL) /* its coroutine is cold: fetch it meanwhile */
      __builtin_prefetch(ready->head->co);
    if (t->cancelled && !t->started)
      never_run(L, t);
    else
      resume(L, t);
    done = t;
  }
}

void tasks_let_go(lua_State *L, struct core *core)
{
  struct sched *s = &core->sched;
  lua_rawgeti(L, LUA_REGISTRYINDEX, core->tasks_ref);
  for (unsigned i = 1; i <= s->tasks_cap; i++) {
    struct task *t;
    lua_rawgeti(L, -1, i);
    t = lua_touserdata(L, -1);
    if (t != NULL) {
      let_go(t);
      t->end = END_CANCELLED;
      scope_forget(t); /* and so are its siblings */
      t->slot = 0;
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

void tasks_abandon(lua_State *L, struct core *core)
{
  struct sched *s = &core->sched;
  tasks_let_go(L, core);
  timer_disarm_all(core);
  s->current = NULL;
  s->turning = false;
  s->ntasks = s->tasks_cap = s->free_slot = 0;
  lua_newtable(L);
  lua_rawseti(L, LUA_REGISTRYINDEX, core->tasks_ref);
}
