/* The turn. */
#include "loop.h"

#include <errno.h>
#include <string.h>

#include "child.h"
#include "ring_object.h"
#include "task.h"
#include "timer.h"
#include "worker.h"

/* How often a dropped ring that is not quiet yet is looked after. */
#define LINGER_NS 20000000u

/* How often, at most, garbage is collected for the sake of empty pools. */
#define COLLECT_NS 100000000u

/* How long deadlines that follow one another gather: what the kernel allows
** itself for the timers of any thread; and the longer the more of them came
** together last time, up to half a millisecond, since going to sleep and
** waking up costs as much as running a hundred tasks. */
#define GATHER_NS      50000u
#define GATHER_EACH_NS 5000u
#define GATHER_MAX_NS  500000u

static int broken(lua_State *L, int rc)
{
  if (rc == -EEXIST)
    return luaL_error(L, "io_uring_enter: this ring belongs to another "
                         "thread; a ring is used by the thread it was "
                         "created on");
  return luaL_error(L, "io_uring_enter: %s", strerror(-rc));
}

/* Operations wait for a buffer of a pool that has none: those that the
** program has may be garbage.  Now and then, so that a pool that is merely
** small costs little.  True: garbage has been collected, and finalisers may
** have done anything. */
static bool collect_buffers(lua_State *L, struct core *core, bool now)
{
  uint64_t began = now_ns(), took;
  if (core->starving == 0 || (!now && began < core->collect_at))
    return false;
  lua_gc(L, LUA_GCCOLLECT);
  took = now_ns() - began;
  core->collect_at = began + took * 20;
  if (core->collect_at < began + COLLECT_NS)
    core->collect_at = began + COLLECT_NS;
  return true;
}

/* What is waited for can never come: says why. */
static int stuck(lua_State *L, const struct core *core, const struct ring *r)
{
  if (r->linking)
    return luaL_error(L, "a linked operation waits for the one to follow it");
  if (r->starving > 0)
    return luaL_error(L, "deadlock: an operation waits for a buffer of its "
                         "pool, and the program has them all");
  if (r->backlog.count > 0)
    return luaL_error(L, "deadlock: a drained operation waits for one whose "
                         "results nobody takes");
  if (r != core->home)
    return luaL_error(L, "nothing is in flight on this ring to wait for");
  return luaL_error(L,
                    "deadlock: %d task(s) wait for one another and nothing is "
                    "in flight that could wake them",
                    (int)core->sched.ntasks);
}

/* Is there something in the kernel, or to be handed over? */
static bool has_to_come(const struct ring *r)
{
  return r->in_flight > 0 || r->unpublished > 0 || r->withdrawn > 0 ||
         ring_has_unsent(r);
}

/* Is there nothing to come, nor a task that could do something? */
static bool is_dead(const struct core *core, const struct ring *r)
{
  const struct sched *s = &core->sched;
  if (r == core->home &&
      (!queue_empty(&s->ready) || s->ntimers > 0 || worker_jobs(core) > 0))
    return false;
  if (r->receiver != NULL ||
      r->timed > 0) /* another ring may send something */
    return false;
  return !has_to_come(r);
}

/* Waiting with nothing in flight would be waiting for ever: raises.  False:
** garbage was collected, and that has changed it. */
static bool check_not_stuck(lua_State *L, struct core *core, struct ring *r)
{
  again_look_for_buffers(r);
  if (!is_dead(core, r))
    return true;
  if (r->starving > 0) {
    collect_buffers(L, core, true);
    if (r->state != RING_OPEN || !is_dead(core, r))
      return false;
  }
  stuck(L, core, r);
  return true;
}

/* Until when the turn waits for a deadline; 0: it is due, and nothing is to be
** waited for, which costs much even if it ends at once.  A deadline that comes
** soon after another waits a little for its neighbours, so that many sleepers
** are not woken one by one; a lone one is met exactly. */
static uint64_t wake_time(const struct sched *s, uint64_t nearest)
{
  uint64_t gather = GATHER_NS + (uint64_t)s->woken * GATHER_EACH_NS;
  uint64_t soon =
      s->woken_ns + (gather < GATHER_MAX_NS ? gather : GATHER_MAX_NS);
  if (nearest == UINT64_MAX)
    return nearest;
  if (nearest <= now_ns())
    return 0;
  return nearest < soon ? soon : nearest;
}

static int turn_home(lua_State *L, struct core *core, struct ring *r,
                     bool wait, uint64_t deadline_ns)
{
  struct sched *s = &core->sched;
  uint64_t nearest = timer_nearest(core);
  bool idle = queue_empty(&s->ready);
  int rc = 0;
  wait = wait && idle;
  if (wait)
    nearest = wake_time(s, nearest);
  wait = wait && nearest > 0;
  /* tasks that only wait for one another take many turns */
  if (idle || !ring_is_still(r))
    rc = ring_step(r, wait, nearest < deadline_ns ? nearest : deadline_ns);
  if (rc == 0) {
    worker_collect(core);
    tasks_wake_due(core);
    s->turned_ns = now_coarse_ns();
    tasks_run_ready(L, core);
  }
  return rc;
}

