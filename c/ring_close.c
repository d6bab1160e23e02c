/* Closing a ring.
**
** The kernel stops writing into our memory when it says so and not before:
** closing the ring's descriptor leaves io-wq workers running, and a
** synchronous cancel returns while they are.  So every event is cancelled
** and every terminal CQE is counted in.
*/
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "message.h"
#include "operation.h"
#include "pool.h"
#include "provided.h"
#include "registered.h"
#include "ring_parts.h"
#include "task.h"
#include "timer.h"

static void cancel_again(struct event *e, void *arg)
{
  struct ring *r = arg;
  if (e->flags & (EVENT_WITHDRAWN | EVENT_CANCEL_DUE | EVENT_RETRY))
    return;
  e->flags &= ~(EVENT_CANCELLING | EVENT_PAUSING);
  ring_cancel(r, e);
}

static void note_string(struct event *e, void *arg)
{
  if (e->flags & EVENT_ANCHORED)
    *(bool *)arg = true;
}

/* Lua's memory cannot be leaked to the kernel: its owner frees it. */
static bool strings_lent(struct ring *r)
{
  bool lent = false;
  event_each(&r->events, note_string, &lent);
  return lent;
}

/* Has nobody anything of ours any more, nor is anything left to be queued
** again? */
static bool is_quiet(const struct ring *r)
{
  return ring_idle(r) && r->resting == 0;
}

/* Cancels and reaps until nothing is left or the deadline is past.  True if
** the kernel has nothing of ours any more. */
static bool drain(struct ring *r, uint64_t deadline_ns)
{
  const uint64_t again_ns = 20000000u; /* a cancel can come too early */
  uint64_t repeat = 0;
  while (!is_quiet(r)) {
    uint64_t now = now_ns();
    if (now >= repeat) {
      uint64_t cancelled = r->stats.cancelled;
      event_each(&r->events, cancel_again, r);
      if (repeat) /* a repetition is not one more cancelled operation */
        r->stats.cancelled = cancelled;
      repeat = now + again_ns;
    }
    if (ring_step(r, deadline_ns != 0, repeat) < 0)
      return is_quiet(r);
    if (now >= deadline_ns && (deadline_ns == 0 || !strings_lent(r)))
      return is_quiet(r);
  }
  return true;
}

/* What is still lent is the kernel's for good: counted, and never freed; nor
** is its slot, which the loans are part of. */
static void leak(struct event *e, void *arg)
{
  struct ring *r = arg;
  struct aux *aux = e->aux;
  if (!(e->flags & EVENT_SHARES_LOAN) && e->loan.block != NULL)
    r->stats.leaked += e->loan.size;
  for (unsigned i = 0; aux != NULL && i < aux->nvec; i++)
    if (aux->loans[i].block != NULL)
      r->stats.leaked += aux->loans[i].size;
  e->aux = NULL; /* the outcome must not take it along */
  ring_unlimit(r, e);
  if (e->task != NULL) {
    ring_settle(r, &e->task->outcome, e, -ECANCELED, 0, NULL);
    task_complete(e->task);
  } else if (e->op != NULL) {
    if (!e->op->announced)
      ring_settle(r, &e->op->outcome, e, -ECANCELED, 0, NULL);
    operation_complete(e->op);
  }
  e->task = NULL;
  e->op = NULL;
}

static void close_bell(struct ring *r)
{
  if (r->bell >= 0)
    close(r->bell);
  r->bell = -1;
}

/* What is left of the ring outside of the kernel. */
static void release_rest(struct ring *r)
{
  struct backlog *b = &r->backlog;
  close_bell(r);
  r->state = RING_CLOSED;
  mem_free(r->core, b->sqes, b->size * sizeof *b->sqes);
  memset(b, 0, sizeof *b);
  mem_free(r->core, r->behind.sqes, r->behind.size * sizeof *r->behind.sqes);
  memset(&r->behind, 0, sizeof r->behind);
  r->withdrawn = 0;
  tasks_wake(&r->space);
  registered_release(r);
  pools_release(r);
}

static void release_queues(lua_State *L, struct ring *r, bool quiet)
{
  r->driver->close(r);
  release_rest(r);
  if (quiet) {
    provided_release(r);
    event_table_close(L, r->core, &r->events);
  } else { /* the table stays where it is, with the loans inside it */
    event_each(&r->events, leak, r);
    r->events.anchors = LUA_NOREF;
  }
}

static void forget(struct event *e, void *arg)
{
  struct ring *r = arg;
  e->flags &= ~(EVENT_CANCEL_DUE | EVENT_RETRY);
  ring_finish(r, e, -ECANCELED, 0, NULL);
}

/* In a child of fork the queues are not even mapped, and the kernel works on
** the parent's memory: what is lent comes back at once, and this copy of the
** descriptor is let go, which takes nothing from the parent. */
static void abandon(lua_State *L, struct ring *r)
{
  r->driver->forget(r);
  release_rest(r);
  event_each(&r->events, forget, r);
  provided_release(r);
  event_table_close(L, r->core, &r->events);
}

void ring_close(lua_State *L, struct ring *r)
{
  uint64_t now = now_ns();
  if (r->state == RING_CLOSED)
    return;
  message_end(r, -ECANCELED);
  if (ring_is_foreign(r)) {
    abandon(L, r);
    return;
  }
  /* at least one moment: a deadline of 0 would mean "do not wait" */
  release_queues(L, r, drain(r, now + 1 + seconds_to_ns(r->drain_timeout)));
}

/* Nobody will be told: whoever waits is gone, or goes before the ring. */
static void detach(struct event *e, void *arg)
{
  (void)arg;
  if (e->task != NULL)
    e->task->event = NULL;
  if (e->op != NULL) {
    e->op->outcome.res = -ECANCELED;
    e->op->event = NULL;
  }
  e->task = NULL;
  e->op = NULL;
}

void ring_drop(lua_State *L, struct ring *r)
{
  if (r->state == RING_OPEN) {
    event_each(&r->events, detach, NULL);
    message_end(r, -ECANCELED);
    r->state = RING_LINGERING;
    r->core->lingering++;
  }
  if (r->state == RING_LINGERING) {
    if (ring_is_foreign(r))
      abandon(L, r);
    else if (drain(r, 0))
      release_queues(L, r, true);
    else
      return;
    r->core->lingering--;
  }
  ring_free(L, r);
}

void ring_reap_lingering(lua_State *L, struct core *core)
{
  struct ring *next;
  for (struct ring *r = core->rings; r != NULL; r = next) {
    next = r->next;
    if (r->state == RING_LINGERING)
      ring_drop(L, r);
  }
}

void ring_free(lua_State *L, struct ring *r)
{
  struct ring **p = &r->core->rings;
  while (*p != r)
    p = &(*p)->next;
  *p = r->next;
  luaL_unref(L, LUA_REGISTRYINDEX, r->events.anchors);
  mem_free(r->core, r, sizeof *r);
}
