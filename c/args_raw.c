/* Raw: any SQE by its fields. */
#include "reader.h"

#include "near.h"

#define FIELD(f)                                                              \
  (uint8_t) offsetof(struct io_uring_sqe, f),                                 \
      sizeof(((struct io_uring_sqe *)0)->f)

static const struct raw_field {
  const char *name;
  uint8_t where, width;
} raw_fields[] = {
    {"fd", FIELD(fd)},
    {"len", FIELD(len)},
    {"flags", 1, 1}, /* sqe->flags; by number: it is a bit-field's width */
    {"ioprio", FIELD(ioprio)},
    {"rw_flags", FIELD(rw_flags)},
    {"buf_index", FIELD(buf_index)},
    {"personality", FIELD(personality)},
    {"file_index", FIELD(splice_fd_in)},
};

static const char *const raw_pointers[] = {"addr", "addr2", "addr3"};
static const char *const raw_others[] = {"opcode", "off", "keep", "multishot"};

static bool raw_knows(lua_State *L, struct near *near)
{
  bool found = false;
  for (size_t i = 0; i < COUNT(raw_fields); i++) {
    near_offer(near, raw_fields[i].name);
    found |= args_is_name(L, -2, raw_fields[i].name);
  }
  for (size_t i = 0; i < COUNT(raw_pointers); i++) {
    near_offer(near, raw_pointers[i]);
    found |= args_is_name(L, -2, raw_pointers[i]);
  }
  for (size_t i = 0; i < COUNT(raw_others); i++) {
    near_offer(near, raw_others[i]);
    found |= args_is_name(L, -2, raw_others[i]);
  }
  return found;
}

static void check_raw_names(struct reader *in, int table)
{
  lua_State *L = in->L;
  struct near near;
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    const char *name =
        lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    near_start(&near, name);
    if (lua_type(L, -2) == LUA_TSTRING && raw_knows(L, &near))
      continue;
    near_push(L, &near);
    luaL_error(L, "unknown field '%s' of raw%s", name, lua_tostring(L, -1));
  }
}

static void read_raw_field(struct reader *in, int table,
                           const struct raw_field *f)
{
  struct arg a = {.name = f->name, .where = f->where, .width = f->width};
  lua_Integer max = f->width == 1   ? UINT8_MAX
                    : f->width == 2 ? UINT16_MAX
                                    : UINT32_MAX;
  struct reader one = *in;
  lua_Integer n;
  if (lua_getfield(in->L, table, f->name) != LUA_TNIL) {
    one.last = lua_gettop(in->L);
    n = args_integer(&one, &a, one.last, INT32_MIN, max);
    if (f->width == 1)
      in->q->sqe.flags = (uint8_t)n;
    else
      args_set_field(in->q, &a, n);
  }
  lua_pop(in->L, 1);
}

/* Which of addr, addr2 and addr3 an argument is; 0: none. */
static unsigned pointer_number(const struct arg *a)
{
  switch (a->where) {
  case offsetof(struct io_uring_sqe, addr):
    return 1;
  case offsetof(struct io_uring_sqe, addr2):
    return 2;
  case offsetof(struct io_uring_sqe, addr3):
    return 3;
  default:
    return 0;
  }
}

/* Does the opcode only read what this pointer names?  Only then may it name a
** Lua string. */
static bool only_reads(uint8_t opcode, unsigned number)
{
  const struct row *row = op_of_opcode(opcode);
  if (row == NULL)
    return false;
  for (const struct arg *a = row->args; a->kind != ARG_END; a++)
    if (pointer_number(a) == number &&
        (a->kind == ARG_DATA || a->kind == ARG_VALUE || a->kind == ARG_PATH ||
         a->kind == ARG_NAME))
      return true;
  return false;
}

static size_t data_length(lua_State *L, const struct core *core, int index)
{
  const struct buffer *b = buffer_test(L, core, index);
  return b != NULL ? b->size : lua_rawlen(L, index);
}

/* addr, addr2 or addr3: a Buffer or a string to lend, or a plain number.
** Members of the vector are kept in this order; `false` holds a place. */
static void read_raw_pointer(struct reader *in, int table, unsigned n,
                             uint64_t *field)
{
  lua_State *L = in->L;
  struct request *q = in->q;
  struct arg a = {.name = raw_pointers[n]};
  struct reader one = *in;
  int type = lua_getfield(L, table, a.name);
  one.last = lua_gettop(L);
  if (type == LUA_TNUMBER)
    *field = (uint64_t)args_integer(&one, &a, one.last, LUA_MININTEGER,
                                    LUA_MAXINTEGER);
  if (type == LUA_TNUMBER || type == LUA_TNIL) {
    lua_pop(L, 1);
    lua_pushboolean(L, 0);
    lua_rawseti(L, q->vector, n + 1);
    return;
  }
  if (type == LUA_TSTRING && !only_reads(q->sqe.opcode, n + 1))
    args_bad(in, &a, "the kernel may write there: give it a Buffer");
  if (n == 0 && lua_getfield(L, table, "len") == LUA_TNIL)
    q->sqe.len = (uint32_t)data_length(L, q->core, one.last);
  lua_settop(L, one.last);
  args_take_member(&one, &a, true, n + 1);
}

