/* The state of the library in one Lua state: its rings, its scheduler, and
** the guard that notices a fork.
**
** One `struct core` exists per lua_State universe.  It is the first object
** with a finaliser that the module creates, so lua_close finalises it last:
** what the rings still have in flight is waited for there.
*/
#ifndef URING_CORE_H
#define URING_CORE_H

#include "compat.h"

#include <lauxlib.h>
#include <lua.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "scheduler.h"

struct child;
struct pool;
struct ring;
struct stream;
struct workers;

struct core {
  lua_State *L;              /* the main thread; lives as long as the core */
  volatile unsigned *epoch;  /* reads as 0 in a child of fork, see core.c */
  unsigned epochs;           /* how many epochs there have been */
  pid_t pid;                 /* the process that the newest epoch began in */
  struct ring *rings;        /* every ring not yet freed */
  uint32_t opened;           /* rings so far */
  unsigned starving;         /* operations that wait for a pool's buffer */
  uint64_t collect_at;       /* when garbage may next be collected for them */
  unsigned lingering;        /* rings that were dropped and are not quiet */
  struct child *children;    /* processes that no object has any more */
  uint64_t children_at_ns;   /* when they are looked after next */
  struct ring *home;         /* the default ring: the one that runs tasks */
  const void *buffer_meta;   /* identity of the metatable of Buffers */
  const void *pool_meta;     /* and of Pools */
  struct pool *stream_pool;  /* of all streams, or NULL; see stream_io.c */
  bool no_stream_pool;       /* this kernel has none */
  struct stream **unwritten; /* those with an output, see unwritten.h, */
  unsigned unwritten_count;  /* which are so many, */
  unsigned unwritten_room;   /* of at most so many */
  struct core *next;         /* of the process */
  pthread_t thread;          /* which has made it */
  const void *options_meta;  /* and of Options */
  const void *options_last;  /* the newest Options; NULL once collected */
  int home_ref;              /* its userdata, in the registry */
  int tasks_ref;             /* table index -> task, of those not ended */
  int task_meta_ref;         /* the metatable of tasks */
  int stream_meta_ref;       /* and of streams */
  int breathe_ref;           /* an empty function, see core_breathe */
  struct workers *workers;   /* threads for jobs, NULL: none yet */
  bool has_locals;           /* uring.locals has been written to */
  bool locals_shared;        /* the main chunk's, see locals.c */
  bool closed;               /* lua_close has come by */
  struct sched sched;
};

/* The core of a function registered with it as its first upvalue. */
static inline struct core *core_upvalue(lua_State *L)
{
  return lua_touserdata(L, lua_upvalueindex(1));
}

/* The userdata at index 1, if its metatable is the one whose address is the
** first upvalue of the running function, as a light userdata; else NULL.
** Methods find their object by it: looking a type's name up costs more than
** many of them do. */
static inline void *core_self(lua_State *L)
{
  void *self = lua_touserdata(L, 1);
  const void *meta;
  if (self == NULL || !lua_getmetatable(L, 1))
    return NULL;
  meta = lua_topointer(L, -1);
  lua_pop(L, 1);
  return meta == lua_touserdata(L, lua_upvalueindex(1)) ? self : NULL;
}

/* As luaL_setfuncs, into the table on the top, with the address of the
** metatable at `meta` for core_self. */
void core_set_methods(lua_State *L, const luaL_Reg *methods, int meta);

/* The core of a Lua state, by way of the registry. */
struct core *core_of(lua_State *L);

/* Raises in a closed state and starts a new epoch after a fork. */
void core_enter(lua_State *L, struct core *core);

/* Where there is a debug hook, as a signal handler sets one (Ctrl-C in the
** stock interpreter), runs an empty Lua function for it to strike in.  May
** raise whatever the hook raises: call it only where that loses nothing. */
void core_breathe(lua_State *L, struct core *core);

/* The default ring, created at first use.  Raises where it cannot be. */
struct ring *core_home(lua_State *L, struct core *core);

/*
** Memory.  All of it comes from the Lua state's allocator: a host's limit
** counts what is lent to the kernel too, and a failing allocator is one test.
*/

static inline void *mem_realloc(struct core *core, void *p, size_t old,
                                size_t size)
{
  void *ud;
  lua_Alloc alloc = lua_getallocf(core->L, &ud);
  return alloc(ud, p, old, size);
}

static inline void *mem_alloc(struct core *core, size_t size)
{
  return mem_realloc(core, NULL, 0, size);
}

static inline void mem_free(struct core *core, void *p, size_t size)
{
  if (p != NULL)
    mem_realloc(core, p, size, 0);
}

#endif
