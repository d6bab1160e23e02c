/* The ring as Lua sees it: counters, features, the end. */
#include "ring_object.h"

#include <errno.h>
#include <string.h>
#include <sys/utsname.h>

#include "errors.h"
#include "message.h"
#include "multishot.h"
#include "op.h"
#include "operation.h"
#include "registered.h"
#include "ring_hand.h"
#include "ring_options.h"
#include "ring_tuning.h"
#include "worker.h"

/*
** Opening
*/

/* Why a ring was refused and what to do about it, in one sentence. */
static const char *refusal(int err)
{
  switch (err) {
  case ENOSYS:
    return "this kernel has no io_uring, or one too old (6.1 or newer is "
           "needed), or a seccomp filter hides it; run a newer kernel or "
           "allow the io_uring system calls";
  case EPERM:
  case EACCES:
    return "io_uring is forbidden here; set the sysctl "
           "kernel.io_uring_disabled to 0, or give the container a seccomp "
           "profile that allows io_uring_setup, io_uring_enter and "
           "io_uring_register";
  case ENOMEM:
    return "there is not enough memory that may be locked; raise `ulimit "
           "-l` (memlock) or ask for fewer entries";
  case EMFILE:
  case ENFILE:
    return "there are too many open files; raise `ulimit -n`";
  default:
    return strerror(err);
  }
}

struct ring *ring_object_push(lua_State *L, struct core *core,
                              const struct ring_options *o)
{
  struct ring **box = lua_newuserdatauv(L, sizeof *box, 0);
  int err;
  *box = NULL; /* closed until it is open */
  luaL_setmetatable(L, RING_TYPE);
  *box = ring_open(L, core, o, &err);
  if (*box == NULL)
    push_failure_text(L, "io_uring", refusal(-err), -err);
  return *box;
}

/* ring([options]) -> Ring | nil, message, errno */
static int ring_new(lua_State *L)
{
  struct core *core = core_upvalue(L);
  struct ring_options o;
  struct ring *r;
  core_enter(L, core);
  ring_reap_lingering(L, core);
  lua_settop(L, 1);
  ring_options_read(L, 1, &o);
  r = ring_object_push(L, core, &o);
  if (r == NULL)
    return 3;
  return 1;
}

void ring_object_check(lua_State *L, const struct ring *r)
{
  if (r->epoch != *r->core->epoch)
    luaL_error(L,
               "this ring belongs to process %d, from before the fork: "
               "create one of your own with uring.ring()",
               (int)r->pid);
  if (r->state != RING_OPEN)
    luaL_error(L, "attempt to use a closed ring");
}

static struct ring **tobox(lua_State *L, int index)
{
  return luaL_checkudata(L, index, RING_TYPE);
}

struct ring *ring_object_open(lua_State *L, int index)
{
  struct ring *r = *tobox(L, index);
  if (r == NULL)
    luaL_error(L, "attempt to use a closed ring");
  ring_object_check(L, r);
  return r;
}

/*
** Methods
*/

/* ring:submit() -> how many operations the kernel took | nil, message, errno
 */
static int ring_submit_lua(lua_State *L)
{
  int rc = ring_submit(ring_object_open(L, 1));
  if (rc < 0)
    return push_failure(L, "submit", -rc);
  lua_pushinteger(L, rc);
  return 1;
}

/* ring:close(): cancels what is in flight and waits until the kernel is done
** with it; idempotent */
static int ring_close_lua(lua_State *L)
{
  struct ring *r = *tobox(L, 1);
  if (r != NULL && r == r->core->home && r->core->sched.turning &&
      r->epoch == *r->core->epoch)
    return luaL_error(L, "cannot close the default ring from inside a task");
  if (r != NULL)
    ring_close(L, r);
  return 0;
}

static int ring_gc(lua_State *L)
{
  struct ring **box = tobox(L, 1);
  struct ring *r = *box;
  *box = NULL;
  if (r != NULL) {
    if (r->core->home == r)
      r->core->home = NULL;
    ring_drop(L, r);
  }
  return 0;
}

