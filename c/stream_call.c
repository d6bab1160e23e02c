/* Calls on streams: whose turn it is, and how they wait.
**
** 1. A call that needs nothing from the kernel is done at once, if nobody has
**    the lane.
** 2. Else it takes the lane, or stands in line for it, and starts one
**    operation after the other until `look` has enough.
** 3. The lane is given to the next in line before results are made: those may
**    raise for lack of memory, and then nothing of them has been taken.
** 4. Cancelled, late or closed: the operation is cancelled and the call waits
**    for its end, as every await does.  If it was faster its bytes are in
**    hand, or counted as sent.
** 5. Outside of tasks the loop is turned in a protected call, so that an
**    error out of it (Ctrl-C, say) does not leave with the lane.
** 6. At a stream that is tied, a reading call that would have to wait is a
**    writing call first: it flushes, and begins when that has ended.
*/
#include "stream_call.h"

#include <errno.h>

#include "loop.h"
#include "op.h"
#include "operation.h"
#include "task.h"

static unsigned lane_of(const struct stream *s, const struct stream_call *c)
{
  return stream_is_file(s) ? LANE_READ : c->lane;
}

/*
** The lane
*/

void stream_adopt(struct stream *s)
{
  for (int i = 0; i < 2; i++) {
    s->lanes[i].waiting.head = s->lanes[i].waiting.tail = NULL;
    s->lanes[i].owner = NULL;
    s->lanes[i].operation = USER_DATA_NONE;
    s->waits[i] = WAIT_NOTHING;
  }
  s->epoch = *s->core->epoch;
}

void stream_begin(struct stream *s, unsigned lane, int top)
{
  s->top[lane] = top;
  if (lane == LANE_READ) {
    input_begin(&s->in);
    s->format = 2;
    s->filled = -1;
  }
  if (lane == LANE_WRITE || stream_is_file(s)) {
    s->total = s->sent = 0;
    s->begun = false;
    if (s->buffering == BUFFER_NOTHING)
      output_drop(&s->out); /* of one that was cancelled */
  }
}

/* Gives it to the next in line. */
static void release(struct stream *s, unsigned i)
{
  struct lane *lane = &s->lanes[i];
  struct task *next = lane->waiting.head;
  lane->owner = next;
  s->waits[i] = next != NULL ? WAIT_TURN : WAIT_NOTHING;
  tasks_wake_some(&lane->waiting, 1);
}

/* Nobody will take what is left of a stream that is being closed. */
static void let_go_of_input(struct stream *s)
{
  if (s->closing && s->lanes[LANE_READ].owner == NULL)
    input_drop(&s->in);
}

/* The call is over, the lane somebody else's.  What it has read is in hand
** until its results have been made. */
static int finish(lua_State *L, struct stream *s, const struct stream_call *c,
                  const struct piece *piece)
{
  const int n = c->finish(L, s, piece);
  let_go_of_input(s);
  return n;
}

static int fail(lua_State *L, struct stream *s, const struct stream_call *c,
                int err)
{
  let_go_of_input(s);
  return c->failed(L, s, err, true);
}

void stream_interrupt(struct stream *s)
{
  for (int i = 0; i < 2; i++) {
    struct lane *lane = &s->lanes[i];
    struct ring *home = s->core->home;
    struct event *e = NULL;
    if (lane->operation != USER_DATA_NONE && home != NULL)
      e = event_find(&home->events, lane->operation);
    if (e != NULL)
      ring_cancel(home, e);
    tasks_wake(&lane->waiting); /* without the lane: see left_line */
  }
}

/* Where what came of an operation is, or will be; NULL: nobody has it. */
static struct outcome *outcome_of(lua_State *L, const struct stream *s,
                                  unsigned lane, const struct event *e)
{
  struct task *owner = s->lanes[lane].owner;
  if (e != NULL)
    return e->task != NULL ? &e->task->outcome
           : e->op != NULL ? &e->op->outcome
                           : NULL;
  /* one that stands in the line of a channel has none */
  return task_exists(L, s->core, owner) && owner->nplaces == 0
             ? &owner->outcome
             : NULL;
}