/* What `keep` names is held until the end, whatever happens to the table. */
static void read_raw_keep(struct reader *in, int table)
{
  lua_State *L = in->L;
  struct request *q = in->q;
  if (lua_getfield(L, table, "keep") == LUA_TNIL) {
    lua_pop(L, 1);
    return;
  }
  if (lua_istable(L, -1)) {
    lua_Integer count = (lua_Integer)lua_rawlen(L, -1);
    for (lua_Integer i = 1; i <= count; i++) {
      lua_rawgeti(L, -1, i);
      lua_rawseti(L, q->vector, 3 + i);
    }
    lua_pop(L, 1);
  } else {
    lua_rawseti(L, q->vector, 4);
  }
  q->keep = q->vector;
}

static void read_raw_opcode(struct reader *in, int table)
{
  static const struct arg opcode = {.name = "opcode"};
  static const struct arg off = {.name = "off"};
  struct reader one = *in;
  lua_getfield(in->L, table, "opcode");
  one.last = lua_gettop(in->L);
  in->q->sqe.opcode =
      (uint8_t)args_integer(&one, &opcode, one.last, 0, UINT8_MAX);
  lua_getfield(in->L, table, "off");
  one.last = lua_gettop(in->L);
  if (!lua_isnil(in->L, -1))
    in->q->sqe.off = (uint64_t)args_integer(&one, &off, one.last,
                                            LUA_MININTEGER, LUA_MAXINTEGER);
  lua_getfield(in->L, table, "multishot");
  in->q->multishot = lua_toboolean(in->L, -1);
  lua_pop(in->L, 3);
}

static bool len_counts(const struct arg *a)
{
  return a->kind == ARG_BUFFER || a->kind == ARG_DATA || a->kind == ARG_ROOM ||
         a->kind == ARG_VALUE;
}

static void check_raw_pointer(struct reader *in, unsigned n)
{
  static const struct arg len = {.name = "len"};
  const uint32_t given = in->q->sqe.len;
  size_t size;
  lua_rawgeti(in->L, in->q->vector, n);
  size = data_length(in->L, in->q->core, lua_gettop(in->L));
  if (!lua_isboolean(in->L, -1) && given > size)
    args_bad(in, &len,
             lua_pushfstring(in->L, "%I is more than the %I bytes there are",
                             (LUAI_UACINT)given, (LUAI_UACINT)size));
  lua_pop(in->L, 1);
}

/* Of an opcode whose `len` is known to count the bytes at a pointer, no more
** of them than there are. */
static void check_raw_length(struct reader *in)
{
  const struct row *row = op_of_opcode(in->q->sqe.opcode);
  if (row == NULL)
    return;
  for (const struct arg *a = row->args; a->kind != ARG_END; a++)
    if (len_counts(a) && pointer_number(a) != 0)
      check_raw_pointer(in, pointer_number(a));
}

/* What the library could not keep account of. */
static void check_raw_flags(struct reader *in)
{
  static const struct arg flags = {.name = "flags"};
  struct request *q = in->q;
  if (q->sqe.flags & IOSQE_CQE_SKIP_SUCCESS)
    args_bad(in, &flags, "an operation without a completion would never end");
  if (q->sqe.flags & IOSQE_BUFFER_SELECT)
    q->event_flags |= EVENT_SELECTS;
  if ((q->sqe.opcode == IORING_OP_RECV || q->sqe.opcode == IORING_OP_SEND) &&
      q->sqe.ioprio & URING_RECVSEND_BUNDLE)
    q->event_flags |= EVENT_BUNDLE;
  if (q->event_flags & EVENT_BUNDLE && q->sqe.flags & IOSQE_ASYNC)
    args_bad(in, &flags, "a bundle is not for what is made async");
  if (q->sqe.flags & IOSQE_IO_DRAIN) { /* see the backlog in ring.c */
    q->sqe.flags &= (uint8_t)~IOSQE_IO_DRAIN;
    q->event_flags |= EVENT_DRAIN;
  }
}

/* It opens a file: a descriptor, or a direct one. */
static void note_new_file(struct request *q)
{
  const uint32_t slot = q->sqe.file_index;
  q->event_flags |= slot ? EVENT_DIRECT : EVENT_YIELDS_FD;
  q->place = slot == IORING_FILE_INDEX_ALLOC ? -1 : (int)slot - 1;
}

void args_read_raw(struct reader *in, const struct arg *a)
{
  lua_State *L = in->L;
  struct request *q = in->q;
  int table = in->index++;
  uint64_t addr = 0, addr2, addr3 = 0;
  if (table > in->last || !lua_istable(L, table))
    args_bad_type(in, a, table, "table");
  check_raw_names(in, table);
  read_raw_opcode(in, table);
  for (size_t i = 0; i < COUNT(raw_fields); i++)
    read_raw_field(in, table, &raw_fields[i]);
  q->writes = true; /* it may: nobody else gets at the Buffers meanwhile */
  lua_createtable(L, 4, 0);
  q->vector = lua_gettop(L);
  q->nvec = 3;
  addr2 = q->sqe.off;
  read_raw_pointer(in, table, 0, &addr);
  read_raw_pointer(in, table, 1, &addr2);
  read_raw_pointer(in, table, 2, &addr3);
  q->sqe.addr = addr;
  q->sqe.off = addr2;
  q->sqe.addr3 = addr3;
  read_raw_keep(in, table);
  q->aux = AUX_RAW;
  if (op_yields_fd(q->sqe.opcode))
    note_new_file(q);
  check_raw_flags(in);
  check_raw_length(in);
}
