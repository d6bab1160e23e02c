/* What tasks wait for one another with. */
#include "sync.h"

#include <limits.h>
#include <string.h>

#include "channel_parts.h"
#include "loop.h"
#include "ring.h"
#include "task.h"

/* One struct for all four: a number and those who wait. */
struct sync {
  struct core *core;
  struct queue waiting;
  lua_Integer count; /* permits; what a group waits for */
  unsigned told;     /* how often those who wait have been woken */
  const void
      *owner; /* the task that has the mutex; the core: the main chunk */
};

/* The owner of a mutex, as its user value 1: another task in its place in
** memory would be taken for it. */
enum { MUTEX_OWNER = 1 };

#define SEMAPHORE_TYPE "uring.semaphore"
#define MUTEX_TYPE     "uring.mutex"
#define CONDITION_TYPE "uring.condition"
#define GROUP_TYPE     "uring.waitgroup"

static struct sync *new_sync(lua_State *L, const char *type)
{
  struct sync *s = lua_newuserdatauv(L, sizeof *s, MUTEX_OWNER);
  memset(s, 0, sizeof *s);
  s->core = core_upvalue(L);
  luaL_setmetatable(L, type);
  return s;
}

static struct sync *check(lua_State *L, const char *type)
{
  struct sync *s = core_self(L);
  if (s == NULL)
    s = luaL_checkudata(L, 1, type);
  core_enter(L, s->core);
  return s;
}

static int push_self(lua_State *L)
{
  lua_settop(L, 1);
  return 1;
}

/* What was waited for has come, and belongs to this task already. */
static int wait_k(lua_State *L, int status, lua_KContext ctx)
{
  struct task *t = (struct task *)ctx;
  (void)status;
  if (!task_is_resumed(t))
    return task_park_again(L, t, wait_k);
  task_check_interrupted(L, t);
  return push_self(L);
}

static int wait_in_line(lua_State *L, struct task *t, struct sync *s)
{
  return task_park(L, t, &s->waiting, wait_k, (lua_KContext)t);
}

/* Nobody has it, so whoever waits has lost its stack: the program closed its
** coroutine. */
static int sync_gc(lua_State *L)
{
  struct sync *s = lua_touserdata(L, 1);
  tasks_wake(&s->waiting);
  return 0;
}

/* The program has closed the coroutine that waits, or its task's.  The first
** is there still: see channel_awaiting. */
static bool is_lost(const struct task *t)
{
  return lua_status(t->inner) != LUA_YIELD || lua_status(t->co) != LUA_YIELD;
}

/* Who has waited longest, or NULL.  Those that are lost are woken to find out.
*/
static struct task *next_in_line(struct sync *s)
{
  while (!queue_empty(&s->waiting) && is_lost(s->waiting.head))
    tasks_wake_some(&s->waiting, 1);
  return s->waiting.head;
}

struct notice {
  const struct sync *sync;
  unsigned before;
};

static bool was_told(void *arg)
{
  const struct notice *n = arg;
  return n->sync->told != n->before;
}

/* The main chunk's way of waiting until those who wait are woken. */
static void turn_until_told(lua_State *L, const struct sync *s)
{
  struct notice n = {s, s->told};
  loop_until(L, core_home(L, s->core), UINT64_MAX, was_told, &n);
}

static int describe(lua_State *L, const struct sync *s, const char *what)
{
  lua_pushfstring(L, "%s (%I, %p)", what, (LUAI_UACINT)s->count,
                  (const void *)s);
  return 1;
}

/*
** Semaphores
*/

static bool has_count(void *arg)
{
  return ((struct sync *)arg)->count > 0;
}

static int acquire(lua_State *L, struct sync *s)
{
  struct task *t = channel_awaiting(L, s->core);
  if (s->count == 0 && t != NULL)
    return wait_in_line(L, t, s);
  if (s->count == 0)
    loop_until(L, core_home(L, s->core), UINT64_MAX, has_count, s);
  s->count--;
  return push_self(L);
}

/* The permit is the next in line's, or anybody's. */
static void release(struct sync *s)
{
  if (next_in_line(s) == NULL)
    s->count++;
  else
    tasks_wake_some(&s->waiting, 1);
}

/* semaphore(permits) -> Semaphore */
static int semaphore_new(lua_State *L)
{
  lua_Integer n = luaL_checkinteger(L, 1);
  luaL_argcheck(L, n >= 0, 1, "permits are negative");
  new_sync(L, SEMAPHORE_TYPE)->count = n;
  return 1;
}

/* semaphore:acquire() -> the semaphore, of which one permit is the caller's;
** as a <close> variable it gives that back */
static int semaphore_acquire(lua_State *L)
{
  return acquire(L, check(L, SEMAPHORE_TYPE));
}