void stream_end_operation(lua_State *L, struct stream *s, unsigned lane)
{
  const uint64_t operation = s->lanes[lane].operation;
  struct ring *home = s->core->home;
  struct outcome *o;
  struct event *e;
  if (operation == USER_DATA_NONE || home == NULL || home->state != RING_OPEN)
    return;
  s->lanes[lane].operation = USER_DATA_NONE;
  e = event_find(&home->events, operation);
  o = outcome_of(L, s, lane, e);
  if (e != NULL)
    ring_cancel(home, e);
  while (event_find(&home->events, operation) != NULL)
    if (ring_step(home, true, UINT64_MAX) < 0)
      return;
  if (o != NULL && o->state == OUTCOME_READY)
    (void)stream_settle(s, lane, o);
}

/*
** In a task
*/

static int give_up(lua_State *L, struct stream *s, const struct stream_call *c,
                   struct task *t, int err)
{
  bool cancelled = task_is_struck(t);
  bool late = task_call_is_late(t);
  release(s, lane_of(s, c));
  task_call_ends(t);
  if (cancelled) {
    let_go_of_input(s);
    return task_raise_cancelled(L);
  }
  if (err == -ECANCELED && late && (c->closes || stream_is_open(s)))
    err = STREAM_LATE;
  return fail(L, s, c, err);
}

/* Grows the event table of the ring, a light userdata. */
static int grow_events(lua_State *L)
{
  struct ring *r = lua_touserdata(L, 1);
  struct event *e = event_new(L, r);
  if (e == NULL)
    return luaL_error(L, "not enough memory");
  event_free(r, e);
  return 0;
}

/* Makes sure of a free event; else an error is on the top. */
static bool has_event(lua_State *L, struct ring *r)
{
  if (r->events.free != NULL)
    return true;
  lua_pushcfunction(L, grow_events);
  lua_pushlightuserdata(L, r);
  return lua_pcall(L, 1, 0, 0) == LUA_OK;
}

/* The lane is the task's, and `look` has asked for an operation. */
static int go_on(lua_State *L, struct stream *s, const struct stream_call *c,
                 struct task *t, const struct piece *piece)
{
  struct ring *r = t->core->home;
  unsigned lane = lane_of(s, c);
  struct event *e = NULL;
  if (task_is_struck(t) || task_call_is_late(t) ||
      (!c->closes && !stream_is_open(s)))
    return give_up(L, s, c, t, -ECANCELED);
  if (!ring_has_room(r)) {
    s->waits[lane] = WAIT_NOTHING;
    return task_park(L, t, &r->space, c->k, (lua_KContext)t);
  }
  if (!has_event(L, r)) {
    release(s, lane);
    task_call_ends(t);
    return lua_error(L);
  }
  if (ring_reserve(r))
    e = c->start(L, s, r, piece);
  if (e == NULL) {
    release(s, lane);
    task_call_ends(t);
    return luaL_error(L, "not enough memory");
  }
  e->task = t;
  t->event = e;
  s->lanes[lane].operation = event_user_data(e);
  return task_park(L, t, NULL, c->k, (lua_KContext)t);
}

/* The task stood in line and was woken, but not since it was its turn. */
static int left_line(lua_State *L, struct stream *s,
                     const struct stream_call *c, struct task *t)
{
  bool late = task_call_is_late(t);
  task_call_ends(t);
  task_check_interrupted(L, t);
  return c->failed(L, s, late ? STREAM_LATE : -ECANCELED, false);
}

static int step(lua_State *L, struct stream *s, const struct stream_call *c,
                struct task *t)
{
  struct piece piece;
  if (c->look(L, s, &piece) == WAIT)
    return go_on(L, s, c, t, &piece);
  release(s, lane_of(s, c));
  task_call_ends(t);
  return finish(L, s, c, &piece);
}