void loop_turn(lua_State *L, struct ring *r, bool wait, uint64_t deadline_ns)
{
  struct core *core = r->core;
  struct sched *s = &core->sched;
  uint64_t nap_ns;
  int rc;
  luaL_checkstack(L, LUA_MINSTACK, "turning the loop");
  ring_object_check(L, r);
  nap_ns = children_tend(core);
  if (core->lingering > 0) {
    uint64_t soon = now_ns() + LINGER_NS;
    ring_reap_lingering(L, core);
    deadline_ns = soon < deadline_ns ? soon : deadline_ns;
  }
  if (r == core->home && core->workers != NULL) {
    unsigned jobs = worker_jobs(core);
    uint64_t look_ns = worker_turn(core, r);
    nap_ns = look_ns < nap_ns ? look_ns : nap_ns;
    wait = wait && worker_jobs(core) == jobs; /* one that is back may be it */
  }
  if (wait && core->starving > 0 && queue_empty(&s->ready)) {
    if (collect_buffers(L, core, false))
      return; /* look again */
    if (core->collect_at < nap_ns)
      nap_ns = core->collect_at;
  }
  if (wait && deadline_ns == UINT64_MAX &&
      (r != core->home || queue_empty(&s->ready)) &&
      !check_not_stuck(L, core, r))
    return;
  deadline_ns = nap_ns < deadline_ns ? nap_ns : deadline_ns;
  if (r != core->home) {
    uint64_t nearest = r->timed > 0 ? timer_nearest(core) : UINT64_MAX;
    rc = ring_step(r, wait, nearest < deadline_ns ? nearest : deadline_ns);
    if (r->timed > 0)
      tasks_wake_due(core);
  } else {
    if (s->turning)
      luaL_error(L, "the loop is turning already: await in a task");
    s->turning = true;
    rc = turn_home(L, core, r, wait, deadline_ns);
    s->turning = false;
  }
  if (rc < 0)
    broken(L, rc);
}

/* When the ring wants its next turn, if its bell stays silent until then. */
static uint64_t next_turn(const struct ring *r)
{
  const struct core *core = r->core;
  bool is_home = r == core->home;
  uint64_t next = is_home || r->timed > 0 ? timer_nearest(core) : UINT64_MAX;
  if (ring_has_unsent(r) || (r->in_flight > 0 && ring_is_polled(r)) ||
      (is_home && !queue_empty(&core->sched.ready)))
    return 0;
  if (r->retries > 0 && r->retry_at < next)
    next = r->retry_at;
  if (core->lingering > 0) {
    uint64_t soon = now_ns() + LINGER_NS;
    next = soon < next ? soon : next;
  }
  if (core->starving > 0 && core->collect_at < next)
    next = core->collect_at;
  if (core->children != NULL && core->children_at_ns < next)
    next = core->children_at_ns;
  return next;
}

uint64_t loop_step(lua_State *L, struct ring *r, bool wait,
                   uint64_t deadline_ns)
{
  uint64_t look_ns = NEVER_NS, next_ns;
  loop_turn(L, r, wait, deadline_ns);
  if (r == r->core->home)
    look_ns = worker_turn(r->core, r);
  if (ring_has_unsent(r)) {
    int rc = ring_submit(r);
    if (!ring_is_passing(rc))
      broken(L, rc);
  }
  next_ns = next_turn(r);
  return next_ns < look_ns ? next_ns : look_ns;
}

void loop_until(lua_State *L, struct ring *r, uint64_t deadline_ns,
                bool (*done)(void *arg), void *arg)
{
  while (!done(arg)) {
    loop_turn(L, r, true, deadline_ns);
    core_breathe(L, r->core);
  }
}

void loop_relieve(lua_State *L, struct ring *r)
{
  struct core *core = r->core;
  const bool timed = r == core->home || r->timed > 0;
  uint64_t deadline_ns = timed ? timer_nearest(core) : UINT64_MAX;
  int rc;
  ring_object_check(L, r);
  if (collect_buffers(L, core, false))
    return; /* look again */
  if (r->timed == 0 && !has_to_come(r)) {
    if (r->starving > 0)
      collect_buffers(L, core, true);
    if (r->state == RING_OPEN && !has_to_come(r))
      stuck(L, core, r);
    return;
  }
  if (core->starving > 0 && core->collect_at < deadline_ns)
    deadline_ns = core->collect_at;
  rc = ring_step(r, true, deadline_ns);
  if (rc < 0)
    broken(L, rc);
  if (timed)
    tasks_wake_due(core);
  core_breathe(L, core);
}
