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

/* What a slot holds: a timer and, in the bits that are 0 in its address, its
** kind; GIVEN_UP; or, of a free one, the next free one. */
#define KIND_BITS ((uintptr_t)3)
#define GIVEN_UP  ((uintptr_t)0)

_Static_assert(TIMER_KINDS <= KIND_BITS + 1, "a kind fits into an address");
_Static_assert(_Alignof(struct timer) > KIND_BITS, "an address has room");

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

static void put(struct sched *s, unsigned i, uint64_t ns, uint32_t slot)
{
  s->deadlines[i] = ns;
  s->slots[i] = slot;
}

static void sift_up(struct sched *s, unsigned i, uint64_t ns, uint32_t slot)
{
  while (i > 0) {
    unsigned parent = (i - 1) / WAYS;
    if (s->deadlines[parent] <= ns)
      break;
    put(s, i, s->deadlines[parent], s->slots[parent]);
    i = parent;
  }
  put(s, i, ns, slot);
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
    if (s->deadlines[c] < s->deadlines[best])
      best = c;
  return best;
}

static void sift_down(struct sched *s, unsigned i, uint64_t ns, uint32_t slot)
{
  for (;;) {
    unsigned child = nearest_child(s, i);
    if (child == i || s->deadlines[child] >= ns)
      break;
    put(s, i, s->deadlines[child], s->slots[child]);
    i = child;
  }
  put(s, i, ns, slot);
}

static void free_slot(struct sched *s, uint32_t slot)
{
  s->timers[slot - 1] = s->free_timer;
  s->free_timer = slot;
}

static bool is_given_up(const struct sched *s, unsigned i)
{
  return s->timers[s->slots[i] - 1] == GIVEN_UP;
}

static struct timer *timer_of(const struct sched *s, unsigned i)
{
  return (struct timer *)(s->timers[s->slots[i] - 1] & ~KIND_BITS);
}

/* Takes the entry at the top out. */
static void pop(struct sched *s)
{
  unsigned last = --s->heap_used;
  free_slot(s, s->slots[0]);
  if (last > 0)
    sift_down(s, 0, s->deadlines[last], s->slots[last]);
  if (last > 0) /* often due as well: fetch it meanwhile */
    __builtin_prefetch(timer_of(s, 0));
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
      free_slot(s, s->slots[i]);
    else
      put(s, kept++, s->deadlines[i], s->slots[i]);
  }
  s->heap_used = kept;
  for (unsigned i = kept; i-- > 0;)
    sift_down(s, i, s->deadlines[i], s->slots[i]);
}

/*
** Timers
*/

/* Bytes of the three arrays, which are one block. */
static size_t heap_bytes(unsigned size)
{
  return size * (sizeof(uint64_t) + sizeof(uintptr_t) + sizeof(uint32_t));
}

static bool grow(struct core *core, struct sched *s)
{
  const unsigned old = s->heap_size, size = old ? old * 2 : 64;
  struct sched to = *s;
  to.deadlines = mem_alloc(core, heap_bytes(size));
  if (to.deadlines == NULL)
    return false;
  to.timers = (uintptr_t *)(to.deadlines + size);
  to.slots = (uint32_t *)(to.timers + size);
  if (old > 0) {
    memcpy(to.deadlines, s->deadlines, old * sizeof *s->deadlines);
    memcpy(to.timers, s->timers, old * sizeof *s->timers);
    memcpy(to.slots, s->slots, old * sizeof *s->slots);
  }
  mem_free(core, s->deadlines, heap_bytes(old));
  s->deadlines = to.deadlines;
  s->timers = to.timers;
  s->slots = to.slots;
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
  t->slot = s->free_timer;
  s->free_timer = (uint32_t)s->timers[t->slot - 1];
  s->timers[t->slot - 1] = (uintptr_t)t | kind;
  s->ntimers++;
  sift_up(s, s->heap_used++, deadline_ns, t->slot);
}

void timer_disarm(struct core *core, struct timer *t)
{
  struct sched *s = &core->sched;
  const uint32_t slot = t->slot;
  if (slot == 0)
    return;
  t->slot = 0;
  s->ntimers--;
  s->timers[slot - 1] = GIVEN_UP;
  if (s->slots[s->heap_used - 1] == slot) { /* a leaf: the newest, often */
    s->heap_used--;
    free_slot(s, slot);
  }
  clear_top(s);
}

struct timer *timer_due(struct core *core, uint64_t now, enum timer_kind *kind)
{
  struct sched *s = &core->sched;
  struct timer *t;
  if (s->heap_used == 0 || s->deadlines[0] > now)
    return NULL;
  t = timer_of(s, 0);
  *kind = (enum timer_kind)(s->timers[s->slots[0] - 1] & KIND_BITS);
  t->slot = 0;
  s->ntimers--;
  pop(s);
  clear_top(s);
  return t;
}

uint64_t timer_nearest(const struct core *core)
{
  const struct sched *s = &core->sched;
  return s->heap_used ? s->deadlines[0] : UINT64_MAX;
}

void timer_disarm_all(struct core *core)
{
  struct sched *s = &core->sched;
  for (unsigned i = 0; i < s->heap_used; i++) {
    struct timer *t = timer_of(s, i);
    if (t != NULL)
      t->slot = 0;
    free_slot(s, s->slots[i]);
  }
  s->heap_used = s->ntimers = 0;
}

void timer_free(struct core *core)
{
  struct sched *s = &core->sched;
  mem_free(core, s->deadlines, heap_bytes(s->heap_size));
  s->deadlines = NULL;
  s->heap_used = s->heap_size = s->ntimers = s->free_timer = 0;
}
