/* Buffers that were handed over by number. */
#include "provided.h"

#include <string.h>

struct provision {
  struct provision *next; /* of the ring */
  struct core *core;
  struct event owner; /* whom messages about lent memory name */
  uint16_t group;
  unsigned first, count; /* numbers */
  unsigned removed;      /* of its group, by remove_buffers */
  struct loan loans[];   /* one each; closed: it has come back */
};

static size_t footprint(unsigned count)
{
  return sizeof(struct provision) + count * sizeof(struct loan);
}

struct provision *provision_new(struct core *core, const struct request *q)
{
  unsigned count = (unsigned)q->sqe.fd;
  struct provision *p = mem_alloc(core, footprint(count));
  if (p == NULL)
    return NULL;
  memset(p, 0, footprint(count));
  p->core = core;
  p->owner.row = q->row;
  p->owner.fd = -1;
  p->group = q->sqe.buf_group;
  p->first = (unsigned)q->sqe.off;
  p->count = count;
  return p;
}

void provision_free(struct provision *p)
{
  if (p != NULL)
    mem_free(p->core, p, footprint(p->count));
}

/* The loan of the operation becomes one of each buffer.  The block is held
** by the operation's until all are there. */
static void adopt(struct ring *r, struct provision *p,
                  const struct loan *whole)
{
  size_t size = p->count ? whole->size / p->count : 0;
  for (unsigned i = 0; i < p->count; i++)
    loan_open(&p->loans[i], whole->block, whole->offset + i * size, size, true,
              &p->owner);
  r->stats.bytes_lent += size * p->count;
  p->next = r->provisions;
  r->provisions = p;
}

static void give_back(struct ring *r, struct loan *loan)
{
  if (loan->block == NULL)
    return;
  r->stats.bytes_lent -= loan->size;
  loan_close(loan);
}

static bool has_any(const struct provision *p)
{
  for (unsigned i = 0; i < p->count; i++)
    if (p->loans[i].block != NULL)
      return true;
  return false;
}

static void give_all_back(struct ring *r, struct provision *p)
{
  for (unsigned i = 0; i < p->count; i++)
    give_back(r, &p->loans[i]);
}

static struct provision *of_group(struct ring *r, uint16_t group)
{
  struct provision *p = r->provisions;
  while (p != NULL && p->group != group)
    p = p->next;
  return p;
}

/* Frees those that nothing is lent of any more.  What is known of a group
** stays with the next of it. */
static void sweep(struct ring *r)
{
  struct provision **at = &r->provisions;
  while (*at != NULL) {
    struct provision *p = *at, *heir;
    if (has_any(p)) {
      at = &p->next;
      continue;
    }
    *at = p->next;
    heir = of_group(r, p->group);
    if (heir != NULL)
      heir->removed += p->removed;
    provision_free(p);
  }
}

/* Buffers of the group that have not come back, and how many of them the
** kernel has no longer. */
static void count(const struct ring *r, uint16_t group, unsigned *lent,
                  unsigned *removed)
{
  *lent = *removed = 0;
  for (const struct provision *p = r->provisions; p != NULL; p = p->next) {
    if (p->group != group)
      continue;
    *removed += p->removed;
    for (unsigned i = 0; i < p->count; i++)
      *lent += p->loans[i].block != NULL;
  }
}

/* Which of a group have been removed the kernel does not say.  So they come
** back together, when it has none left. */
static void give_removed_back(struct ring *r, uint16_t group)
{
  unsigned lent, removed;
  count(r, group, &lent, &removed);
  if (removed < lent)
    return;
  for (struct provision *p = r->provisions; p != NULL; p = p->next)
    if (p->group == group)
      give_all_back(r, p);
  sweep(r);
}

void provided_settle(struct ring *r, struct event *e, int32_t res)
{
  union extra *extra = aux_extra(e->aux);
  struct provision *p;
  if (e->row->result == RESULT_PROVIDED) {
    if (res >= 0 && e->loan.block != NULL)
      adopt(r, extra->provided.of, &e->loan);
    else
      provision_free(extra->provided.of);
    extra->provided.of = NULL;
  } else if (res > 0) {
    p = of_group(r, extra->provided.group);
    if (p != NULL)
      p->removed += (unsigned)res;
    give_removed_back(r, extra->provided.group);
  }
}

void provided_claim(struct ring *r, uint16_t group, unsigned number)
{
  struct provision *p = r->provisions;
  /* the newest first: an older one of this number has been used up */
  for (; p != NULL; p = p->next)
    if (p->group == group && number >= p->first &&
        number - p->first < p->count &&
        p->loans[number - p->first].block != NULL)
      break;
  if (p == NULL)
    return;
  give_back(r, &p->loans[number - p->first]);
  give_removed_back(r, group);
  sweep(r);
}

void provided_release(struct ring *r)
{
  while (r->provisions != NULL) {
    struct provision *p = r->provisions;
    r->provisions = p->next;
    give_all_back(r, p);
    provision_free(p);
  }
}
