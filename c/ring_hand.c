/* The ring by hand.
**
** Everything here is beneath the loop: it moves SQEs and CQEs and resumes
** nobody.  What is left in the CQ the next turn reaps; what `advance` takes
** from it goes the same way as what a turn takes, so an operation does not
** know who reaped it, and a task that waits for it runs in the next turn.
**
** It may all be called from a task and from a finaliser.  `enter` then holds
** up every task for as long as it waits.
*/
#include "ring_hand.h"

#include <limits.h>

#include "errors.h"
#include "loop.h"
#include "op.h"
#include "operation.h"
#include "ring_object.h"
#include "ring_parts.h"
#include "skip.h"
#include "timer.h"

#define ENTER_FLAGS                                                           \
  (IORING_ENTER_GETEVENTS | IORING_ENTER_SQ_WAKEUP | IORING_ENTER_SQ_WAIT)

/*
** Entering
*/

/* How many of the first `most` SQEs may be handed over: the kernel links what
** it takes at one time, so a group that would be cut waits as a whole. */
static unsigned whole_groups(const struct ring *r, unsigned most)
{
  const struct io_uring_sq *sq = &r->io.sq;
  unsigned head = io_uring_smp_load_acquire(sq->khead);
  while (most > 0 &&
         sq->sqes[(head + most - 1) & sq->ring_mask].flags & SQE_LINKS)
    most--;
  return most;
}

/* Publishes and enters; again where the wait ended only because a cancel
** request had to be repeated.  Returns how many SQEs the kernel took or
** -errno. */
static int enter(struct ring *r, unsigned most, unsigned min_complete,
                 unsigned flags)
{
  unsigned taken = 0;
  for (;;) {
    uint64_t again_ns = cancel_retry(r, UINT64_MAX);
    unsigned queued;
    int rc;
    queue_refill(r);
    queued = queue_publish(r);
    if (queued > most - taken)
      queued = whole_groups(r, most - taken);
    rc = r->driver->enter(r, queued, min_complete, flags, again_ns);
    skip_check_whole(r);
    if (rc > 0)
      taken += (unsigned)rc;
    if (now_ns() >= again_ns && ring_cq_ready(r) < min_complete)
      continue;
    return rc < 0 && taken == 0 ? rc : (int)taken;
  }
}

static unsigned check_count(lua_State *L, int arg, unsigned fallback)
{
  lua_Integer n = luaL_optinteger(L, arg, fallback);
  luaL_argcheck(L, n >= 0 && n <= INT_MAX, arg, "out of range");
  return (unsigned)n;
}

/* ring:enter([to_submit [, min_complete = 0 [, flags]]]) -> how many
** operations the kernel took | nil, message, errno: one io_uring_enter.
** Without to_submit all that are queued; a linked group goes as a whole or
** stays.  It waits until that many completions are there, whoever they are
** for, and reaps none; a signal ends the wait (EINTR).  flags are
** IORING_ENTER_GETEVENTS (by default where it waits), _SQ_WAKEUP, _SQ_WAIT */
static int hand_enter(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  unsigned most = check_count(L, 2, INT_MAX);
  unsigned min_complete = check_count(L, 3, 0);
  lua_Integer flags =
      luaL_optinteger(L, 4, min_complete > 0 ? IORING_ENTER_GETEVENTS : 0);
  int rc;
  luaL_argcheck(L, (flags & ~(lua_Integer)ENTER_FLAGS) == 0, 4,
                "flags other than GETEVENTS, SQ_WAKEUP and SQ_WAIT");
  rc = enter(r, most, min_complete, (unsigned)flags);
  if (rc < 0)
    return push_failure(L, "enter", -rc);
  lua_pushinteger(L, rc);
  return 1;
}

/*
** Completions
*/

/* Has what the kernel holds back brought into an empty CQ: deferred task work,
** CQEs that did not fit.  0 or -errno where the ring is broken. */
static int gather(struct ring *r)
{
  int rc = 0;
  if (ring_cq_ready(r) == 0)
    rc = ring_enter(r, 0, 0, 0);
  return ring_is_passing(rc) ? 0 : rc;
}

