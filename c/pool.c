/* Buffers that the kernel chooses from. */
#include "pool.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "ring_parts.h"

struct pooled {
  struct block block;  /* first: the one is found from the other */
  struct pooled *next; /* spare; or of one completion */
  bool held;           /* by the kernel */
  unsigned used;       /* bytes of it that completions have had */
  unsigned filled;     /* bytes to be sent */
  uint16_t place;      /* where it was put among the entries */
};

static struct pooled *of_block(struct block *block)
{
  return (struct pooled *)(void *)block;
}

static uint16_t number_of(const struct pooled *b)
{
  return (uint16_t)(b - b->block.pool->buffers);
}

static size_t entries_size(const struct pool *p)
{
  return p->nentries * sizeof(struct io_uring_buf);
}

/*
** Opening
*/

/* One that no kernel takes: as if it did not take incremental pools. */
#define UNKNOWN_FLAG 0x8000u

static struct pool *numbered(const struct ring *r, uint16_t group)
{
  struct pool *p = r->pools;
  while (p != NULL && p->group != group)
    p = p->next;
  return p;
}

struct pool *pool_of_group(const struct ring *r, uint16_t group)
{
  struct pool *p = numbered(r, group);
  return p != NULL && p->open ? p : NULL;
}

static int register_entries(struct ring *r, struct pool *p)
{
  struct io_uring_buf_reg reg;
  uint16_t flags = p->incremental ? URING_PBUF_RING_INC : 0;
  int rc;
  memset(&reg, 0, sizeof reg);
  reg.ring_addr = (uintptr_t)p->entries;
  reg.ring_entries = p->nentries;
  reg.bgid = p->group;
  if (p->incremental && r->spoils_incremental)
    flags |= UNKNOWN_FLAG;
  memcpy((char *)&reg + URING_BUF_REG_FLAGS, &flags, sizeof flags);
  rc = io_uring_register_buf_ring(&r->io, &reg, 0);
  return rc > 0 ? 0 : rc;
}

/* An incremental pool of a kernel that has none (before 6.12) is a plain one.
 */
static int register_kind(struct ring *r, struct pool *p)
{
  int rc = register_entries(r, p);
  if (rc == -EINVAL && p->incremental) {
    p->incremental = false;
    r->lacks_incremental = true;
    rc = register_entries(r, p);
  }
  if (rc == 0 && p->incremental)
    r->has_incremental = true;
  return rc;
}

/* The groups of pools are numbered from above, those that the program names
** itself from below.  A closed pool keeps its number while operations name
** it, for the kernel looks it up each time. */
static int register_pool(struct ring *r, struct pool *p)
{
  int rc = -EEXIST;
  for (unsigned n = UINT16_MAX; n > 0 && rc == -EEXIST; n--) {
    p->group = (uint16_t)n;
    if (numbered(r, p->group) == NULL)
      rc = register_kind(r, p);
  }
  return rc;
}

