/* Names that a misspelt one may have meant. */
#ifndef URING_NEAR_H
#define URING_NEAR_H

#include <lauxlib.h>
#include <stdbool.h>

#define NEAR_OFFERED 96u

/* Collects candidates; what is near is only found out when it is asked for,
** so offering names while looking for the right one costs next to nothing. */
struct near {
  const char *name; /* what was written */
  unsigned count;
  const char *offered[NEAR_OFFERED];
};

void near_start(struct near *n, const char *name);

/* The candidate stays where it is until the last call of near_push. */
void near_offer(struct near *n, const char *candidate);

/* Pushes " (did you mean 'a', 'b'?)", or "" where nothing is near. */
void near_push(lua_State *L, const struct near *n);

/* near(name, list of names) -> the same text, for Lua. */
int near_lua(lua_State *L);

#endif
