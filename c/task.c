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
** 4. Waiting for anything else: it leaves the queue or the heap, and wakes.
** 5. Inside `shield` 3 and 4 are left undone, and awaits do not raise.
** 6. On waking, the object `uring.cancelled` is raised in the task, so that
**    <close> variables unwind.  It may be caught, but every later await
**    raises it again.
*/
#include "task.h"

#include <limits.h>
#include <string.h>

#include "loop.h"
#include "operation.h"
#include "place.h"
#include "ring.h"
#include "scope.h"

/* Registry key of the `cancelled` object. */
static const char cancelled_key = 'c';

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

static void dequeue(struct task *t)
{
  struct queue *q = t->queue;
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

static void make_ready(struct task *t)
{
  t->state = TASK_READY;
  enqueue(&t->core->sched.ready, t);
}

void tasks_wake_some(struct queue *q, unsigned n)
{
  for (; n > 0 && q->head != NULL; n--) {
    struct task *t = q->head;
    dequeue(t);
    t->op = NULL;
    make_ready(t);
  }
}

void tasks_wake(struct queue *q)
{
  tasks_wake_some(q, UINT_MAX);
}

void tasks_leave(struct queue *q)
{
  while (q->head != NULL)
    dequeue(q->head);
}

void task_complete(struct task *t)
{
  dequeue(t);
  t->event = NULL;
  make_ready(t);
}

void tasks_wake_due(struct core *core)
{
  struct timer *timer;
  uint64_t now;
  if (core->sched.ntimers == 0)
    return;
  now = now_ns();
  while ((timer = timer_due(core, now)) != NULL)
    make_ready((struct task *)((char *)timer - offsetof(struct task, timer)));
}

/*
** Awaiting
*/

int task_raise_cancelled(lua_State *L)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &cancelled_key);
  return lua_error(L);
}

static int raise_not_yieldable(lua_State *L)
{
  const char *place = place_push(L);
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
  if (t->co != L)
    luaL_error(L, "cannot await inside a coroutine of the program's own: "
                  "only its task can be suspended");
  if (!lua_isyieldable(L))
    raise_not_yieldable(L);
  if (task_is_struck(t))
    task_raise_cancelled(L);
#ifdef URING_GCSTRESS
  lua_gc(L, LUA_GCCOLLECT);
#endif
  return t;
}

int task_park(lua_State *L, struct task *t, struct queue *queue,
              lua_KFunction k, lua_KContext ctx)
{
  t->state = TASK_WAITING;
  t->interrupted = false;
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
    dequeue(t);
    timer_disarm(t->core, &t->timer);
    make_ready(t);
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
static void anchor(lua_State *L, struct task *t)
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
static int note_traceback(lua_State *L)
{
  struct core *core = core_of(L);
  struct task *t = core->sched.current;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &cancelled_key);
  if (t == NULL || t->co != L || lua_rawequal(L, 1, -1)) {
    lua_settop(L, 1);
    return 1;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, core->tasks_ref);
  lua_rawgeti(L, -1, t->slot);
  luaL_traceback(L, L, NULL, 1);
  lua_setiuservalue(L, -2, TASK_TRACEBACK);
  lua_settop(L, 1);
  return 1;
}

/* The function returned or raised; its results, or the error, are what the
** coroutine ends with. */
static int task_finish(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  if (status == LUA_OK || status == LUA_YIELD) {
    t->end = END_RETURNED;
    return lua_gettop(L) - 1;
  }
  t->end = END_FAILED;
  return 1;
}

/* The body of every task: task, function, arguments.  The protected call is
** here, inside the coroutine, so that <close> variables of a failing function
** are closed where they can still await. */
static int task_main(lua_State *L)
{
  struct task *t = lua_touserdata(L, 1);
  int status;
  lua_pushcfunction(L, note_traceback);
  lua_replace(L, 1);
  status = lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, (lua_KContext)t,
                      task_finish);
  return task_finish(L, status, (lua_KContext)t);
}

static bool is_cancelled_object(lua_State *L, int index)
{
  bool same;
  index = lua_absindex(L, index);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &cancelled_key);
  same = lua_rawequal(L, index, -1);
  lua_pop(L, 1);
  return same;
}

/* The task has run for the last time; nresults values are on its stack. */
static void task_end(lua_State *L, struct task *t)
{
  t->state = TASK_ENDED;
  if (t->end == END_FAILED && t->cancelled && is_cancelled_object(t->co, -1))
    t->end = END_CANCELLED;
  outcome_drop(t->core, &t->outcome);
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
  lua_rawgetp(t->co, LUA_REGISTRYINDEX, &cancelled_key);
  t->end = END_FAILED;
  t->nresults = 1;
  task_end(L, t);
}

