/* What the scheduler is made of: queues of tasks and the deadline heap.
** Pure data; task.c and timer.c give it life.
*/
#ifndef URING_SCHEDULER_H
#define URING_SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct task;

/* A FIFO of tasks.  A task stands in one queue at most, so the links are in
** the task and joining or leaving a queue allocates nothing. */
struct queue {
  struct task *head, *tail;
};

static inline bool queue_empty(const struct queue *q)
{
  return q->head == NULL;
}

struct sched {
  struct task *current; /* the task being resumed, NULL outside of any */
  struct queue ready;   /* who runs in this turn or the next */
  uint64_t *deadlines;  /* a heap, the nearest first, see timer.c */
  uint32_t *slots;      /* the slot of each, */
  uintptr_t *timers;    /* and whose that is */
  unsigned heap_used, heap_size;
  unsigned ntimers;    /* that have not been given up */
  unsigned free_timer; /* head of the free slots, 0 for none */
  uint64_t woken_ns;   /* when a deadline last woke somebody, */
  unsigned woken;      /* and how many did so together */
  unsigned ntasks;     /* tasks that have not ended */
  unsigned tasks_cap;  /* slots in the table of tasks */
  unsigned free_slot;  /* head of the free slots, 0 for none */
  unsigned selects;    /* where the last one began, see channel.c */
  uint64_t turned_ns;  /* when the last turn began to run tasks, coarsely */
  bool turning;        /* a turn of the home ring is under way */
};

#endif
