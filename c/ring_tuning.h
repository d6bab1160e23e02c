/* What a ring has of the kernel besides its queues. */
#ifndef URING_RING_TUNING_H
#define URING_RING_TUNING_H

#include "ring.h"

/* Adds uses_sqpoll, needs_wakeup, wake, iowq_max_workers, iowq_affinity,
** register_ring_fd and unregister_ring_fd to the table on the top. */
void tuning_methods(lua_State *L);

#endif