static int map_entries(struct ring *r, struct pool *p)
{
  void *at = mmap(NULL, entries_size(p), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int rc;
  if (at == MAP_FAILED)
    return -errno;
  p->entries = at;
  rc = register_pool(r, p);
  if (rc < 0)
    munmap(p->entries, entries_size(p));
  return rc;
}

static void free_memory(struct pool *p)
{
  struct core *core = p->core;
  mem_free(core, p->memory, (size_t)p->count * p->size);
  mem_free(core, p->buffers, p->count * sizeof *p->buffers);
  mem_free(core, p, sizeof *p);
}

static struct pool *allocate(struct core *core, const struct pool_options *o)
{
  struct pool *p = mem_alloc(core, sizeof *p);
  if (p == NULL)
    return NULL;
  memset(p, 0, sizeof *p);
  p->core = core;
  p->count = o->buffers;
  p->size = o->size;
  p->incremental = o->incremental;
  p->outgoing = o->outgoing;
  for (p->nentries = 1; p->nentries < p->count;)
    p->nentries *= 2;
  p->buffers = mem_alloc(core, p->count * sizeof *p->buffers);
  p->memory = mem_alloc(core, (size_t)p->count * p->size);
  if (p->buffers == NULL || p->memory == NULL) {
    free_memory(p);
    return NULL;
  }
  if (!o->uncleared)
    memset(p->memory, 0, (size_t)p->count * p->size);
  return p;
}

/* Into the kernel's hands, behind those that it has. */
static void provide(struct pool *p, struct pooled *b)
{
  b->block.refs = 1;
  b->held = true;
  b->used = 0;
  b->place = p->entries->tail;
  p->provided++;
  io_uring_buf_ring_add(p->entries, b->block.data, b->filled, number_of(b),
                        io_uring_buf_ring_mask(p->nentries), 0);
  io_uring_buf_ring_advance(p->entries, 1);
}

static void make_spare(struct pool *p, struct pooled *b)
{
  b->next = p->spare;
  p->spare = b;
}

static void fill_entries(struct pool *p)
{
  io_uring_buf_ring_init(p->entries);
  memset(p->buffers, 0, p->count * sizeof *p->buffers);
  for (unsigned i = p->count; i-- > 0;) {
    struct pooled *b = &p->buffers[i];
    b->block.core = p->core;
    b->block.pool = p;
    b->block.size = p->size;
    b->block.data = p->memory + (size_t)i * p->size;
    b->filled = p->size;
    if (p->outgoing)
      make_spare(p, b);
    else
      provide(p, b);
  }
}

struct pool *pool_open(struct ring *r, const struct pool_options *o, int *err)
{
  struct pool *p = allocate(r->core, o);
  *err = -ENOMEM;
  if (p == NULL)
    return NULL;
  if (o->incremental && r->lacks_incremental)
    p->incremental = false;
  *err = map_entries(r, p);
  if (*err < 0) {
    free_memory(p);
    return NULL;
  }
  fill_entries(p);
  p->ring = r;
  p->open = true;
  p->next = r->pools;
  r->pools = p;
  return p;
}

/*
** Closing
*/

static void unlink_pool(struct pool *p)
{
  struct pool **at = &p->ring->pools;
  while (*at != p)
    at = &(*at)->next;
  *at = p->next;
}

/* Frees it once it is closed and neither the kernel nor the program has
** anything of it. */
static void free_if_unused(struct pool *p)
{
  if (p->open || p->users > 0 || p->out > 0 || p->object)
    return;
  if (p->ring != NULL)
    unlink_pool(p);
  munmap(p->entries, entries_size(p));
  free_memory(p);
}

/* The kernel takes no more of it: its references are gone. */
static void shut(struct pool *p)
{
  p->open = false;
  p->provided = 0;
  for (unsigned i = 0; i < p->count; i++) {
    struct pooled *b = &p->buffers[i];
    if (b->held && --b->block.refs > 0)
      p->out++; /* the program has parts of it */
    b->held = false;
  }
}

void pool_close(struct pool *p)
{
  if (!p->open)
    return;
  if (!ring_is_foreign(p->ring)) {
    io_uring_unregister_buf_ring(&p->ring->io, p->group);
    again_wake_all(p->ring, &p->starving); /* and to find no pool any more */
  }
  shut(p);
  free_if_unused(p);
}

void pool_dispose(struct pool *p)
{
  p->object = false;
  if (p->open)
    pool_close(p); /* frees it, too */
  else
    free_if_unused(p);
}

void pools_release(struct ring *r)
{
  while (r->pools != NULL) {
    struct pool *p = r->pools;
    r->pools = p->next;
    p->ring = NULL;
    if (p->open)
      shut(p);
    free_if_unused(p);
  }
}

void pool_join(struct pool *p)
{
  p->users++;
}

void pool_leave(struct pool *p)
{
  p->users--;
  free_if_unused(p);
}

/*
** Buffers on their way
*/

void pool_take_back(struct block *block)
{
  struct pool *p = block->pool;
  p->out--;
  if (!p->open) {
    free_if_unused(p);
  } else if (p->outgoing) {
    make_spare(p, of_block(block));
  } else {
    provide(p, of_block(block));
    again_wake_for_buffer(p);
  }
}

bool pool_fill(struct pool *p, const void *bytes, size_t size)
{
  struct pooled *b = p->spare;
  if (b == NULL)
    return false;
  p->spare = b->next;
  memcpy(b->block.data, bytes, size);
  b->filled = (unsigned)size;
  provide(p, b);
  again_wake_for_buffer(p);
  return true;
}

/* The kernel is done with it: its reference is the completion's.  Of a pool
** that was closed meanwhile there is none. */
static void taken(struct pool *p, struct pooled *b)
{
  if (b->held) {
    b->held = false;
    p->provided--;
    p->out++;
  } else if (b->block.refs++ == 0) {
    p->out++;
  }
}

/* The buffer that the kernel took after this one. */
static struct pooled *after(const struct pool *p, const struct pooled *b)
{
  unsigned mask = p->nentries - 1;
  return &p->buffers[p->entries->bufs[(b->place + 1u) & mask].bid];
}

/* Whole buffers, one after the other as they were provided; the last may have
** room left, which is lost. */
static void claim_whole(struct pool *p, struct pooled *b, size_t left)
{
  const struct pooled *first = b;
  for (;;) {
    struct pooled *next = after(p, b);
    taken(p, b);
    b->next = NULL;
    if (left <= b->filled || next == first)
      break;
    left -= b->filled;
    b->next = next;
    b = next;
  }
}

/* The next bytes of a buffer that stays where it is until it is full.  The
** kernel goes on when it has no byte left, whatever the CQE's flags say. */
static void claim_part(struct pool *p, struct pooled *b, struct data *data)
{
  data->offset = b->used;
  b->used += data->size;
  if (b->used >= p->size || !b->held)
    taken(p, b);
  else
    b->block.refs++;
}

void data_drop(struct data *data)
{
  struct block *block = data->block;
  data->block = NULL;
  while (block != NULL) {
    struct pooled *next = of_block(block)->next;
    block_unref(block);
    block = next != NULL ? &next->block : NULL;
  }
}

/* With MSG_TRUNC the result is the length of the message, which may be more
** than there was room for. */
static uint32_t received(const struct pooled *b, int32_t res, bool bundle)
{
  uint32_t size = res > 0 ? (uint32_t)res : 0;
  return size > b->filled && !bundle ? b->filled : size;
}

void pool_claim(struct pool *p, const struct event *e, int32_t res,
                uint32_t cqe_flags, struct data *data)
{
  unsigned n = cqe_flags >> IORING_CQE_BUFFER_SHIFT;
  struct pooled *b;
  memset(data, 0, sizeof *data);
  if (n >= p->count)
    return;
  b = &p->buffers[n];
  data->size = received(b, res, (e->flags & EVENT_BUNDLE) != 0);
  if (p->incremental && data->size == 0)
    return;
  data->block = &b->block;
  if (p->incremental)
    claim_part(p, b, data);
  else
    claim_whole(p, b, data->size);
  if (p->outgoing)
    data_drop(data); /* they are sent */
}

/*
** Data
*/

/* The header of a message; all 0 where there is no room for one.  Buffers of
** an odd size begin anywhere. */
static struct io_uring_recvmsg_out header(const struct data *data)
{
  struct io_uring_recvmsg_out h;
  memset(&h, 0, sizeof h);
  if (data->block != NULL && data->size >= sizeof h)
    memcpy(&h, data->block->data + data->offset, sizeof h);
  return h;
}

bool pool_message_is_end(const struct data *data)
{
  struct io_uring_recvmsg_out h = header(data);
  return h.payloadlen == 0 && h.namelen == 0;
}

static unsigned smaller(size_t a, size_t b)
{
  return (unsigned)(a < b ? a : b);
}

void pool_message(const struct data *data, unsigned control_room,
                  struct pool_message *m)
{
  const struct io_uring_recvmsg_out h = header(data);
  const char *name = (const char *)data->block->data + data->offset + sizeof h;
  size_t offset = sizeof h + sizeof m->name + control_room;
  memset(m, 0, sizeof *m);
  m->flags = h.flags;
  m->offset = smaller(offset, data->size);
  m->size = data->size - m->offset;
  if (data->size < offset)
    return;
  m->name_size = smaller(h.namelen, sizeof m->name);
  memcpy(&m->name, name, m->name_size);
  m->control_size = smaller(h.controllen, control_room);
  m->control = name + sizeof m->name;
}

/* A Buffer over `size` bytes of the block from `offset` on, which takes the
** place of the closed one at a stack index. */
static void fill_buffer(lua_State *L, int index, struct block *block,
                        size_t offset, size_t size)
{
  struct buffer *b = lua_touserdata(L, index);
  b->block = block;
  b->offset = offset;
  b->size = size;
}

/* The Buffer that the handle at index 1 uses again; its first result makes
** it. */
static void push_reused(lua_State *L)
{
  struct operation *op = lua_touserdata(L, 1);
  if (op->reused != NULL) {
    lua_getiuservalue(L, 1, HANDLE_BUFFER);
    return;
  }
  buffer_push_closed(L);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, 1, HANDLE_BUFFER);
  op->reused = lua_touserdata(L, -1);
}