static void resume(lua_State *L, struct task *t)
{
  struct sched *s = &t->core->sched;
  int status, n = 0, nargs = t->nargs;
  t->nargs = 0;
  t->started = true;
  t->state = TASK_RUNNING;
  s->current = t;
  status = lua_resume(t->co, L, nargs, &n);
  s->current = NULL;
  if (status == LUA_YIELD) {
    if (t->state == TASK_RUNNING) { /* a yield of the program's own */
      lua_pop(t->co, n);
      make_ready(t);
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
    dequeue(t);
    if (ready->head != NULL) /* its coroutine is cold: fetch it meanwhile */
      __builtin_prefetch(ready->head->co);
    if (t->cancelled && !t->started)
      never_run(L, t);
    else
      resume(L, t);
    done = t;
  }
}

void tasks_abandon(lua_State *L, struct core *core)
{
  struct sched *s = &core->sched;
  while (s->ready.head != NULL)
    dequeue(s->ready.head);
  while (s->ntimers > 0)
    timer_disarm(core, s->heap[0]);
  s->current = NULL;
  s->turning = false;
  s->ntasks = s->tasks_cap = s->free_slot = 0;
  lua_newtable(L);
  lua_rawseti(L, LUA_REGISTRYINDEX, core->tasks_ref);
}

/*
** The Task object
*/

static struct task *totask(lua_State *L)
{
  return luaL_checkudata(L, 1, TASK_TYPE);
}

/* spawn(scope | nil, fn, …) -> Task */
static int task_spawn(lua_State *L)
{
  struct core *core = core_upvalue(L);
  int nargs = lua_gettop(L) - 2;
  struct scope *scope;
  struct task *t;
  core_enter(L, core);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  if (lua_isnil(L, 1)) {
    scope_push_current(L, core);
    lua_replace(L, 1);
  }
  scope = luaL_checkudata(L, 1, SCOPE_TYPE);
  t = lua_newuserdatauv(L, sizeof *t, TASK_VALUES);
  memset(t, 0, sizeof *t);
  t->core = core;
  t->state = TASK_ENDED; /* until it is whole */
  luaL_setmetatable(L, TASK_TYPE);
  t->co = lua_newthread(L);
  lua_setiuservalue(L, -2, TASK_THREAD);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, TASK_SCOPE);
  if (!lua_checkstack(t->co, nargs + 3))
    return luaL_error(L, "too many arguments to a task");
  lua_insert(L, 2); /* scope; task; fn; args */
  lua_pushcfunction(t->co, task_main);
  lua_pushlightuserdata(t->co, t);
  lua_xmove(L, t->co, nargs + 1);
  t->nargs = nargs + 2;
  anchor(L, t);
  scope_adopt(scope, t);
  make_ready(t);
  return 1;
}

/* Pushes what an ended task came to, or raises its error. */
static int push_results(lua_State *L, struct task *t)
{
  luaL_checkstack(L, t->nresults + 1, "too many results");
  if (!lua_checkstack(t->co, t->nresults))
    return luaL_error(L, "not enough memory for the results of a task");
  if (t->end == END_RETURNED) {
    int first = lua_gettop(t->co) - t->nresults + 1;
    for (int i = 0; i < t->nresults; i++)
      lua_pushvalue(t->co, first + i);
    lua_xmove(t->co, L, t->nresults);
    return t->nresults;
  }
  t->observed = true;
  lua_pushvalue(t->co, -1);
  lua_xmove(t->co, L, 1);
  return lua_error(L);
}

static int await_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *self = (struct task *)ctx;
  (void)status;
  if (!task_is_resumed(self))
    return task_park_again(L, self, await_k);
  task_check_interrupted(L, self);
  return push_results(L, totask(L));
}

static bool has_ended(void *arg)
{
  return ((struct task *)arg)->state == TASK_ENDED;
}

/* task:await() -> results, or raises what the task raised */
static int task_await(lua_State *L)
{
  struct task *t = totask(L);
  struct core *core = t->core;
  struct task *self;
  core_enter(L, core);
  self = task_awaiting(L, core);
  if (self == t)
    return luaL_error(L, "a task cannot await itself");
  if (t->state == TASK_ENDED)
    return push_results(L, t);
  if (self != NULL)
    return task_park(L, self, &t->awaiting, await_k, (lua_KContext)self);
  t->observed = true; /* its failure is raised here, and not reported */
  loop_until(L, core_home(L, core), UINT64_MAX, has_ended, t);
  return push_results(L, t);
}

/* task:cancel(): asks it to end; await tells when it has */
static int task_cancel_lua(lua_State *L)
{
  struct task *t = totask(L);
  core_enter(L, t->core);
  task_cancel(t);
  return 0;
}

static const char *status_name(const struct task *t)
{
  static const char *const ends[] = {"ready", "returned", "failed",
                                     "cancelled"};
  static const char *const states[] = {"ready", "running", "waiting"};
  return t->state == TASK_ENDED ? ends[t->end] : states[t->state];
}

/* task:status() -> "ready" | "running" | "waiting" | "returned" | "failed" |
** "cancelled" */
static int task_status(lua_State *L)
{
  lua_pushstring(L, status_name(totask(L)));
  return 1;
}

/* task:traceback() -> where it failed, or where it stands */
static int task_traceback(lua_State *L)
{
  struct task *t = totask(L);
  if (lua_getiuservalue(L, 1, TASK_TRACEBACK) == LUA_TNIL)
    luaL_traceback(L, t->co, NULL, 0);
  return 1;
}

