/* Messages: completions that other rings post to this one (msg_ring), and the
** handle that receives them.
**
** The handle is an Operation whose results are the messages.  The kernel
** knows nothing of it, so it is not in flight: a ring with a receiver is
** closed, and found idle, like one without.
*/
#ifndef URING_MESSAGE_H
#define URING_MESSAGE_H

#include <limits.h>

#include "ring.h"

/* What arrives is a CQE with the user_data that the sender has chosen.  One
** that named an event would end an operation that the kernel still works on,
** so the number sent is the generation of a slot that no event has. */
#define MESSAGE_SLOT ((uint32_t)INT32_MAX)

static inline uint64_t message_user_data(uint32_t data)
{
  return (uint64_t)data << 32 | MESSAGE_SLOT;
}

/* A CQE that names no event.  False: it is no message, or there is nobody to
** receive it. */
bool message_receive(struct ring *r, uint64_t user_data, int32_t res);

/* The receiver, if there is one, ends with -errno. */
void message_end(struct ring *r, int32_t res);

/* Adds messages to the table on the top. */
void message_methods(lua_State *L);

#endif
