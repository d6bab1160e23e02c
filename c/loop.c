/* The turn. */
#include "loop.h"

#include <errno.h>
#include <string.h>

#include "ring_object.h"
#include "task.h"
#include "timer.h"

/* How often a dropped ring that is not quiet yet is looked after. */
#define LINGER_NS 20000000u

static int broken(lua_State *L, int rc)
{
  if (rc == -EEXIST)
    return luaL_error(L, "io_uring_enter: this ring belongs to another "
                         "thread; a ring is used by the thread it was "
                         "created on");
  return luaL_error(L, "io_uring_enter: %s", strerror(-rc));
}

/* Operations wait for a buffer of a pool that has none: those that the
** program has may be garbage.  Asked once each time that it runs dry. */
static void collect_buffers(lua_State *L, struct ring *r)
{
  if (r->starving == 0 || r->collected)
    return;
  r->collected = true;
  lua_gc(L, LUA_GCCOLLECT);
}

/* Waiting with nothing in flight would be waiting for ever. */
static void check_not_stuck(lua_State *L, struct core *core, struct ring *r)
{
  const struct sched *s = &core->sched;
  if (!ring_idle(r)) {
    if (r->in_flight == 0 && r->linking && !ring_has_unsent(r))
      luaL_error(L, "a linked operation waits for the one to follow it");
    return;
  }
  if (r->starving > 0 &&
      (r != core->home || (queue_empty(&s->ready) && s->ntimers == 0)))
    luaL_error(L, "deadlock: an operation waits for a buffer of its pool, and "
                  "the program has them all");
  if (r != core->home)
    luaL_error(L, "nothing is in flight on this ring to wait for");
  if (queue_empty(&s->ready) && s->ntimers == 0)
    luaL_error(L,
               "deadlock: %d task(s) wait for one another and nothing is "
               "in flight that could wake them",
               (int)s->ntasks);
}

static int turn_home(lua_State *L, struct core *core, struct ring *r,
                     bool wait, uint64_t deadline_ns)
{
  struct sched *s = &core->sched;
  uint64_t nearest = timer_nearest(core);
  int rc;
  rc = ring_step(L, r, wait && queue_empty(&s->ready),
                 nearest < deadline_ns ? nearest : deadline_ns);
  if (rc == 0) {
    tasks_wake_due(core);
    tasks_run_ready(L, core);
  }
  return rc;
}

void loop_turn(lua_State *L, struct ring *r, bool wait, uint64_t deadline_ns)
{
  struct core *core = r->core;
  struct sched *s = &core->sched;
  int rc;
  luaL_checkstack(L, LUA_MINSTACK, "turning the loop");
  ring_object_check(L, r);
  if (core->lingering > 0) {
    uint64_t soon = now_ns() + LINGER_NS;
    ring_reap_lingering(L, core);
    deadline_ns = soon < deadline_ns ? soon : deadline_ns;
  }
  if (wait && queue_empty(&s->ready))
    collect_buffers(L, r);
  if (wait && deadline_ns == UINT64_MAX)
    check_not_stuck(L, core, r);
  if (r != core->home) {
    rc = ring_step(L, r, wait, deadline_ns);
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
  uint64_t next = is_home ? timer_nearest(core) : UINT64_MAX;
  if (ring_has_unsent(r) || (r->in_flight > 0 && ring_is_polled(r)) ||
      (is_home && !queue_empty(&core->sched.ready)))
    return 0;
  if (r->retries > 0 && r->retry_at < next)
    next = r->retry_at;
  if (core->lingering > 0) {
    uint64_t soon = now_ns() + LINGER_NS;
    next = soon < next ? soon : next;
  }
  return next;
}

uint64_t loop_step(lua_State *L, struct ring *r, bool wait,
                   uint64_t deadline_ns)
{
  loop_turn(L, r, wait, deadline_ns);
  if (ring_has_unsent(r)) {
    int rc = ring_submit(L, r);
    if (!ring_is_passing(rc))
      broken(L, rc);
  }
  return next_turn(r);
}

void loop_until(lua_State *L, struct ring *r, uint64_t deadline_ns,
                bool (*done)(void *arg), void *arg)
{
  while (!done(arg)) {
    loop_turn(L, r, true, deadline_ns);
    core_breathe(L, r->core);
  }
}
