/* Results that wait for their reader. */
#include "results.h"

#include <string.h>

#define RESULTS_FIRST 4u

bool results_open(struct core *core, struct results *rs)
{
  memset(rs, 0, sizeof *rs);
  rs->at = mem_alloc(core, RESULTS_FIRST * sizeof *rs->at);
  if (rs->at == NULL)
    return false;
  rs->size = RESULTS_FIRST;
  return true;
}

static bool grow(struct core *core, struct results *rs)
{
  struct result *at = mem_alloc(core, rs->size * 2 * sizeof *at);
  if (at == NULL)
    return false;
  for (unsigned i = 0; i < rs->count; i++)
    at[i] = rs->at[(rs->head + i) & (rs->size - 1)];
  mem_free(core, rs->at, rs->size * sizeof *at);
  rs->at = at;
  rs->size *= 2;
  rs->head = 0;
  return true;
}

bool results_push(struct core *core, struct results *rs,
                  const struct result *one)
{
  if (rs->count == rs->size && !grow(core, rs))
    return false;
  rs->at[(rs->head + rs->count++) & (rs->size - 1)] = *one;
  return true;
}

void results_pop(struct results *rs)
{
  rs->head = (rs->head + 1) & (rs->size - 1);
  rs->count--;
}

void results_close(struct core *core, struct results *rs)
{
  mem_free(core, rs->at, rs->size * sizeof *rs->at);
  memset(rs, 0, sizeof *rs);
}