/* semaphore:try_acquire() -> the semaphore | nil */
static int semaphore_try_acquire(lua_State *L)
{
  struct sync *s = check(L, SEMAPHORE_TYPE);
  if (s->count == 0) {
    lua_pushnil(L);
    return 1;
  }
  s->count--;
  return push_self(L);
}

/* semaphore:release([n = 1]) */
static int semaphore_release(lua_State *L)
{
  struct sync *s = check(L, SEMAPHORE_TYPE);
  lua_Integer n = luaL_optinteger(L, 2, 1);
  luaL_argcheck(L, n >= 1, 2, "not a number of permits");
  luaL_argcheck(L, s->count <= LUA_MAXINTEGER - n, 2, "too many permits");
  for (; n > 0 && next_in_line(s) != NULL; n--)
    tasks_wake_some(&s->waiting, 1);
  s->count += n;
  return 0;
}

static int semaphore_close(lua_State *L)
{
  release(check(L, SEMAPHORE_TYPE));
  return 0;
}

/* semaphore:permits() -> how many are free */
static int semaphore_permits(lua_State *L)
{
  lua_pushinteger(L, check(L, SEMAPHORE_TYPE)->count);
  return 1;
}

static int semaphore_tostring(lua_State *L)
{
  return describe(L, check(L, SEMAPHORE_TYPE), "semaphore");
}

/*
** Mutexes
*/

/* Who is calling: a task, or the main chunk, for which the core stands. */
static const void *caller(const struct sync *s)
{
  const struct task *t = s->core->sched.current;
  return t != NULL ? (const void *)t : (const void *)s->core;
}

static bool is_free(void *arg)
{
  return ((struct sync *)arg)->owner == NULL;
}

/* The task that has the mutex has ended, or is the parent's. */
static bool owner_is_gone(const struct sync *s)
{
  return s->owner != s->core && ((const struct task *)s->owner)->slot == 0;
}

/* The mutex at index 1 is now this task's; NULL: nobody's. */
static void give_to(lua_State *L, struct sync *s, const struct task *t)
{
  lua_settop(L, 1);
  if (t == NULL) {
    lua_pushnil(L);
  } else {
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->core->tasks_ref);
    lua_rawgeti(L, -1, t->slot);
  }
  lua_setiuservalue(L, 1, MUTEX_OWNER);
  lua_settop(L, 1);
  s->owner = t;
}

static int take(lua_State *L, struct sync *s)
{
  give_to(L, s, s->core->sched.current);
  s->owner = caller(s);
  return 1;
}

/* mutex() -> Mutex */
static int mutex_new(lua_State *L)
{
  new_sync(L, MUTEX_TYPE);
  return 1;
}

/* mutex:lock() -> the mutex, which as a <close> variable is unlocked */
static int mutex_lock(lua_State *L)
{
  struct sync *s = check(L, MUTEX_TYPE);
  struct task *t = channel_awaiting(L, s->core);
  if (s->owner == NULL)
    return take(L, s);
  if (s->owner == caller(s))
    return luaL_error(L, "deadlock: the mutex is locked by this task already");
  if (owner_is_gone(s))
    return luaL_error(L, "the mutex is locked by a task that has ended");
  if (t != NULL)
    return wait_in_line(L, t, s);
  loop_until(L, core_home(L, s->core), UINT64_MAX, is_free, s);
  return take(L, s);
}

/* mutex:try_lock() -> the mutex | nil */
static int mutex_try_lock(lua_State *L)
{
  struct sync *s = check(L, MUTEX_TYPE);
  if (s->owner == NULL)
    return take(L, s);
  lua_pushnil(L);
  return 1;
}

/* mutex:unlock(): by who has locked it */
static int mutex_unlock(lua_State *L)
{
  struct sync *s = check(L, MUTEX_TYPE);
  if (s->owner != caller(s))
    return luaL_error(L, s->owner == NULL
                             ? "the mutex is not locked"
                             : "the mutex is locked by another task");
  give_to(L, s, next_in_line(s));
  tasks_wake_some(&s->waiting, 1);
  return 0;
}

/* mutex:is_locked() -> boolean */
static int mutex_is_locked(lua_State *L)
{
  lua_pushboolean(L, check(L, MUTEX_TYPE)->owner != NULL);
  return 1;
}

static int mutex_tostring(lua_State *L)
{
  const struct sync *s = check(L, MUTEX_TYPE);
  lua_pushfstring(L, "mutex (%s, %p)", s->owner ? "locked" : "free",
                  (const void *)s);
  return 1;
}

/*
** Conditions
*/

/* condition() -> Condition */
static int condition_new(lua_State *L)
{
  new_sync(L, CONDITION_TYPE);
  return 1;
}

/* condition:wait(): until it is notified.  Tasks run one at a time, so what
** the condition is about cannot change between a test and the wait */
static int condition_wait(lua_State *L)
{
  struct sync *s = check(L, CONDITION_TYPE);
  struct task *t = task_awaiting(L, s->core);
  if (t != NULL)
    return wait_in_line(L, t, s);
  turn_until_told(L, s);
  return push_self(L);
}

