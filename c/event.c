/* The event table.  Slots live in chunks that never move, since the kernel
** and the loans point into them; a free slot keeps its generation.
*/
#include "event.h"

#include <string.h>

#include "op.h"
#include "pool.h"
#include "ring.h"

const char *event_name(const struct event *e)
{
  return e->row->name;
}

/*
** Lua values kept for strings that are lent.  They stand on the stacks of Lua
** threads that never run, one a chunk and a place a slot.  Such a place is
** reached without looking anything up, and is there since the slot is, so
** keeping a value neither allocates nor raises.  A table keeps the threads.
*/

void event_table_open(lua_State *L, struct event_table *t)
{
  lua_newtable(L);
  t->anchors = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* The thread of the chunk to come, NULL: there is none.  Making it may run
** finalisers, and those may use the ring, or close it. */
static lua_State *new_anchors(lua_State *L, struct ring *ring)
{
  struct event_table *t = &ring->events;
  lua_State *anchors = lua_newthread(L);
  if (ring->state != RING_OPEN || !lua_checkstack(anchors, EVENT_CHUNK + 1)) {
    lua_pop(L, 1);
    return NULL;
  }
  lua_settop(anchors, EVENT_CHUNK);
  lua_rawgeti(L, LUA_REGISTRYINDEX, t->anchors);
  lua_insert(L, -2);
  lua_rawseti(L, -2, (lua_Integer)t->nchunks + 1);
  lua_pop(L, 1);
  return anchors;
}

static lua_State *anchors_of(const struct event *e)
{
  return event_chunk_of(e)->anchors;
}

static int anchor_place(const struct event *e)
{
  return (int)(e->slot % EVENT_CHUNK) + 1;
}

void event_anchor(lua_State *L, struct event *e)
{
  lua_xmove(L, anchors_of(e), 1);
  lua_replace(anchors_of(e), anchor_place(e));
  e->flags |= EVENT_ANCHORED;
}

static void release_anchor(struct event *e)
{
  lua_pushnil(anchors_of(e));
  lua_replace(anchors_of(e), anchor_place(e));
  e->flags &= ~EVENT_ANCHORED;
}

/*
** Slots
*/

static bool grow(lua_State *L, struct ring *ring)
{
  struct core *core = ring->core;
  struct event_table *t = &ring->events;
  struct event_chunk **chunks, *chunk;
  lua_State *anchors = new_anchors(L, ring); /* or raises */
  if (anchors == NULL)
    return false;
  chunks = mem_realloc(core, t->chunks, t->nchunks * sizeof *chunks,
                       (t->nchunks + 1) * sizeof *chunks);
  if (chunks == NULL)
    return false;
  t->chunks = chunks;
  chunk = mem_alloc(core, sizeof *chunk);
  if (chunk == NULL) { /* the array must be as long as nchunks says */
    t->chunks = mem_realloc(core, chunks, (t->nchunks + 1) * sizeof *chunks,
                            t->nchunks * sizeof *chunks);
    return false;
  }
  memset(chunk, 0, sizeof *chunk);
  chunk->anchors = anchors;
  for (unsigned i = EVENT_CHUNK; i-- > 0;) {
    struct event *e = &chunk->events[i];
    e->slot = t->nchunks * EVENT_CHUNK + i;
    e->next = t->free;
    t->free = e;
  }
  t->chunks[t->nchunks++] = chunk;
  return true;
}

struct event *event_new(lua_State *L, struct ring *ring)
{
  struct event_table *t = &ring->events;
  struct event *e = t->free;
  if (e == NULL) {
    if (!grow(L, ring))
      return NULL;
    e = t->free;
  }
  t->free = e->next;
  t->used++;
  e->flags = EVENT_USED;
  e->task = NULL;
  e->op = NULL;
  return e;
}

bool event_reserve_more(struct core *core, struct event *e)
{
  struct event_chunk *chunk = event_chunk_of(e);
  const size_t size = EVENT_CHUNK * sizeof *chunk->more;
  if (chunk->more != NULL)
    return true;
  chunk->more = mem_alloc(core, size);
  if (chunk->more == NULL)
    return false;
  memset(chunk->more, 0, size);
  for (unsigned i = 0; i < EVENT_CHUNK; i++)
    chunk->more[i].event = &chunk->events[i];
  return true;
}

static struct io_uring_sqe *take_spare(struct event_table *t)
{
  struct io_uring_sqe *sqe = t->spare;
  t->spare = (struct io_uring_sqe *)(uintptr_t)sqe->user_data;
  return sqe;
}

bool event_reserve_again(struct ring *ring, struct event *e)
{
  struct event_table *t = &ring->events;
  e->again.sqe = t->spare != NULL
                     ? take_spare(t)
                     : mem_alloc(ring->core, sizeof *e->again.sqe);
  e->again.pool = NULL;
  if (e->again.sqe != NULL)
    e->flags |= EVENT_AGAIN;
  return e->again.sqe != NULL;
}

static void spare(struct event_table *t, struct io_uring_sqe *sqe)
{
  sqe->user_data = (uintptr_t)t->spare;
  t->spare = sqe;
}

void event_list_add(struct event_list *list, struct event *e)
{
  e->next = NULL;
  e->prev = list->tail;
  if (list->tail != NULL)
    list->tail->next = e;
  else
    list->head = e;
  list->tail = e;
}

void event_list_remove(struct event_list *list, struct event *e)
{
  if (e->prev != NULL)
    e->prev->next = e->next;
  else
    list->head = e->next;
  if (e->next != NULL)
    e->next->prev = e->prev;
  else
    list->tail = e->prev;
}

void event_give_back(struct ring *ring, struct event *e)
{
  if (!(e->flags & EVENT_LENDS))
    return;
  e->flags &= ~EVENT_LENDS;
  if (!(e->flags & EVENT_SHARES_LOAN) && e->loan.block != NULL) {
    ring->stats.bytes_lent -= e->loan.size;
    loan_close(&e->loan);
  }
  if (e->flags & EVENT_ANCHORED) {
    ring->stats.bytes_lent -= e->string_bytes;
    release_anchor(e);
  }
  if (e->aux != NULL)
    for (unsigned i = 0; i < e->aux->nvec; i++)
      if (e->aux->loans[i].block != NULL) {
        ring->stats.bytes_lent -= e->aux->loans[i].size;
        loan_close(&e->aux->loans[i]);
      }
}

void event_free(struct ring *ring, struct event *e)
{
  if (e->aux != NULL)
    aux_free(ring->core, e->aux);
  if (e->flags & EVENT_SELECTS && e->again.pool != NULL)
    pool_leave(e->again.pool);
  if (e->flags & EVENT_AGAIN)
    spare(&ring->events, e->again.sqe);
  if (e->flags & EVENT_SHARES_LOAN)
    e->loan.block = NULL;
  if (ring->timed > 0)
    ring_unlimit(ring, e);
  e->aux = NULL;
  e->flags = 0;
  e->generation++;
  e->next = ring->events.free;
  ring->events.free = e;
  ring->events.used--;
}

void event_each(struct event_table *t,
                void (*visit)(struct event *e, void *arg), void *arg)
{
  for (unsigned c = 0; c < t->nchunks; c++)
    for (unsigned i = 0; i < EVENT_CHUNK; i++)
      if (t->chunks[c]->events[i].flags)
        visit(&t->chunks[c]->events[i], arg);
}

void event_table_close(lua_State *L, struct core *core, struct event_table *t)
{
  for (unsigned c = 0; c < t->nchunks; c++) {
    struct event_chunk *chunk = t->chunks[c];
    mem_free(core, chunk->more, EVENT_CHUNK * sizeof *chunk->more);
    mem_free(core, chunk, sizeof *chunk);
  }
  while (t->spare != NULL)
    mem_free(core, take_spare(t), sizeof *t->spare);
  mem_free(core, t->chunks, t->nchunks * sizeof *t->chunks);
  t->chunks = NULL;
  t->free = NULL;
  t->nchunks = t->used = 0;
  luaL_unref(L, LUA_REGISTRYINDEX, t->anchors);
  t->anchors = LUA_NOREF;
}

/*
** Aux
*/

struct aux *aux_new(struct core *core, unsigned nvec)
{
  size_t footprint =
      sizeof(struct aux) +
      (size_t)nvec * (sizeof(struct iovec) + sizeof(struct loan));
  struct aux *aux = mem_alloc(core, footprint);
  if (aux == NULL)
    return NULL;
  memset(aux, 0, footprint);
  aux->footprint = footprint;
  aux->nvec = nvec;
  aux->loans = (struct loan *)(aux + 1);
  aux->iov = (struct iovec *)(aux->loans + nvec);
  return aux;
}

void aux_free(struct core *core, struct aux *aux)
{
  if (aux != NULL)
    mem_free(core, aux, aux->footprint);
}
