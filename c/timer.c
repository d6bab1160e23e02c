/* The deadline heap.  A four-way heap: half the levels of a binary one, and
** the four children share a cache line.  Every timer knows its place, so a
** sleeping task can be cancelled without searching.
*/
#include "timer.h"

#include <time.h>

#define WAYS 4u

static uint64_t read_clock(clockid_t clock)
{
  struct timespec ts;
  clock_gettime(clock, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t now_ns(void)
{
  return read_clock(CLOCK_MONOTONIC);
}

uint64_t now_coarse_ns(void)
{
  return read_clock(CLOCK_MONOTONIC_COARSE);
}

uint64_t seconds_to_ns(lua_Number seconds)
{
  if (!(seconds > 0)) /* NaN counts as no time at all */
    return 0;
  if (seconds >= 9.2e9)
    return (uint64_t)INT64_MAX;
  return (uint64_t)(seconds * 1e9);
}

static void put(struct sched *s, unsigned place, struct timer *t)
{
  s->heap[place] = t;
  t->place = place + 1;
}

static void sift_up(struct sched *s, unsigned i, struct timer *t)
{
  while (i > 0) {
    unsigned parent = (i - 1) / WAYS;
    if (s->heap[parent]->deadline_ns <= t->deadline_ns)
      break;
    put(s, i, s->heap[parent]);
    i = parent;
  }
  put(s, i, t);
}

/* The child of `i` with the nearest deadline; `i` where it has none. */
static unsigned nearest_child(const struct sched *s, unsigned i)
{
  unsigned first = i * WAYS + 1;
  unsigned last = first + WAYS < s->ntimers ? first + WAYS : s->ntimers;
  unsigned best = first;
  if (first >= s->ntimers)
    return i;
  for (unsigned c = first + 1; c < last; c++)
    if (s->heap[c]->deadline_ns < s->heap[best]->deadline_ns)
      best = c;
  return best;
}

static void sift_down(struct sched *s, unsigned i, struct timer *t)
{
  for (;;) {
    unsigned child = nearest_child(s, i);
    if (child == i || s->heap[child]->deadline_ns >= t->deadline_ns)
      break;
    put(s, i, s->heap[child]);
    i = child;
  }
  put(s, i, t);
}

bool timer_reserve(struct core *core)
{
  struct sched *s = &core->sched;
  unsigned size = s->heap_size ? s->heap_size * 2 : 64;
  struct timer **heap;
  if (s->ntimers < s->heap_size)
    return true;
  heap = mem_realloc(core, s->heap, s->heap_size * sizeof *heap,
                     size * sizeof *heap);
  if (heap == NULL)
    return false;
  s->heap = heap;
  s->heap_size = size;
  return true;
}

void timer_arm(struct core *core, struct timer *t, uint64_t deadline_ns)
{
  struct sched *s = &core->sched;
  t->deadline_ns = deadline_ns;
  sift_up(s, s->ntimers++, t);
}

void timer_disarm(struct core *core, struct timer *t)
{
  struct sched *s = &core->sched;
  unsigned i = t->place - 1;
  struct timer *last;
  if (t->place == 0)
    return;
  t->place = 0;
  last = s->heap[--s->ntimers];
  if (last == t)
    return;
  if (last->deadline_ns < t->deadline_ns)
    sift_up(s, i, last);
  else
    sift_down(s, i, last);
}

struct timer *timer_due(struct core *core, uint64_t now)
{
  struct sched *s = &core->sched;
  struct timer *t;
  if (s->ntimers == 0 || s->heap[0]->deadline_ns > now)
    return NULL;
  t = s->heap[0];
  timer_disarm(core, t);
  return t;
}

uint64_t timer_nearest(const struct core *core)
{
  const struct sched *s = &core->sched;
  return s->ntimers ? s->heap[0]->deadline_ns : UINT64_MAX;
}

void timer_free(struct core *core)
{
  struct sched *s = &core->sched;
  mem_free(core, s->heap, s->heap_size * sizeof *s->heap);
  s->heap = NULL;
  s->ntimers = s->heap_size = 0;
}
