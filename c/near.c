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
  memset(n, 0, sizeof *n);
  n->name = name;
}

void near_offer(struct near *n, const char *candidate)
{
  size_t len = strlen(n->name);
  unsigned d = distance(n->name, candidate);
  unsigned at = 0;
  bool part = len >= 3 && strstr(candidate, n->name) != NULL;
  if (!part && d > 1 + len / 3)
    return;
  while (at < 3 && n->best[at] != NULL && n->distance[at] <= d)
    at++;
  if (at == 3)
    return;
  for (unsigned i = 2; i > at; i--) {
    n->best[i] = n->best[i - 1];
    n->distance[i] = n->distance[i - 1];
  }
  n->best[at] = candidate;
  n->distance[at] = d;
}

void near_push(lua_State *L, const struct near *n)
{
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (unsigned i = 0; i < 3 && n->best[i] != NULL; i++) {
    luaL_addstring(&b, i == 0 ? " (did you mean '" : ", '");
    luaL_addstring(&b, n->best[i]);
    luaL_addchar(&b, '\'');
  }
  if (n->best[0] != NULL)
    luaL_addstring(&b, "?)");
  luaL_pushresult(&b);
}

int near_lua(lua_State *L)
{
  struct near n;
  near_start(&n, luaL_checkstring(L, 1));
  luaL_checktype(L, 2, LUA_TTABLE);
  for (lua_Integer i = 1; lua_rawgeti(L, 2, i) == LUA_TSTRING; i++)
    near_offer(&n, lua_tostring(L, -1)); /* the table keeps the string */
  near_push(L, &n);
  return 1;
}