static void push_buffer(lua_State *L, struct data *data, size_t skip,
                        size_t size)
{
  if (data->shape == DATA_REUSED)
    push_reused(L);
  else
    buffer_push_closed(L);
  buffer_release(lua_touserdata(L, -1));
  fill_buffer(L, -1, data->block, data->offset + skip, size);
  data->block = NULL;
}

/* All that can raise first, so that nothing is moved by half. */
static void push_table(lua_State *L, struct data *data)
{
  struct pooled *b = of_block(data->block);
  size_t left = data->size;
  int n = 0;
  for (struct pooled *at = b; at != NULL; at = at->next)
    n++;
  lua_createtable(L, n, 0);
  for (int i = 1; i <= n; i++) {
    buffer_push_closed(L);
    lua_rawseti(L, -2, i);
  }
  for (int i = 1; i <= n; i++) {
    size_t size = left < b->filled ? left : b->filled;
    lua_rawgeti(L, -1, i);
    fill_buffer(L, -1, &b->block, 0, size);
    lua_pop(L, 1);
    left -= size;
    b = b->next;
  }
  data->block = NULL;
}

static void push_string(lua_State *L, struct data *data, size_t skip,
                        size_t size)
{
  struct pooled *b = of_block(data->block);
  luaL_Buffer text;
  char *to;
  if (b->next == NULL) {
    lua_pushlstring(L, (char *)b->block.data + data->offset + skip, size);
  } else {
    to = luaL_buffinitsize(L, &text, size);
    for (size_t left = size; b != NULL; b = b->next) {
      size_t n = left < b->filled ? left : b->filled;
      memcpy(to, b->block.data, n);
      to += n;
      left -= n;
    }
    luaL_pushresultsize(&text, size);
  }
  data_drop(data);
}

void data_push(lua_State *L, struct data *data, size_t skip, size_t size)
{
  if (data->shape == DATA_STRING)
    push_string(L, data, skip, size);
  else if (data->shape == DATA_TABLE)
    push_table(L, data);
  else
    push_buffer(L, data, skip, size);
}
