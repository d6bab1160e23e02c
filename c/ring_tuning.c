/* What a ring has of the kernel besides its queues: a thread that submits,
** workers, a registered descriptor.
*/
#include "ring_tuning.h"

#include <limits.h>
#include <sched.h>

#include "driver.h"
#include "errors.h"
#include "ring_object.h"

/*
** SQPOLL: a thread of the kernel submits, and sleeps when there is nothing
*/

/* ring:uses_sqpoll() -> boolean */
static int tuning_uses_sqpoll(lua_State *L)
{
  const struct ring *r = ring_object_open(L, 1);
  lua_pushboolean(L, (r->io.flags & IORING_SETUP_SQPOLL) != 0);
  return 1;
}

/* ring:needs_wakeup() -> has the thread gone to sleep?  The fence makes what
** was published visible before its flag is read. */
static int tuning_needs_wakeup(lua_State *L)
{
  const struct ring *r = ring_object_open(L, 1);
  io_uring_smp_mb();
  lua_pushboolean(
      L, (IO_URING_READ_ONCE(*r->io.sq.kflags) & IORING_SQ_NEED_WAKEUP) != 0);
  return 1;
}

/* ring:wake() -> true, the thread is awake | nil, message, errno.  `submit`
** does it by itself where it is needed. */
static int tuning_wake(lua_State *L)
{
  const struct ring *r = ring_object_open(L, 1);
  int rc = 0;
  if (r->io.flags & IORING_SETUP_SQPOLL)
    rc = io_uring_enter((unsigned)r->io.ring_fd, 0, 0, IORING_ENTER_SQ_WAKEUP,
                        NULL);
  if (rc < 0)
    return push_failure(L, "wake", -rc);
  lua_pushboolean(L, 1);
  return 1;
}

/* ring:iowq_max_workers([bounded [, unbounded]]) -> what they were: how many
** threads of the kernel may carry out what would block, on files (bounded)
** and on everything else; 0 leaves it as it is | nil, message, errno */
static int tuning_iowq_max_workers(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  unsigned values[2];
  int rc;
  for (int i = 0; i < 2; i++) {
    lua_Integer n = luaL_optinteger(L, i + 2, 0);
    luaL_argcheck(L, n >= 0 && n <= INT_MAX, i + 2, "out of range");
    values[i] = (unsigned)n;
  }
  rc = io_uring_register_iowq_max_workers(&r->io, values);
  if (rc < 0)
    return push_failure(L, "iowq_max_workers", -rc);
  lua_pushinteger(L, values[0]);
  lua_pushinteger(L, values[1]);
  return 2;
}

/* Reads the table of processors at index 2. */
static void read_cpus(lua_State *L, cpu_set_t *cpus)
{
  lua_Integer count;
  luaL_checktype(L, 2, LUA_TTABLE);
  count = (lua_Integer)lua_rawlen(L, 2);
  luaL_argcheck(L, count > 0, 2, "there is nothing in the table");
  CPU_ZERO(cpus);
  for (lua_Integer i = 1; i <= count; i++) {
    lua_Integer cpu;
    int exact;
    lua_rawgeti(L, 2, i);
    cpu = lua_tointegerx(L, -1, &exact);
    if (lua_type(L, -1) != LUA_TNUMBER || !exact || cpu < 0 ||
        cpu >= CPU_SETSIZE)
      luaL_error(L, "number of a processor expected at [%d], got %s", (int)i,
                 luaL_tolstring(L, -1, NULL));
    CPU_SET((size_t)cpu, cpus);
    lua_pop(L, 1);
  }
}

/* ring:iowq_affinity { cpu, … } or () -> true | nil, message, errno: the
** processors, from 0, that those threads may run on; all of them again.  It
** holds for those that start from now on, whichever ring wants them */
static int tuning_iowq_affinity(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  cpu_set_t cpus;
  int rc;
  if (lua_isnoneornil(L, 2)) {
    rc = io_uring_unregister_iowq_aff(&r->io);
  } else {
    read_cpus(L, &cpus);
    rc = io_uring_register_iowq_aff(&r->io, sizeof cpus, &cpus);
  }
  if (rc < 0)
    return push_failure(L, "iowq_affinity", -rc);
  lua_pushboolean(L, 1);
  return 1;
}

/*
** The ring's descriptor
*/

/* ring:register_ring_fd() -> true | nil, message, errno: the kernel looks the
** ring's descriptor up now, and not each time it is entered */
static int tuning_register_ring_fd(lua_State *L)
{
  int rc = driver_register_fd(ring_object_open(L, 1));
  if (rc < 0)
    return push_failure(L, "register_ring_fd", -rc);
  lua_pushboolean(L, 1);
  return 1;
}

/* ring:unregister_ring_fd() -> true | nil, message, errno */
static int tuning_unregister_ring_fd(lua_State *L)
{
  int rc = driver_unregister_fd(ring_object_open(L, 1));
  if (rc < 0)
    return push_failure(L, "unregister_ring_fd", -rc);
  lua_pushboolean(L, 1);
  return 1;
}

static const luaL_Reg methods[] = {
    {"uses_sqpoll", tuning_uses_sqpoll},
    {"needs_wakeup", tuning_needs_wakeup},
    {"wake", tuning_wake},
    {"iowq_max_workers", tuning_iowq_max_workers},
    {"iowq_affinity", tuning_iowq_affinity},
    {"register_ring_fd", tuning_register_ring_fd},
    {"unregister_ring_fd", tuning_unregister_ring_fd},
    {NULL, NULL},
};

void tuning_methods(lua_State *L)
{
  luaL_setfuncs(L, methods, 0);
}
