/* The turn: one enter, one batch, then everybody who is ready.
 */
#ifndef URING_LOOP_H
#define URING_LOOP_H

#include "ring.h"

/* One turn of a ring.  The home ring's turn also serves deadlines and tasks.
** With `wait` it sleeps until something happens, the deadline at the latest
** (UINT64_MAX: none).  Raises where the ring is
** broken, where nothing could ever happen, and inside another turn. */
void loop_turn(lua_State *L, struct ring *r, bool wait, uint64_t deadline_ns);

/* A turn for a loop that is not ours: as loop_turn, and what was queued in it
** is handed over.  Returns when the next one is due at the latest; UINT64_MAX:
** when the ring's bell rings. */
uint64_t loop_step(lua_State *L, struct ring *r, bool wait,
                   uint64_t deadline_ns);

/* Turns until done(arg).  Returns to Lua for a moment in each turn, so that
** debug hooks and Ctrl-C work even when idle. */
void loop_until(lua_State *L, struct ring *r, uint64_t deadline_ns,
                bool (*done)(void *arg), void *arg);

/* One step for who wants room in a ring that is full, and is no task that could
** wait for it: hands over, waits until something happens and reaps.  Deadlines
** are met, and no task runs.  Raises where the ring is broken or closed, and
** where nothing could ever make room. */
void loop_relieve(lua_State *L, struct ring *r);

#endif
