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

/* Waiting with nothing in flight would be waiting for ever, unless for what
** another ring may send. */
static void check_not_stuck(lua_State *L, struct core *core, struct ring *r)
{
  const struct sched *s = &core->sched;
  if (r->receiver != NULL)
    return;
  if (!ring_idle(r)) {
    if (r->in_flight == 0 && r->linking && !ring_has_unsent(r))
      luaL_error(L, "a linked operation waits for the one to follow it");
    return;
  }
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

void loop_until(lua_State *L, struct ring *r, uint64_t deadline_ns,
                bool (*done)(void *arg), void *arg)
{
  while (!done(arg)) {
    loop_turn(L, r, true, deadline_ns);
    core_breathe(L, r->core);
  }
}
