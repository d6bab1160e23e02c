/* Signals.
**
** The table of watches is the process's, not a Lua state's: there is one
** disposition a signal.  The first watch of a signal installs the handler and
** notes what was there before; the last puts that back, unless somebody else
** has installed something meanwhile.
**
** The handler runs at any moment on any thread.  It reads the table, which
** consists of atomics, and writes to pipes.  Whoever changes the table
** holds the lock, which the handler does not know of; whoever takes a watch
** out waits until no handler runs that may still write to its pipe.
**
** A child of fork has the handler and the pipes of its parent.  It writes
** nothing to them: the handler puts back what was there before, and the
** signal strikes again.  The first use of the table in the child clears it.
*/
#include "signals.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "errors.h"
#include "mapped.h"

#define WATCH_TYPE "uring.signal_watch"

#define MAX_WATCHES 64
#define MAX_SIGNAL  64

static struct {
  _Atomic uint64_t mask; /* bit n - 1: it watches signal n; 0: no watch */
  atomic_int fd;         /* where the numbers of the signals go */
} watches[MAX_WATCHES];

static struct sigaction former[MAX_SIGNAL + 1];
static bool taken[MAX_SIGNAL + 1]; /* the handler has been installed */
static atomic_int handling;        /* handlers that run now */
static atomic_int owner;           /* the process whose table this is */
static atomic_int lock;            /* the process that holds it; 0: nobody */

struct watch {
  int slot; /* in the table; -1: closed */
  int read_fd, write_fd;
  pid_t pid;
};

static uint64_t bit(int signal)
{
  return (uint64_t)1 << (signal - 1);
}

/*
** Handlers
*/

static void on_signal(int signal)
{
  int err = errno;
  unsigned char byte = (unsigned char)signal;
  if (getpid() != atomic_load(&owner)) {
    sigaction(signal, &former[signal], NULL);
    raise(signal);
    errno = err;
    return;
  }
  atomic_fetch_add(&handling, 1);
  for (int i = 0; i < MAX_WATCHES; i++) {
    /* a pipe that is full has 65536 signals in it that nobody takes */
    if (atomic_load(&watches[i].mask) & bit(signal) &&
        write(atomic_load(&watches[i].fd), &byte, 1) < 0)
      continue;
  }
  atomic_fetch_sub(&handling, 1);
  errno = err;
}

static bool is_ours(int signal)
{
  struct sigaction now;
  return sigaction(signal, NULL, &now) == 0 && now.sa_handler == on_signal;
}

/* 0 or errno */
static int install(int signal)
{
  struct sigaction ours;
  if (taken[signal] && is_ours(signal))
    return 0;
  (void)keep_mapped();
  memset(&ours, 0, sizeof ours);
  ours.sa_handler = on_signal;
  ours.sa_flags = SA_RESTART | SA_ONSTACK;
  sigfillset(&ours.sa_mask);
  if (sigaction(signal, NULL, &former[signal]) < 0 ||
      sigaction(signal, &ours, NULL) < 0)
    return errno;
  taken[signal] = true;
  return 0;
}

static void put_back(int signal)
{
  if (taken[signal] && is_ours(signal))
    sigaction(signal, &former[signal], NULL);
  taken[signal] = false;
}

/* A write to a pipe or socket without a reader gives EPIPE and also raises
** SIGPIPE, on the thread that enters the ring; by default that ends the
** process.  Sends are spared by the kernel, writes are not.  So the signal is
** handled, by doing nothing; ignored it would be so in every program that
** this one starts. */
static void on_sigpipe(int signal)
{
  (void)signal;
}

void signals_tame_sigpipe(void)
{
  struct sigaction act;
  if (sigaction(SIGPIPE, NULL, &act) < 0 || act.sa_handler != SIG_DFL)
    return;
  (void)keep_mapped();
  memset(&act, 0, sizeof act);
  act.sa_handler = on_sigpipe;
  act.sa_flags = SA_RESTART | SA_ONSTACK;
  sigaction(SIGPIPE, &act, NULL);
}

/*
** The table
*/

/* In a child of fork: what the table says is the parent's. */
static void forget(void)
{
  for (int i = 0; i < MAX_WATCHES; i++)
    atomic_store(&watches[i].mask, 0);
  for (int n = 1; n <= MAX_SIGNAL; n++)
    put_back(n);
  atomic_store(&handling, 0);
}

static void acquire(void)
{
  int self = (int)getpid();
  int holder = 0;
  while (!atomic_compare_exchange_weak(&lock, &holder, self)) {
    if (holder == self) {
      sched_yield();
      holder = 0;
    } /* else it is free, or another thread of the parent held it at the fork
       */
  }
  if (atomic_load(&owner) != self) {
    if (atomic_load(&owner) != 0)
      forget();
    atomic_store(&owner, self);
  }
}

static void release(void)
{
  atomic_store(&lock, 0);
}

static bool is_watched(int signal)
{
  for (int i = 0; i < MAX_WATCHES; i++)
    if (atomic_load(&watches[i].mask) & bit(signal))
      return true;
  return false;
}