static int task_tostring(lua_State *L)
{
  struct task *t = totask(L);
  lua_pushfstring(L, "task (%s, %p)", status_name(t), (void *)t);
  return 1;
}

/* Collected: it has ended, or the state is being closed. */
static int task_gc(lua_State *L)
{
  struct task *t = totask(L);
  outcome_drop(t->core, &t->outcome);
  if (t->event != NULL)
    ring_orphan(t->core->home, t->event);
  t->event = NULL;
  dequeue(t);
  timer_disarm(t->core, &t->timer);
  return 0;
}

/*
** Suspending without an operation
*/

static int wait_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  (void)status;
  if (!task_is_resumed(t))
    return task_park_again(L, t, wait_k);
  task_check_interrupted(L, t);
  return 0;
}

static bool is_past(void *arg)
{
  return now_ns() >= *(const uint64_t *)arg;
}

/* sleep(seconds) */
static int task_sleep(lua_State *L)
{
  struct core *core = core_upvalue(L);
  lua_Number seconds = luaL_checknumber(L, 1);
  struct task *t;
  uint64_t deadline;
  luaL_argcheck(L, seconds >= 0, 1, "seconds are negative");
  core_enter(L, core);
  t = task_awaiting(L, core);
  deadline = now_ns() + seconds_to_ns(seconds);
  if (t == NULL) {
    loop_turn(L, core_home(L, core), false, 0); /* sleep(0), too, is a turn */
    loop_until(L, core_home(L, core), deadline, is_past, &deadline);
    return 0;
  }
  if (!timer_reserve(core))
    return luaL_error(L, "not enough memory for a timer");
  timer_arm(core, &t->timer, deadline);
  return task_park(L, t, NULL, wait_k, (lua_KContext)t);
}

/* yield(): lets everybody else who is ready run first */
static int task_yield(lua_State *L)
{
  struct core *core = core_upvalue(L);
  struct task *t;
  core_enter(L, core);
  t = task_awaiting(L, core);
  if (t == NULL) {
    loop_turn(L, core_home(L, core), false, UINT64_MAX);
    return 0;
  }
  t->interrupted = false;
  make_ready(t);
  return lua_yieldk(L, 0, (lua_KContext)t, wait_k);
}

static int shield_k(lua_State *L, int status, lua_KContext ctx)
{
  ((struct task *)ctx)->shields--;
  if (status != LUA_OK && status != LUA_YIELD)
    return lua_error(L);
  return lua_gettop(L);
}

/* shield(fn, …) -> its results: cancellation is held back until fn returns,
** and strikes at the first await after it */
static int task_shield(lua_State *L)
{
  struct core *core = core_upvalue(L);
  struct task *t = core->sched.current;
  int status;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  if (t == NULL || t->co != L) { /* nobody there to be cancelled */
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
  }
  if (t->shields == UINT8_MAX)
    return luaL_error(L, "too many shields inside one another");
  t->shields++;
  status = lua_pcallk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, (lua_KContext)t,
                      shield_k);
  return shield_k(L, status, (lua_KContext)t);
}

/* now() -> seconds of the monotonic clock */
static int task_now(lua_State *L)
{
  lua_pushnumber(L, (lua_Number)now_ns() / 1e9);
  return 1;
}

/* current() -> the running Task, nil outside of tasks */
static int task_current(lua_State *L)
{
  struct core *core = core_upvalue(L);
  struct task *t = core->sched.current;
  if (t == NULL) {
    lua_pushnil(L);
    return 1;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, core->tasks_ref);
  lua_rawgeti(L, -1, t->slot);
  return 1;
}

static int cancelled_tostring(lua_State *L)
{
  lua_pushliteral(L, "cancelled");
  return 1;
}

/* The object that a cancelled task sees as its error; also field
** `cancelled` of the module on the top of the stack. */
static void make_cancelled(lua_State *L)
{
  lua_newuserdatauv(L, 0, 0);
  lua_createtable(L, 0, 2);
  lua_pushcfunction(L, cancelled_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushliteral(L, "uring.cancelled");
  lua_setfield(L, -2, "__name");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &cancelled_key);
  lua_setfield(L, -2, "cancelled");
}

static const luaL_Reg task_methods[] = {
    {"await", task_await},
    {"cancel", task_cancel_lua},
    {"status", task_status},
    {"traceback", task_traceback},
    {NULL, NULL},
};

static const luaL_Reg task_functions[] = {
    {"spawn", task_spawn}, {"sleep", task_sleep},   {"yield", task_yield},
    {"now", task_now},     {"shield", task_shield}, {"current", task_current},
    {NULL, NULL},
};

void task_register(lua_State *L, struct core *core)
{
  luaL_newmetatable(L, TASK_TYPE);
  lua_pushcfunction(L, task_gc);
  lua_setfield(L, -2, "__gc");
  lua_pushcfunction(L, task_tostring);
  lua_setfield(L, -2, "__tostring");
  luaL_newlib(L, task_methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  make_cancelled(L);
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, task_functions, 1);
  lua_newtable(L);
  core->tasks_ref = luaL_ref(L, LUA_REGISTRYINDEX);
}