/* The name of what a CQE belongs to: of an operation, of a cancel request that
** the ring made; nil for what it knows nothing of. */
static void push_name(lua_State *L, const struct ring *r, uint64_t user_data)
{
  const struct event *e = event_find(&r->events, user_data);
  if (e == NULL && cancel_is_request(r, user_data))
    lua_pushliteral(L, "cancel");
  else
    lua_pushstring(L, e ? event_name(e) : NULL);
}

/* ring:peek() -> result, flags, user_data, name of the oldest CQE that has not
** been reaped, as the kernel wrote it; or nil.  It stays where it is */
static int hand_peek(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  const struct io_uring_cq *cq = &r->io.cq;
  const struct io_uring_cqe *cqe;
  int rc = gather(r);
  if (rc < 0)
    return push_failure(L, "peek", -rc);
  if (ring_cq_ready(r) == 0) {
    ring_silence_bell(r);
    lua_pushnil(L);
    return 1;
  }
  cqe = &cq->cqes[*cq->khead & cq->ring_mask];
  lua_pushinteger(L, cqe->res);
  lua_pushinteger(L, cqe->flags);
  lua_pushinteger(L, (lua_Integer)cqe->user_data);
  push_name(L, r, cqe->user_data);
  return 4;
}

/* ring:advance([n = 1]) -> how many CQEs, at most n, were given to their
** operations | nil, message, errno */
static int hand_advance(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  unsigned most = check_count(L, 2, 1), given = 0, some = 1;
  int rc = 0;
  while (given < most && some > 0 && rc == 0) {
    rc = gather(r);
    some = ring_reap(r, most - given);
    given += some;
  }
  ring_silence_bell(r);
  if (rc < 0 && given == 0)
    return push_failure(L, "advance", -rc);
  lua_pushinteger(L, given);
  return 1;
}

/*
** Turning
*/

/* ring:step([seconds]): one turn, for a loop that is not ours: hands over,
** waits for at most so long (nil: until something happens), reaps, and on the
** default ring runs the tasks that are ready.  -> in how many seconds the ring
** wants to be stepped at the latest; nil: not before its fd is readable */
static int hand_step(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  lua_Number seconds = luaL_optnumber(L, 2, 0);
  uint64_t deadline_ns = UINT64_MAX, next_ns;
  bool wait = true;
  luaL_argcheck(L, seconds >= 0, 2, "seconds are negative");
  if (r->core->sched.turning)
    return luaL_error(L, "cannot step a ring inside a task: await in it");
  if (!lua_isnoneornil(L, 2)) {
    wait = seconds > 0;
    deadline_ns = now_ns() + seconds_to_ns(seconds);
  }
  next_ns = loop_step(L, r, wait, deadline_ns);
  if (next_ns == UINT64_MAX) {
    lua_pushnil(L);
  } else {
    uint64_t now = now_ns();
    lua_pushnumber(L, next_ns > now ? (lua_Number)(next_ns - now) / 1e9 : 0);
  }
  return 1;
}

/*
** Operations
*/

/* op:user_data() -> what its CQEs are marked with; nil once it is done */
static int hand_user_data(lua_State *L)
{
  const struct operation *op = luaL_checkudata(L, 1, OPERATION_TYPE);
  if (op->event == NULL)
    lua_pushnil(L);
  else
    lua_pushinteger(L, (lua_Integer)operation_user_data(op));
  return 1;
}

static const luaL_Reg methods[] = {
    {"enter", hand_enter}, {"peek", hand_peek}, {"advance", hand_advance},
    {"step", hand_step},   {NULL, NULL},
};

void hand_methods(lua_State *L)
{
  luaL_setfuncs(L, methods, 0);
  luaL_getmetatable(L, OPERATION_TYPE);
  lua_getfield(L, -1, "__index");
  lua_pushcfunction(L, hand_user_data);
  lua_setfield(L, -2, "user_data");
  lua_pop(L, 2);
}
