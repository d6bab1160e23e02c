/* Near names, by edit distance (insert, delete, change, swap neighbours). */
#include "near.h"

#include <string.h>

#define LONGEST 31u

static unsigned least(unsigned a, unsigned b)
{
  return a < b ? a : b;
}

static unsigned distance(const char *a, const char *b)
{
  unsigned d[LONGEST + 1][LONGEST + 1];
  unsigned m = (unsigned)strlen(a), n = (unsigned)strlen(b);
  if (m > LONGEST || n > LONGEST)
    return LONGEST;
  for (unsigned i = 0; i <= m; i++)
    d[i][0] = i;
  for (unsigned j = 0; j <= n; j++)
    d[0][j] = j;
  for (unsigned i = 1; i <= m; i++)
    for (unsigned j = 1; j <= n; j++) {
      unsigned change = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      d[i][j] = least(change, 1 + least(d[i - 1][j], d[i][j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[m][n];
}

void near_start(struct near *n, const char *name)
{
  n->name = name;
  n->count = 0;
}

/* The three nearest, the nearest first. */
struct best {
  const char *names[3];
  unsigned distances[3];
};

static void consider(struct best *b, const char *name, const char *candidate)
{
  size_t len = strlen(name);
  unsigned d = distance(name, candidate);
  unsigned at = 0;
  bool part = len >= 3 && strstr(candidate, name) != NULL;
  if (!part && d > 1 + len / 3)
    return;
  while (at < 3 && b->names[at] != NULL && b->distances[at] <= d)
    at++;
  if (at == 3)
    return;
  for (unsigned i = 2; i > at; i--) {
    b->names[i] = b->names[i - 1];
    b->distances[i] = b->distances[i - 1];
  }
  b->names[at] = candidate;
  b->distances[at] = d;
}

static struct best find_best(const struct near *n)
{
  struct best b = {{NULL}, {0}};
  for (unsigned i = 0; i < n->count; i++)
    consider(&b, n->name, n->offered[i]);
  return b;
}

void near_offer(struct near *n, const char *candidate)
{
  if (n->count == NEAR_OFFERED) { /* only the best of them matter */
    struct best b = find_best(n);
    for (n->count = 0; n->count < 3 && b.names[n->count] != NULL; n->count++)
      n->offered[n->count] = b.names[n->count];
  }
  n->offered[n->count++] = candidate;
}

void near_push(lua_State *L, const struct near *n)
{
  struct best b = find_best(n);
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  for (unsigned i = 0; i < 3 && b.names[i] != NULL; i++) {
    luaL_addstring(&buffer, i == 0 ? " (did you mean '" : ", '");
    luaL_addstring(&buffer, b.names[i]);
    luaL_addchar(&buffer, '\'');
  }
  if (b.names[0] != NULL)
    luaL_addstring(&buffer, "?)");
  luaL_pushresult(&buffer);
}

int near_lua(lua_State *L)
{
  struct near n;
  near_start(&n, luaL_checkstring(L, 1));
  luaL_checktype(L, 2, LUA_TTABLE);
  for (lua_Integer i = 1; lua_rawgeti(L, 2, i) == LUA_TSTRING; i++) {
    near_offer(&n, lua_tostring(L, -1)); /* the table keeps the string */
    lua_pop(L, 1);
  }
  near_push(L, &n);
  return 1;
}