static void set_count(lua_State *L, const char *name, uint64_t n)
{
  lua_pushinteger(L, (lua_Integer)n);
  lua_setfield(L, -2, name);
}

/* ring:stats() -> table; works on a closed ring, too */
static int ring_stats_lua(lua_State *L)
{
  struct ring *r = *tobox(L, 1);
  const struct ring_stats *s;
  if (r == NULL)
    return luaL_error(L, "attempt to use a closed ring");
  s = &r->stats;
  lua_createtable(L, 0, 16);
  set_count(L, "prepared", s->prepared);
  set_count(L, "backlog", r->backlog.count);
  set_count(L, "in_flight", r->in_flight);
  set_count(L, "completed", s->completed);
  set_count(L, "cancelled", s->cancelled);
  set_count(L, "orphaned", s->orphaned);
  set_count(L, "overflowed", s->overflowed);
  set_count(L, "unknown", s->unknown);
  set_count(L, "rearmed", s->rearmed);
  set_count(L, "leaked", s->leaked);
  set_count(L, "enters", s->enters);
  set_count(L, "bytes_lent", s->bytes_lent);
  set_count(L, "jobs", r == r->core->home ? worker_jobs(r->core) : 0);
  set_count(L, "tasks", r == r->core->home ? r->core->sched.ntasks : 0);
  set_count(L, "timers", r == r->core->home ? r->core->sched.ntimers : 0);
  return 1;
}

static const struct {
  const char *name;
  unsigned flag;
} setup_flags[] = {
    {"iopoll", IORING_SETUP_IOPOLL},
    {"sqpoll", IORING_SETUP_SQPOLL},
    {"attached", IORING_SETUP_ATTACH_WQ},
    {"submit_all", IORING_SETUP_SUBMIT_ALL},
    {"coop_taskrun", IORING_SETUP_COOP_TASKRUN},
    {"taskrun_flag", IORING_SETUP_TASKRUN_FLAG},
    {"single_issuer", IORING_SETUP_SINGLE_ISSUER},
    {"defer_taskrun", IORING_SETUP_DEFER_TASKRUN},
    {"no_sqarray", URING_SETUP_NO_SQARRAY},
};

/* ring:features() -> table: driver, kernel, ring_fd, entries, cq_entries, and
** true or false for each set-up flag and for registered_ring; variants: what a
** probe cannot see */
static int ring_features(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  struct utsname kernel;
  lua_createtable(L, 0, 16);
  lua_pushstring(L, r->driver->name);
  lua_setfield(L, -2, "driver");
  if (uname(&kernel) == 0) {
    lua_pushstring(L, kernel.release);
    lua_setfield(L, -2, "kernel");
  }
  set_count(L, "ring_fd", (unsigned)r->io.ring_fd);
  set_count(L, "entries", r->io.sq.ring_entries);
  set_count(L, "cq_entries", r->io.cq.ring_entries);
  set_count(L, "feature_bits", r->io.features);
  for (size_t i = 0; i < sizeof setup_flags / sizeof *setup_flags; i++) {
    lua_pushboolean(L, (r->io.flags & setup_flags[i].flag) != 0);
    lua_setfield(L, -2, setup_flags[i].name);
  }
  lua_pushboolean(L, r->registrar != NULL);
  lua_setfield(L, -2, "registered_ring");
  multishot_push(L, r);
  lua_setfield(L, -2, "variants");
  return 1;
}

/* Can this ring do it, natively or by an equivalent system call? */
static bool can_do(const struct ring *r, const struct row *row)
{
  return row->by_system_call != NULL || ring_supports(r, row->opcode);
}

/* ring:probe(name) -> boolean; ring:probe() -> table name -> boolean */
static int ring_probe(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  const struct row *row = NULL;
  if (!lua_isnoneornil(L, 2)) {
    row = op_check(L, 2);
    lua_pushboolean(L, can_do(r, row));
    return 1;
  }
  lua_newtable(L);
  while ((row = op_next(row)) != NULL) {
    lua_pushboolean(L, can_do(r, row));
    lua_setfield(L, -2, row->name);
  }
  return 1;
}

