/* The ring by hand, beneath the loop: enter, peek, advance, step, and what
** CQEs call an operation.
*/
#ifndef URING_RING_HAND_H
#define URING_RING_HAND_H

#include "ring.h"

/* Adds enter, peek, advance and step to the table on the top, the methods of
** the ring, and user_data to the methods of operations. */
void hand_methods(lua_State *L);

#endif
