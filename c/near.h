/* Names that a misspelt one may have meant. */
#ifndef URING_NEAR_H
#define URING_NEAR_H

#include <lauxlib.h>
#include <stdbool.h>

/* Collects candidates; `near_push` leaves ": did you mean 'read'?" or a list
** of all known names on the stack. */
struct near {
  const char *name;     /* what was written */
  const char *best[3];  /* the nearest so far */
  unsigned distance[3]; /* of each; the first unused one is NULL */
};

void near_start(struct near *n, const char *name);
void near_offer(struct near *n, const char *candidate);

/* Pushes " (did you mean 'a', 'b'?)", or "" where nothing is near. */
void near_push(lua_State *L, const struct near *n);

/* near(name, list of names) -> the same text, for Lua. */
int near_lua(lua_State *L);

#endif