int stream_call_k(lua_State *L, lua_KContext ctx, const struct stream_call *c)
{
  struct task *t = (struct task *)ctx;
  struct stream *s = lua_touserdata(L, 1);
  unsigned i = lane_of(s, c);
  struct lane *lane = &s->lanes[i];
  if (!task_is_resumed(t))
    return task_park_again(L, t, c->k);
  if (lane->owner != t)
    return left_line(L, s, c, t);
  if (lane->operation != USER_DATA_NONE) {
    int err;
    lane->operation = USER_DATA_NONE;
    err = stream_settle(s, i, &t->outcome);
    if (err < 0)
      return give_up(L, s, c, t, err);
  } else if (s->waits[i] == WAIT_TURN) {
    s->waits[i] = WAIT_NOTHING;
    if (!c->closes && !stream_is_open(s))
      return give_up(L, s, c, t, -ECANCELED);
    stream_begin(s, c->lane, lua_gettop(L));
  } else if (t->interrupted) { /* while it waited for room */
    t->interrupted = false;
    return give_up(L, s, c, t, -ECANCELED);
  }
  return step(L, s, c, t);
}

static int call_in_task(lua_State *L, struct stream *s,
                        const struct stream_call *c, struct task *t,
                        const struct piece *piece)
{
  struct lane *lane = &s->lanes[lane_of(s, c)];
  struct ring *r = s->core->home;
  task_call_ends(t);
  if (s->timeout_ns > 0) {
    if (!timer_reserve(s->core))
      return luaL_error(L, "not enough memory for a timer");
    task_time_call(t, now_ns() + s->timeout_ns);
  }
  if (lane->owner != NULL)
    return task_park(L, t, &lane->waiting, c->k, (lua_KContext)t);
  lane->owner = t;
  if (ring_is_crowded(r)) {
    s->waits[lane_of(s, c)] = WAIT_NOTHING;
    return task_park(L, t, &r->space, c->k, (lua_KContext)t);
  }
  return go_on(L, s, c, t, piece);
}

/*
** Outside of tasks
*/

struct outside {
  struct stream *s;
  const struct stream_call *c;
  struct piece piece;
  struct operation *op; /* on the stack of the call */
  uint64_t deadline_ns;
  bool late;
};

static bool is_late(const struct outside *o)
{
  return o->deadline_ns != UINT64_MAX && now_ns() >= o->deadline_ns;
}

static bool lane_is_free(void *arg)
{
  const struct outside *o = arg;
  return o->s->lanes[lane_of(o->s, o->c)].owner == NULL || is_late(o);
}

static bool has_ended(void *arg)
{
  const struct outside *o = arg;
  return o->op->event == NULL;
}

static bool has_ended_or_late(void *arg)
{
  return has_ended(arg) || is_late(arg);
}

/* The stack is that of the call, and a struct outside. */
static int start_outside(lua_State *L)
{
  struct outside *o = lua_touserdata(L, -1);
  struct stream *s = o->s;
  struct ring *r = ring_home(L, s->core);
  struct operation *op = o->op;
  struct event *e = NULL;
  lua_pop(L, 1);
  while (!ring_has_room(r))
    loop_relieve(L, r);
  if (!has_event(L, r))
    return lua_error(L);
  if (ring_reserve(r))
    e = o->c->start(L, s, r, &o->piece);
  if (e == NULL)
    return luaL_error(L, "not enough memory");
  op->outcome.row = e->row;
  op->ring = r;
  op->event = e;
  e->op = op;
  s->lanes[lane_of(s, o->c)].operation = event_user_data(e);
  loop_until(L, r, o->deadline_ns, has_ended_or_late, o);
  if (op->event != NULL) {
    o->late = true;
    operation_cancel(op);
    loop_until(L, r, UINT64_MAX, has_ended, o);
  }
  return 0;
}