static int free_slot(void)
{
  for (int i = 0; i < MAX_WATCHES; i++)
    if (atomic_load(&watches[i].mask) == 0)
      return i;
  return -1;
}

static void remove_watch(int slot)
{
  uint64_t mask = atomic_exchange(&watches[slot].mask, 0);
  for (int n = 1; n <= MAX_SIGNAL; n++)
    if (mask & bit(n) && !is_watched(n))
      put_back(n);
  while (atomic_load(&handling) > 0)
    sched_yield();
}

/* 0 or errno */
static int add_watch(struct watch *w, uint64_t mask)
{
  int slot = free_slot();
  int err = 0;
  if (slot < 0)
    return EMFILE;
  atomic_store(&watches[slot].fd, w->write_fd);
  atomic_store(&watches[slot].mask, mask);
  for (int n = 1; n <= MAX_SIGNAL && err == 0; n++)
    if (mask & bit(n))
      err = install(n);
  if (err != 0)
    remove_watch(slot);
  else
    w->slot = slot;
  return err;
}

/*
** Watch
*/

/* Only the end that the handler writes to never waits. */
static int open_pipe(struct watch *w)
{
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) < 0)
    return errno;
  w->read_fd = fds[0];
  w->write_fd = fds[1];
  return fcntl(w->write_fd, F_SETFL, O_NONBLOCK) < 0 ? errno : 0;
}

static void watch_close(struct watch *w)
{
  if (w->slot >= 0) {
    acquire();
    if (w->pid == getpid()) /* else that place has been cleared */
      remove_watch(w->slot);
    release();
  }
  w->slot = -1;
  if (w->read_fd >= 0)
    close(w->read_fd);
  if (w->write_fd >= 0)
    close(w->write_fd);
  w->read_fd = w->write_fd = -1;
}

static uint64_t read_mask(lua_State *L, int arg)
{
  uint64_t mask = 0;
  luaL_checktype(L, arg, LUA_TTABLE);
  for (lua_Integer i = 1; lua_rawgeti(L, arg, i) != LUA_TNIL; i++) {
    lua_Integer n = luaL_checkinteger(L, -1);
    luaL_argcheck(L, n >= 1 && n <= MAX_SIGNAL, arg, "signal out of range");
    mask |= bit((int)n);
    lua_pop(L, 1);
  }
  luaL_argcheck(L, mask != 0, arg, "there is no signal in it");
  return mask;
}

/* signal_watch { number, … } -> Watch | nil, message, errno */
static int watch_new(lua_State *L)
{
  uint64_t mask = read_mask(L, 1);
  struct watch *w = lua_newuserdatauv(L, sizeof *w, 0);
  int err;
  w->slot = w->read_fd = w->write_fd = -1;
  w->pid = getpid();
  luaL_setmetatable(L, WATCH_TYPE);
  err = open_pipe(w);
  if (err == 0) {
    acquire();
    err = add_watch(w, mask);
    release();
  }
  if (err == 0)
    return 1;
  watch_close(w);
  return push_failure(L, "signals", err);
}

/* fd() -> where the numbers of signals are read from, a byte each */
static int watch_fd(lua_State *L)
{
  const struct watch *w = luaL_checkudata(L, 1, WATCH_TYPE);
  if (w->pid != getpid())
    return luaL_error(L, "these signals were watched before the fork: they "
                         "are the parent's");
  lua_pushinteger(L, w->read_fd);
  return 1;
}

/* close(), also __gc: the former dispositions are put back.  Idempotent. */
static int watch_gc(lua_State *L)
{
  watch_close(luaL_checkudata(L, 1, WATCH_TYPE));
  return 0;
}

/*
** Names
*/

static void set_name(lua_State *L, const char *name, int number)
{
  lua_pushinteger(L, number);
  lua_setfield(L, -2, name);
  lua_pushstring(L, name);
  lua_rawseti(L, -2, number);
}

static void push_names(lua_State *L)
{
  lua_newtable(L);
  for (int n = 1; n < SIGRTMIN; n++) {
    const char *name = sigabbrev_np(n);
    if (name != NULL)
      set_name(L, name, n);
  }
  for (int n = SIGRTMIN; n <= SIGRTMAX; n++) {
    char name[16];
    (void)snprintf(name, sizeof name, "RTMIN+%d", n - SIGRTMIN);
    set_name(L, n == SIGRTMIN ? "RTMIN" : n == SIGRTMAX ? "RTMAX" : name, n);
  }
}

void signals_register(lua_State *L)
{
  luaL_newmetatable(L, WATCH_TYPE);
  lua_pushcfunction(L, watch_gc);
  lua_setfield(L, -2, "__gc");
  lua_newtable(L);
  lua_pushcfunction(L, watch_gc);
  lua_setfield(L, -2, "close");
  lua_pushcfunction(L, watch_fd);
  lua_setfield(L, -2, "fd");
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushcfunction(L, watch_new);
  lua_setfield(L, -2, "signal_watch");
  push_names(L);
  lua_setfield(L, -2, "signal_names");
}