/* ring:fd() -> a descriptor that is readable when there is something to reap:
** to embed the ring in a foreign loop.  It is quiet again once the ring has
** been turned. */
static int ring_fd(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  int fd;
  if (ring_is_polled(r))
    return luaL_error(L, "a ring with iopoll has no fd to wait for: its "
                         "completions are found by entering it");
  fd = ring_bell(r);
  if (fd < 0)
    return push_failure(L, "eventfd", -fd);
  lua_pushinteger(L, fd);
  return 1;
}

static int ring_tostring(lua_State *L)
{
  struct ring *r = *tobox(L, 1);
  if (r == NULL || r->state != RING_OPEN)
    lua_pushliteral(L, "ring (closed)");
  else
    lua_pushfstring(L, "ring (%d entries, %d in flight, fd %d)",
                    (int)r->io.sq.ring_entries, (int)r->in_flight,
                    r->io.ring_fd);
  return 1;
}

/* default() -> the default Ring, created at first use */
static int ring_default(lua_State *L)
{
  struct core *core = core_upvalue(L);
  core_home(L, core);
  lua_rawgeti(L, LUA_REGISTRYINDEX, core->home_ref);
  return 1;
}

/* has_default() -> is there one, for this process? */
static int ring_has_default(lua_State *L)
{
  struct core *core = core_upvalue(L);
  lua_pushboolean(L, core->home != NULL && core->home->state == RING_OPEN);
  return 1;
}

/* A method of the ring, called on the default ring: the ring is put before
** the arguments. */
static int on_default(lua_State *L)
{
  lua_CFunction method = lua_tocfunction(L, lua_upvalueindex(2));
  ring_default(L);
  lua_insert(L, 1);
  return method(L);
}

static const luaL_Reg ring_methods[] = {
    {"submit", ring_submit_lua},
    {"close", ring_close_lua},
    {"stats", ring_stats_lua},
    {"features", ring_features},
    {"probe", ring_probe},
    {"fd", ring_fd},
    {NULL, NULL},
};

static const luaL_Reg ring_meta[] = {
    {"__gc", ring_gc},
    {"__close", ring_close_lua},
    {"__tostring", ring_tostring},
    {NULL, NULL},
};

static const luaL_Reg ring_functions[] = {
    {"ring", ring_new},
    {"default", ring_default},
    {"has_default", ring_has_default},
    {NULL, NULL},
};

/* Pushes a table of the methods, for the default ring; all but close, which
** the module has its own of. */
static void push_on_default(lua_State *L, struct core *core)
{
  lua_newtable(L);
  luaL_getmetatable(L, RING_TYPE);
  lua_getfield(L, -1, "__index");
  lua_pushnil(L); /* functions; metatable; methods; key */
  while (lua_next(L, -2)) {
    lua_pushvalue(L, -2);
    lua_pushlightuserdata(L, core);
    lua_rotate(L, -3, -1); /* ...; key; key; core; method */
    lua_pushcclosure(L, on_default, 2);
    lua_rawset(L, -6);
  }
  lua_pushnil(L);
  lua_setfield(L, -4, "close");
  lua_pop(L, 2);
}

void ring_object_register(lua_State *L, struct core *core)
{
  luaL_newmetatable(L, RING_TYPE);
  luaL_setfuncs(L, ring_meta, 0);
  luaL_newlib(L, ring_methods);
  registered_methods(L);
  hand_methods(L);
  tuning_methods(L);
  message_methods(L);
  lua_getfield(L, -3, "prepare"); /* from operation_register */
  lua_setfield(L, -2, "prepare");
  lua_getfield(L, -3, "link");
  lua_setfield(L, -2, "link");
  lua_getfield(L, -3, "pool");
  lua_setfield(L, -2, "pool");
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, ring_functions, 1);
  push_on_default(L, core);
  lua_setfield(L, -2, "on_default");
}
