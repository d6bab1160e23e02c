/* The deadline heap: every timed wait of every task, kept in user space.
** The nearest deadline is what one enter waits for, so a timer
** costs no system call and no operation of its own.
*/
#ifndef URING_TIMER_H
#define URING_TIMER_H

#include "core.h"

/* Whose a timer is, and so what happens when it is due. */
enum timer_kind {
  TIMER_TASK,
  TIMER_OBJECT,
  TIMER_SCOPE,
  TIMER_OPERATION,
  TIMER_KINDS
};

struct timer {
  unsigned slot; /* from 1; 0: not armed */
};

/* No deadline at all. */
#define NEVER_NS UINT64_MAX

/* A Timer object.  Whoever waits for it stands in its queue, and only while
** somebody does it stands in the heap. */
struct timer_object {
  struct timer timer;
  uint64_t deadline_ns; /* also while the timer is not armed */
  struct core *core;
  struct queue waiting;
  unsigned epoch; /* of the process whose tasks are waiting */
  unsigned rung;  /* how often it has woken whoever was waiting */
  bool closed;
};

uint64_t now_ns(void);

/* The same clock, some milliseconds late and at a fraction of the price. */
uint64_t now_coarse_ns(void);

/* Seconds as the API has them to nanoseconds, saturating: anything past 292
** years, infinity included, is "never" as far as a clock is concerned. */
uint64_t seconds_to_ns(lua_Number seconds);

/* Makes room for one more timer; false when memory is out. */
bool timer_reserve(struct core *core);

/* Arms a timer that timer_reserve made room for; the deadline is a time of
** CLOCK_MONOTONIC. */
void timer_arm(struct core *core, struct timer *t, enum timer_kind kind,
               uint64_t deadline_ns);

/* Disarms; does nothing to a timer that is not armed. */
void timer_disarm(struct core *core, struct timer *t);

/* The nearest timer that is due, disarmed, and its kind; NULL when there is
** none. */
struct timer *timer_due(struct core *core, uint64_t now,
                        enum timer_kind *kind);

/* Disarms all of them. */
void timer_disarm_all(struct core *core);

/* The nearest deadline, UINT64_MAX when no timer is armed. */
uint64_t timer_nearest(const struct core *core);

void timer_free(struct core *core);

/* The deadline of the object whose timer this is has come. */
void timer_object_ring(struct timer *t);

/* timer([deadline]) -> Timer, see timer_object.c */
void timer_register(lua_State *L, struct core *core);

#endif