static int notify(lua_State *L, unsigned most)
{
  struct sync *s = check(L, CONDITION_TYPE);
  if (most > 0)
    s->told++;
  tasks_wake_some(&s->waiting, most);
  return 0;
}

/* condition:notify([n = 1]): wakes those that have waited longest */
static int condition_notify(lua_State *L)
{
  lua_Integer n = luaL_optinteger(L, 2, 1);
  luaL_argcheck(L, n >= 0, 2, "not a number of tasks");
  return notify(L, n < UINT_MAX ? (unsigned)n : UINT_MAX);
}

/* condition:notify_all() */
static int condition_notify_all(lua_State *L)
{
  return notify(L, UINT_MAX);
}

static int condition_tostring(lua_State *L)
{
  const struct sync *s = check(L, CONDITION_TYPE);
  lua_pushfstring(L, "condition (%p)", (const void *)s);
  return 1;
}

/*
** Wait groups
*/

/* waitgroup([n = 0]) -> Waitgroup */
static int group_new(lua_State *L)
{
  lua_Integer n = luaL_optinteger(L, 1, 0);
  luaL_argcheck(L, n >= 0, 1, "less than nothing to wait for");
  new_sync(L, GROUP_TYPE)->count = n;
  return 1;
}

static int add(lua_State *L, struct sync *s, lua_Integer n)
{
  if (n < 0 ? s->count + n < 0 : s->count > LUA_MAXINTEGER - n)
    return luaL_error(L, "the count of a wait group is out of range");
  s->count += n;
  if (s->count == 0) {
    s->told++;
    tasks_wake(&s->waiting);
  }
  return 0;
}

/* waitgroup:add([n = 1]): so many more to wait for; negative: fewer */
static int group_add(lua_State *L)
{
  return add(L, check(L, GROUP_TYPE), luaL_optinteger(L, 2, 1));
}

/* waitgroup:done(): one fewer */
static int group_done(lua_State *L)
{
  return add(L, check(L, GROUP_TYPE), -1);
}

/* waitgroup:wait(): until there is nothing to wait for */
static int group_wait(lua_State *L)
{
  struct sync *s = check(L, GROUP_TYPE);
  struct task *t = task_awaiting(L, s->core);
  if (s->count > 0 && t != NULL)
    return wait_in_line(L, t, s);
  if (s->count > 0)
    turn_until_told(L, s);
  return push_self(L);
}

/* waitgroup:count() -> how many are still to come */
static int group_count(lua_State *L)
{
  lua_pushinteger(L, check(L, GROUP_TYPE)->count);
  return 1;
}

static int group_tostring(lua_State *L)
{
  return describe(L, check(L, GROUP_TYPE), "wait group");
}

/*
** All of them
*/

static const luaL_Reg semaphore_methods[] = {
    {"acquire", semaphore_acquire},
    {"try_acquire", semaphore_try_acquire},
    {"release", semaphore_release},
    {"permits", semaphore_permits},
    {NULL, NULL},
};

static const luaL_Reg mutex_methods[] = {
    {"lock", mutex_lock},
    {"try_lock", mutex_try_lock},
    {"unlock", mutex_unlock},
    {"is_locked", mutex_is_locked},
    {NULL, NULL},
};

static const luaL_Reg condition_methods[] = {
    {"wait", condition_wait},
    {"notify", condition_notify},
    {"notify_all", condition_notify_all},
    {NULL, NULL},
};

static const luaL_Reg group_methods[] = {
    {"add", group_add},     {"done", group_done}, {"wait", group_wait},
    {"count", group_count}, {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"semaphore", semaphore_new},
    {"mutex", mutex_new},
    {"condition", condition_new},
    {"waitgroup", group_new},
    {NULL, NULL},
};

static void new_type(lua_State *L, const char *type, const luaL_Reg *methods,
                     lua_CFunction close, lua_CFunction tostring)
{
  luaL_newmetatable(L, type);
  lua_pushcfunction(L, sync_gc);
  lua_setfield(L, -2, "__gc");
  lua_pushcfunction(L, tostring);
  lua_setfield(L, -2, "__tostring");
  if (close != NULL) {
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "__close");
  }
  lua_newtable(L);
  core_set_methods(L, methods, -2);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

void sync_register(lua_State *L, struct core *core)
{
  new_type(L, SEMAPHORE_TYPE, semaphore_methods, semaphore_close,
           semaphore_tostring);
  new_type(L, MUTEX_TYPE, mutex_methods, mutex_unlock, mutex_tostring);
  new_type(L, CONDITION_TYPE, condition_methods, NULL, condition_tostring);
  new_type(L, GROUP_TYPE, group_methods, NULL, group_tostring);
  lua_newtable(L);
  channel_register(L, core);
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, functions, 1);
  lua_setfield(L, -2, "sync");
}
