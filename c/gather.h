/* Gathering: one task waits for whichever of many operations has something to
** hand out next.
*/
#ifndef URING_GATHER_H
#define URING_GATHER_H

#include "operation.h"

struct gathering {
  struct core *core;
  struct ring *ring; /* of all its operations; valid while count > 0 */
  struct operation *members;
  unsigned count;          /* how many they are */
  unsigned slots;          /* in the table of what is kept */
  unsigned free_slot;      /* head of the free slots, 0 for none */
  struct queue waiting;    /* tasks of the ring's own loop */
  struct queue watching;   /* tasks of another loop, see operation.c */
  struct operation *first; /* the line of those that have something, */
  struct operation *last;  /* in the order in which they got it */
};

/* The operation of a gathering has something new to hand out. */
void gather_tell(struct operation *op);

/* The handle is going: it is in no gathering any more. */
void gather_forget(struct operation *op);

/* gathering() -> Gathering */
void gather_register(lua_State *L, struct core *core);

#endif