/* An error while the loop was turned: the operation is cancelled, and counted
** in before anything else happens. */
static void abort_outside(const struct outside *o)
{
  struct operation *op = o->op;
  if (op->event == NULL)
    return;
  operation_cancel(op);
  while (op->event != NULL)
    if (ring_step(op->ring, true, UINT64_MAX) < 0)
      break;
}

/* One operation; the stack is that of the call and the handle.  Returns 0 or
** -errno. */
static int operate_outside(lua_State *L, struct outside *o, int args)
{
  unsigned lane = lane_of(o->s, o->c);
  int status, err;
  lua_pushcfunction(L, start_outside);
  for (int i = 1; i <= args; i++)
    lua_pushvalue(L, i);
  lua_pushlightuserdata(L, o);
  status = lua_pcall(L, args + 1, 0, 0);
  if (status != LUA_OK)
    abort_outside(o);
  o->s->lanes[lane].operation = USER_DATA_NONE;
  if (o->op->outcome.state == OUTCOME_READY)
    err = stream_settle(o->s, lane, &o->op->outcome);
  else
    err = 0;
  if (status != LUA_OK) {
    release(o->s, lane);
    lua_error(L);
  }
  return err;
}

/* `begun`: the lane is free, and `look` has asked for an operation already. */
static int call_outside(lua_State *L, struct stream *s,
                        const struct stream_call *c, bool begun)
{
  struct ring *r = ring_home(L, s->core);
  struct outside o = {.s = s, .c = c, .deadline_ns = UINT64_MAX};
  int args = lua_gettop(L), err = 0;
  unsigned lane = lane_of(s, c);
  stream_check_stack(L, args);
  if (s->timeout_ns > 0)
    o.deadline_ns = now_ns() + s->timeout_ns;
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->core->home_ref);
  o.op = operation_push(L, s->core, -1);
  if (!begun && !lane_is_free(&o))
    loop_until(L, r, o.deadline_ns, lane_is_free, &o);
  if (!c->closes && !stream_is_open(s))
    return c->failed(L, s, -ECANCELED, false);
  if (s->lanes[lane].owner != NULL)
    return c->failed(L, s, STREAM_LATE, false);
  s->lanes[lane].owner = LANE_OUTSIDE;
  if (!begun)
    stream_begin(s, c->lane, args);
  while (err == 0 && c->look(L, s, &o.piece) == WAIT) {
    err = o.late || (!c->closes && !stream_is_open(s)) ? -ECANCELED : 0;
    if (err == 0)
      err = operate_outside(L, &o, args);
  }
  release(s, lane);
  if (err == 0)
    return finish(L, s, c, &o.piece);
  if (err == -ECANCELED && o.late && (c->closes || stream_is_open(s)))
    err = STREAM_LATE;
  return fail(L, s, c, err);
}

/*
** Tied streams
*/

static bool flushes_first(const struct stream *s, const struct stream_call *c)
{
  return s->tied && c->lane == LANE_READ && !stream_is_file(s) &&
         output_size(&s->out) > 0;
}

static int begin_call(lua_State *L, struct stream *s,
                      const struct stream_call *c, bool may_flush)
{
  struct piece piece;
  struct task *t;
  bool idle;
  stream_enter(s);
  idle = stream_is_idle(s, c->lane);
  if (idle) {
    stream_begin(s, c->lane, lua_gettop(L));
    if (c->look(L, s, &piece) == DONE)
      return c->finish(L, s, &piece);
  }
  if (may_flush && flushes_first(s, c))
    return stream_flush_first(L, s, c);
  t = task_awaiting(L, s->core);
  if (t == NULL)
    return call_outside(L, s, c, idle);
  return call_in_task(L, s, c, t, &piece);
}

int stream_call(lua_State *L, struct stream *s, const struct stream_call *c)
{
  return begin_call(L, s, c, true);
}

int stream_call_flushed(lua_State *L, struct stream *s,
                        const struct stream_call *c)
{
  return begin_call(L, s, c, false);
}
