/* The deadline heap.
**
** A four-way heap: half the levels of a binary one, and the four children
** share a cache line.  The deadlines are in the heap itself, and whose they
** are in a slot that stays where it is, so sifting touches nothing but the
** heap, however many sleep wherever in memory.
**
** A timer that is disarmed only empties its slot.  Its entry stays until it
** is at the top, where there is never an empty one, or until the heap is
** full: if half of it has been given up then, it is swept and does not grow.
*/
#include "timer.h"

#include <string.h>
#include <time.h>

#define WAYS 4u

struct deadline {
  uint64_t ns;
  unsigned slot;
};

struct timer_slot {
  struct timer *timer; /* NULL: given up, or free */
  union {
    enum timer_kind kind;
    unsigned next_free; /* of a free one */
  };
};

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

/*
** The heap
*/

static void sift_up(struct deadline *heap, unsigned i, struct deadline d)
{
  while (i > 0) {
    unsigned parent = (i - 1) / WAYS;
    if (heap[parent].ns <= d.ns)
      break;
    heap[i] = heap[parent];
    i = parent;
  }
  heap[i] = d;
}

/* The child of `i` with the nearest deadline; `i` where it has none. */
static unsigned nearest_child(const struct sched *s, unsigned i)
{
  unsigned first = i * WAYS + 1;
  unsigned last = first + WAYS < s->heap_used ? first + WAYS : s->heap_used;
  unsigned best = first;
  if (first >= s->heap_used)
    return i;
  for (unsigned c = first + 1; c < last; c++)
    if (s->heap[c].ns < s->heap[best].ns)
      best = c;
  return best;
}

static void sift_down(struct sched *s, unsigned i, struct deadline d)
{
  for (;;) {
    unsigned child = nearest_child(s, i);
    if (child == i || s->heap[child].ns >= d.ns)
      break;
    s->heap[i] = s->heap[child];
    i = child;
  }
  s->heap[i] = d;
}

static void free_slot(struct sched *s, unsigned slot)
{
  s->timers[slot - 1].timer = NULL;
  s->timers[slot - 1].next_free = s->free_timer;
  s->free_timer = slot;
}

static bool is_given_up(const struct sched *s, unsigned i)
{
  return s->timers[s->heap[i].slot - 1].timer == NULL;
}

/* Takes the entry at the top out. */
static void pop(struct sched *s)
{
  free_slot(s, s->heap[0].slot);
  if (--s->heap_used > 0)
    sift_down(s, 0, s->heap[s->heap_used]);
}

static void clear_top(struct sched *s)
{
  while (s->heap_used > 0 && is_given_up(s, 0))
    pop(s);
}

/* Takes out all that has been given up. */
static void sweep(struct sched *s)
{
  unsigned kept = 0;
  for (unsigned i = 0; i < s->heap_used; i++) {
    if (is_given_up(s, i))
      free_slot(s, s->heap[i].slot);
    else
      s->heap[kept++] = s->heap[i];
  }
  s->heap_used = kept;
  for (unsigned i = kept / WAYS + 1; i-- > 0;)
    if (i < kept)
      sift_down(s, i, s->heap[i]);
}

/*
** Timers
*/

/* Two arrays of one size, or neither has changed as far as anybody sees. */
static bool grow(struct core *core, struct sched *s)
{
  const unsigned old = s->heap_size, size = old ? old * 2 : 64;
  struct deadline *heap = mem_alloc(core, size * sizeof *heap);
  struct timer_slot *timers;
  if (heap == NULL)
    return false;
  timers = mem_realloc(core, s->timers, old * sizeof *timers,
                       size * sizeof *timers);
  if (timers == NULL) {
    mem_free(core, heap, size * sizeof *heap);
    return false;
  }
  if (old > 0)
    memcpy(heap, s->heap, old * sizeof *heap);
  mem_free(core, s->heap, old * sizeof *heap);
  s->heap = heap;
  s->timers = timers;
  s->heap_size = size;
  for (unsigned slot = size; slot > old; slot--)
    free_slot(s, slot);
  return true;
}

bool timer_reserve(struct core *core)
{
  struct sched *s = &core->sched;
  if (s->heap_used < s->heap_size)
    return true;
  if (s->ntimers <= s->heap_size / 2 && s->heap_size > 0) {
    sweep(s);
    return true;
  }
  return grow(core, s);
}

void timer_arm(struct core *core, struct timer *t, enum timer_kind kind,
               uint64_t deadline_ns)
{
  struct sched *s = &core->sched;
  const unsigned slot = s->free_timer;
  struct timer_slot *of = &s->timers[slot - 1];
  s->free_timer = of->next_free;
  of->timer = t;
  of->kind = kind;
  t->slot = slot;
  s->ntimers++;
  sift_up(s->heap, s->heap_used++, (struct deadline){deadline_ns, slot});
}

void timer_disarm(struct core *core, struct timer *t)
{
  struct sched *s = &core->sched;
  const unsigned slot = t->slot;
  if (slot == 0)
    return;
  t->slot = 0;
  s->ntimers--;
  s->timers[slot - 1].timer = NULL;
  if (s->heap[s->heap_used - 1].slot == slot) { /* a leaf: the newest, often */
    s->heap_used--;
    free_slot(s, slot);
  }
  clear_top(s);
}

struct timer *timer_due(struct core *core, uint64_t now, enum timer_kind *kind)
{
  struct sched *s = &core->sched;
  const struct timer_slot *top;
  struct timer *t;
  if (s->heap_used == 0 || s->heap[0].ns > now)
    return NULL;
  top = &s->timers[s->heap[0].slot - 1];
  t = top->timer;
  *kind = top->kind;
  t->slot = 0;
  s->ntimers--;
  pop(s);
  clear_top(s);
  return t;
}

uint64_t timer_nearest(const struct core *core)
{
  const struct sched *s = &core->sched;
  return s->heap_used ? s->heap[0].ns : UINT64_MAX;
}

void timer_disarm_all(struct core *core)
{
  struct sched *s = &core->sched;
  for (unsigned i = 0; i < s->heap_used; i++) {
    struct timer *t = s->timers[s->heap[i].slot - 1].timer;
    if (t != NULL)
      t->slot = 0;
    free_slot(s, s->heap[i].slot);
  }
  s->heap_used = s->ntimers = 0;
}

void timer_free(struct core *core)
{
  struct sched *s = &core->sched;
  mem_free(core, s->heap, s->heap_size * sizeof *s->heap);
  mem_free(core, s->timers, s->heap_size * sizeof *s->timers);
  s->heap = NULL;
  s->timers = NULL;
  s->heap_used = s->heap_size = s->ntimers = s->free_timer = 0;
}
