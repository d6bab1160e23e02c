/* luaopen_uring_core, and the state that everything else hangs on.
**
** Fork.  A child shares the parent's queues if it can touch them, and what
** it writes there the parent's next enter submits.  So the queues are not
** mapped in a child, and one page that the kernel wipes there
** (MADV_WIPEONFORK, Linux 4.14) tells every entry point, for the price of a
** load, that this is no longer the process it was: the page holds the epoch,
** every ring remembers the epoch it was born in, and 0 matches none.
*/
#include "core.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "buffer.h"
#include "call.h"
#include "child.h"
#include "child_spawn.h"
#include "constants.h"
#include "copy.h"
#include "coroutine.h"
#include "directory.h"
#include "errors.h"
#include "gather.h"
#include "interrupt.h"
#include "io.h"
#include "locals.h"
#include "near.h"
#include "op.h"
#include "operation.h"
#include "operation_list.h"
#include "options.h"
#include "passing.h"
#include "path_call.h"
#include "pool.h"
#include "pool_object.h"
#include "resolve.h"
#include "ring.h"
#include "ring_object.h"
#include "ring_options.h"
#include "scope.h"
#include "signals.h"
#include "sockaddr.h"
#include "sockopt.h"
#include "stream.h"
#include "sync.h"
#include "system.h"
#include "task.h"
#include "task_list.h"
#include "timer.h"
#include "unwritten.h"
#include "worker.h"

/* Registry key of the core's userdata. */
static const char core_key = 'u';

struct core *core_of(lua_State *L)
{
  struct core *core;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &core_key);
  core = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return core;
}

void core_set_methods(lua_State *L, const luaL_Reg *methods, int meta)
{
  const void *address = lua_topointer(L, meta);
  lua_pushlightuserdata(L, (void *)(uintptr_t)address);
  luaL_setfuncs(L, methods, 1);
}

static void begin_epoch(struct core *core)
{
  *core->epoch = ++core->epochs;
  core->pid = getpid();
  core->starving = 0;
  worker_forget(core);
}

void core_enter(lua_State *L, struct core *core)
{
  if (core->closed)
    luaL_error(L, "the Lua state is being closed");
  if (*core->epoch == 0)
    begin_epoch(core);
}

void core_breathe(lua_State *L, struct core *core)
{
  if (lua_gethookmask(L) == 0)
    return;
  lua_rawgeti(L, LUA_REGISTRYINDEX, core->breathe_ref);
  lua_call(L, 0, 0);
}

/* Registry key of the table of options for default rings, nil: there is none.
 */
static const char options_key = 'o';

/* default_options(table | nil): what default rings are opened with from now
** on, for specs; as ring takes it */
static int core_default_options(lua_State *L)
{
  struct ring_options o;
  lua_settop(L, 1);
  ring_options_read(L, 1, &o); /* raises on what is wrong */
  lua_rawsetp(L, LUA_REGISTRYINDEX, &options_key);
  return 0;
}

/* Opens the default ring and makes it the home of the tasks. */
static struct ring *open_home(lua_State *L, struct core *core)
{
  struct ring_options o;
  struct ring *r;
  luaL_checkstack(L, LUA_MINSTACK, "opening the default ring");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &options_key);
  ring_options_read(L, lua_gettop(L), &o);
  lua_pop(L, 1);
  r = ring_object_push(L, core, &o);
  if (r == NULL)
    luaL_error(L, "%s", lua_tostring(L, -2));
  lua_rawseti(L, LUA_REGISTRYINDEX, core->home_ref);
  core->home = r;
  return r;
}

struct ring *core_home(lua_State *L, struct core *core)
{
  struct ring *r = core->home;
  if (r != NULL && r->state == RING_OPEN && r->epoch == *core->epoch)
    return r;
  core_enter(L, core);
  if (r == NULL || r->state != RING_OPEN)
    return open_home(L, core);
  ring_object_check(L, r); /* raises: it is the parent's */
  return NULL;
}

