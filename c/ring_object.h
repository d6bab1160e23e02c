/* The ring as Lua sees it. */
#ifndef URING_RING_OBJECT_H
#define URING_RING_OBJECT_H

#include "ring.h"

/* The ring at a stack index, open and of this process; raises otherwise. */
struct ring *ring_object_open(lua_State *L, int index);

/* Raises unless the ring is open and belongs to this process. */
void ring_object_check(lua_State *L, const struct ring *r);

/* Pushes a new ring object; or pushes nil, message, errno and returns NULL. */
struct ring *ring_object_push(lua_State *L, struct core *core,
                              const struct ring_options *o);

void ring_object_register(lua_State *L, struct core *core);

#endif
