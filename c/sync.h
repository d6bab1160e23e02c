/* Semaphores, mutexes, conditions, wait groups: state of the scheduler and
** nothing else, no descriptors and no system calls.  Whoever has waited
** longest is served first, and is given what it waited for while it still
** stands in line, so nobody who comes later gets ahead.
*/
#ifndef URING_SYNC_H
#define URING_SYNC_H

#include "core.h"

/* Adds the table `sync` to the module on the top. */
void sync_register(lua_State *L, struct core *core);

#endif
