/* One SQE, many results. */
#include "multishot.h"

#include <stddef.h>
#include <string.h>

#define AT(f)                                                                 \
  .where = (uint8_t)offsetof(struct io_uring_sqe, f),                         \
  .width = sizeof(((struct io_uring_sqe *)0)->f)

static const struct multishot {
  const char *name;
  uint8_t opcode, where, width;
  uint32_t flag;
} kinds[] = {
    {.name = "accept_multishot",
     .opcode = IORING_OP_ACCEPT,
     .flag = IORING_ACCEPT_MULTISHOT,
     AT(ioprio)},
    {.name = "poll_multishot",
     .opcode = IORING_OP_POLL_ADD,
     .flag = IORING_POLL_ADD_MULTI,
     AT(len)},
    {.name = "recv_multishot",
     .opcode = IORING_OP_RECV,
     .flag = IORING_RECV_MULTISHOT,
     AT(ioprio)},
    {.name = "recvmsg_multishot",
     .opcode = IORING_OP_RECVMSG,
     .flag = IORING_RECV_MULTISHOT,
     AT(ioprio)},
    {.name = "recv_zc",
     .opcode = URING_OP_RECV_ZC,
     .flag = IORING_RECV_MULTISHOT,
     AT(ioprio)},
    {.name = "timeout_multishot",
     .opcode = IORING_OP_TIMEOUT,
     .flag = URING_TIMEOUT_MULTISHOT,
     AT(timeout_flags)},
};

#define NKINDS (sizeof kinds / sizeof *kinds)

/* A flag that no kernel knows, of a field of this width. */
static uint32_t unknown_flag(const struct multishot *m)
{
  return m->width == 2 ? 0x8000u : 0x80000000u;
}

static const struct multishot *find(uint8_t opcode)
{
  for (size_t i = 0; i < NKINDS; i++)
    if (kinds[i].opcode == opcode)
      return &kinds[i];
  return NULL;
}

static void change(struct io_uring_sqe *sqe, const struct multishot *m,
                   uint32_t set, uint32_t cleared)
{
  unsigned char *field = (unsigned char *)sqe + m->where;
  uint16_t u16;
  uint32_t u32;
  if (m->width == 2) {
    memcpy(&u16, field, 2);
    u16 = (uint16_t)((u16 & ~cleared) | set);
    memcpy(field, &u16, 2);
  } else {
    memcpy(&u32, field, 4);
    u32 = (u32 & ~cleared) | set;
    memcpy(field, &u32, 4);
  }
}

void multishot_ask(struct io_uring_sqe *sqe)
{
  const struct multishot *m = find(sqe->opcode);
  if (m != NULL) /* read_multishot has an opcode of its own */
    change(sqe, m, m->flag, 0);
}

bool multishot_can_be_single(const struct io_uring_sqe *sqe)
{
  if (sqe->opcode == URING_OP_READ_MULTISHOT)
    return true;
  return sqe->opcode != IORING_OP_RECVMSG && sqe->opcode != URING_OP_RECV_ZC &&
         find(sqe->opcode) != NULL;
}

void multishot_make_single(struct io_uring_sqe *sqe)
{
  const struct multishot *m = find(sqe->opcode);
  if (m == NULL)
    sqe->opcode = IORING_OP_READ;
  else
    change(sqe, m, 0, m->flag | unknown_flag(m));
  if (sqe->opcode == IORING_OP_TIMEOUT)
    sqe->off = 0; /* of a single one it is a number of completions */
}

void multishot_spoil(struct io_uring_sqe *sqe)
{
  const struct multishot *m = find(sqe->opcode);
  if (m != NULL)
    change(sqe, m, unknown_flag(m), 0);
}

bool multishot_without(struct ring_options *o, const char *name)
{
  if (strcmp(name, "bundle") == 0)
    return o->without_bundles = true;
  if (strcmp(name, "incremental_pool") == 0)
    return o->without_incremental = true;
  for (size_t i = 0; i < NKINDS; i++)
    if (kinds[i].opcode != URING_OP_RECV_ZC &&
        strcmp(name, kinds[i].name) == 0) {
      o->without_multishot |= multishot_bit(kinds[i].opcode);
      return true;
    }
  return false;
}

static void set_known(lua_State *L, const char *name, bool yes, bool no)
{
  if (yes || no)
    lua_pushboolean(L, yes);
  else
    lua_pushliteral(L, "untried");
  lua_setfield(L, -2, name);
}

void multishot_push(lua_State *L, const struct ring *r)
{
  lua_createtable(L, 0, NKINDS + 2);
  for (size_t i = 0; i < NKINDS; i++) {
    uint64_t bit = multishot_bit(kinds[i].opcode);
    set_known(L, kinds[i].name, (r->multishot_proven & bit) != 0,
              (r->multishot_lacking & bit) != 0);
  }
  set_known(L, "bundle", !r->lacks_bundles, r->lacks_bundles);
  set_known(L, "incremental_pool", r->has_incremental, r->lacks_incremental);
}