/* abandon(): forgets what was inherited through fork */
static int core_abandon(lua_State *L)
{
  struct core *core = core_upvalue(L);
  core_enter(L, core);
  if (core->home != NULL && core->home->epoch != *core->epoch) {
    if (core->sched.current != NULL)
      return luaL_error(L, "cannot close the default ring from inside a "
                           "task");
    ring_close(L, core->home);
    tasks_abandon(L, core);
    core->home = NULL;
  }
  return 0;
}

/* The last finaliser of all: what the rings still have in flight is waited
** for, and then nothing of ours is left. */
static int core_gc(lua_State *L)
{
  struct core *core = lua_touserdata(L, 1);
  core->closed = true;
  interrupt_release(core);
  tasks_let_go(L, core);
  worker_close(core);
  while (core->rings != NULL) {
    ring_close(L, core->rings);
    ring_free(L, core->rings);
  }
  core->home = NULL;
  unwritten_close(core);
  children_end(core);
  if (core->stream_pool != NULL)
    pool_dispose(core->stream_pool);
  timer_free(core);
  if (core->epoch != NULL)
    munmap((void *)(uintptr_t)core->epoch, sizeof *core->epoch);
  core->epoch = NULL;
  return 0;
}

static void open_epoch(lua_State *L, struct core *core)
{
  void *page = mmap(NULL, sizeof *core->epoch, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED)
    luaL_error(L, "mmap: %s", strerror(errno));
  core->epoch = page;
  if (madvise(page, sizeof *core->epoch, MADV_WIPEONFORK) < 0)
    luaL_error(L, "madvise(MADV_WIPEONFORK): %s", strerror(errno));
  begin_epoch(core);
}

static struct core *core_new(lua_State *L)
{
  struct core *core = lua_newuserdatauv(L, sizeof *core, 1);
  memset(core, 0, sizeof *core);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  core->L = lua_tothread(L, -1);
  lua_pop(L, 1);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, core_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  open_epoch(L, core);
  if (luaL_loadstring(L, "") != LUA_OK)
    lua_error(L);
  core->breathe_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushboolean(L, 0);
  core->home_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &core_key);
  return core;
}

static const luaL_Reg plain_functions[] = {
    {"near", near_lua},
    {"address_family", sockaddr_family_lua},
    {"local_address", sockaddr_local_lua},
    {"peer_address", sockaddr_peer_lua},
    {NULL, NULL},
};

__attribute__((visibility("default"))) int luaopen_uring_core(lua_State *L);

/* Pushes the module if this Lua state has it already.  Another core beside
** it would take the scheduler from under the objects of the first. */
static bool push_existing(lua_State *L)
{
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &core_key) == LUA_TUSERDATA &&
      lua_getiuservalue(L, -1, 1) == LUA_TTABLE)
    return true;
  lua_settop(L, 0);
  return false;
}

int luaopen_uring_core(lua_State *L)
{
  struct core *core;
  luaL_checkversion(L);
  if (push_existing(L))
    return 1;
  core = core_new(L);
  luaL_newlib(L, plain_functions);
  errors_register(L);
  constants_register(L);
  system_register(L);
  sockopt_register(L);
  passing_register(L);
  buffer_register(L, core);
  operation_register(L);
  gather_register(L, core);
  pool_register(L, core);
  options_register(L, core);
  call_register(L, core);
  ring_object_register(L, core);
  scope_register(L, core);
  task_register(L, core);
  task_list_register(L, core);
  operation_list_register(L, core);
  interrupt_register(L, core);
  locals_register(L, core);
  sync_register(L, core);
  coroutine_register(L, core);
  timer_register(L, core);
  worker_register(L, core);
  directory_register(L, core);
  copy_register(L, core);
  path_call_register(L, core);
  resolve_register(L, core);
  signals_register(L);
  child_register(L);
  child_spawn_register(L, core);
  stream_register(L, core);
  unwritten_register(L, core);
  io_register(L);
  directory_register(L, core);
  copy_register(L, core);
  path_call_register(L, core);
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, core_abandon, 1);
  lua_setfield(L, -2, "abandon");
  lua_pushcfunction(L, core_default_options);
  lua_setfield(L, -2, "default_options");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &core_key);
  lua_pushvalue(L, -2); /* module; core; module */
  lua_setiuservalue(L, -2, 1);
  lua_pop(L, 1);
  return 1;
}
