/* Child processes: how they are, signals for them, and their end. */
#include "child.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "timer.h"

#define CHILD_TYPE "uring.child"

/* idtype_t of waitid(2), which older headers do not have. */
#define URING_P_PIDFD ((idtype_t)3)

/* How often those without an object are looked after while they end, and if
** they are detached. */
#define TEND_NS          20000000u
#define TEND_DETACHED_NS 1000000000u

/* How long a child that was killed is waited for at the end of the state.
** One that sleeps in the kernel, on a dead network file system say, does not
** die before that lets it go. */
#define KILLED_NS 1000000000u

static bool is_foreign(const struct child *c)
{
  return c->epoch != *c->core->epoch;
}

static void child_free(struct child *c)
{
  if (c->pidfd >= 0)
    close(c->pidfd);
  mem_free(c->core, c, sizeof *c);
}

/*
** What the system knows of it
*/

static void close_pidfd(struct child *c)
{
  if (c->pidfd >= 0)
    close(c->pidfd);
  c->pidfd = -1;
}

/* Has it ended?  If so and `take`, its record is taken, and its pid is free
** for others.  There may be no record (ECHILD): where SIGCHLD is ignored there
** is none, and a program that waits for just any child may have taken it. */
static bool look(struct child *c, bool take)
{
  siginfo_t info;
  int rc;
  if (c->taken || (c->ended && !take))
    return true;
  info.si_pid = 0;
  do
    rc = waitid(URING_P_PIDFD, (id_t)c->pidfd, &info,
                WEXITED | WNOHANG | (take ? 0 : WNOWAIT));
  while (rc < 0 && errno == EINTR);
  if (rc == 0 && info.si_pid == 0)
    return false;
  c->ended = true;
  c->taken = take || rc < 0;
  if (rc == 0) {
    c->code = info.si_code;
    c->status = info.si_status;
  }
  return true;
}

/* Waits until it has ended, or the clock has reached the deadline.  Its record
** stays, and with it its pid. */
static bool await_end(const struct child *c, uint64_t deadline_ns)
{
  struct pollfd p = {.fd = c->pidfd, .events = POLLIN};
  for (;;) {
    uint64_t now = now_ns();
    uint64_t left_ms =
        deadline_ns > now ? (deadline_ns - now + 999999u) / 1000000u : 0;
    int rc = poll(&p, 1, left_ms < INT_MAX ? (int)left_ms : INT_MAX);
    if (rc > 0)
      return true;
    if (rc == 0 && left_ms < INT_MAX)
      return false;
  }
}

/* Is it stopped, by SIGSTOP or its terminal? */
static bool is_stopped(const struct child *c)
{
  siginfo_t info;
  info.si_pid = 0;
  return waitid(URING_P_PIDFD, (id_t)c->pidfd, &info,
                WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid != 0;
}

/* Signals it, or its group, whose number is its pid and as long its own.  0 or
** errno. */
static int send_signal(struct child *c, int signal, bool group)
{
  long rc;
  look(c, false);
  if (c->taken)
    return ESRCH;
  if (group)
    rc = kill(-c->pid, signal);
  else
    rc = syscall(SYS_pidfd_send_signal, c->pidfd, signal, NULL, 0u);
  return rc < 0 ? errno : 0;
}

/* Asks it to end; one that is stopped goes on for it. */
static void terminate(struct child *c)
{
  send_signal(c, SIGTERM, c->leads);
  send_signal(c, SIGCONT, c->leads);
}

/*
** Without an object
*/

/* Takes the record of one that has ended, and what is left of its group with
** it. */
static void take(struct child *c)
{
  if (c->leads && !c->detached)
    send_signal(c, SIGKILL, true);
  look(c, true);
}

/* Is there nothing more to be done about it? */
static bool tend(struct child *c, uint64_t now)
{
  if (is_foreign(c))
    return true;
  if (await_end(c, 0)) {
    take(c);
    if (c->taken)
      return true;
  }
  if (!c->detached && now >= c->kill_at_ns)
    send_signal(c, SIGKILL, c->leads);
  return false;
}

uint64_t children_tend(struct core *core)
{
  struct child **place = &core->children;
  uint64_t now;
  if (core->children == NULL)
    return UINT64_MAX;
  now = now_ns();
  if (now < core->children_at_ns)
    return core->children_at_ns;
  core->children_at_ns = UINT64_MAX;
  while (*place != NULL) {
    struct child *c = *place;
    uint64_t next = now + (c->detached ? TEND_DETACHED_NS : TEND_NS);
    if (tend(c, now)) {
      *place = c->next;
      child_free(c);
    } else {
      place = &c->next;
      if (next < core->children_at_ns)
        core->children_at_ns = next;
    }
  }
  return core->children_at_ns;
}

static void let_live(struct child *c)
{
  c->next = c->core->children;
  c->core->children = c;
  c->core->children_at_ns = 0;
}

/* Ends it, and waits for that. */
static void end(struct child *c)
{
  if (is_foreign(c) || c->detached) {
    tend(c, 0);
    return;
  }
  if (!await_end(c, c->kill_at_ns)) {
    send_signal(c, SIGKILL, c->leads);
    await_end(c, now_ns() + KILLED_NS);
  }
  take(c);
}

void children_end(struct core *core)
{
  while (core->children != NULL) {
    struct child *c = core->children;
    core->children = c->next;
    end(c);
    child_free(c);
  }
}

/*
** Child
*/

struct child *child_push(lua_State *L, struct core *core)
{
  struct child **box = lua_newuserdatauv(L, sizeof *box, 0);
  struct child *c;
  *box = NULL;
  luaL_setmetatable(L, CHILD_TYPE);
  c = mem_alloc(core, sizeof *c);
  if (c == NULL)
    luaL_error(L, "not enough memory");
  memset(c, 0, sizeof *c);
  c->core = core;
  c->epoch = *core->epoch;
  c->pidfd = -1;
  *box = c;
  return c;
}

int child_started(struct child *c, pid_t pid)
{
  int err;
  c->pid = pid;
  c->pidfd = (int)syscall(SYS_pidfd_open, pid, 0u);
  if (c->pidfd >= 0)
    return 0;
  err = errno;
  c->ended = c->taken = true;
  if (err == ESRCH) /* it has ended, and SIGCHLD is ignored */
    return 0;
  kill(pid, SIGKILL);
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
    ;
  return err;
}

/* The child; it has been started. */
static struct child *tochild(lua_State *L)
{
  struct child **box = luaL_checkudata(L, 1, CHILD_TYPE);
  if (*box == NULL)
    luaL_error(L, "attempt to use a detached process");
  return *box;
}

/* The child, which is ours. */
static struct child *toown(lua_State *L)
{
  struct child *c = tochild(L);
  core_enter(L, c->core);
  if (is_foreign(c))
    luaL_error(L, "this process was spawned before the fork: it is the "
                  "parent's");
  return c;
}

static int child_pid(lua_State *L)
{
  lua_pushinteger(L, tochild(L)->pid);
  return 1;
}

/* fd() -> its pidfd; nil: it is closed */
static int child_fd(lua_State *L)
{
  const struct child *c = tochild(L);
  if (c->pidfd < 0)
    lua_pushnil(L);
  else
    lua_pushinteger(L, c->pidfd);
  return 1;
}

/* state(take) -> "running" | "stopped" | "exit", status | "signal", signal |
** "lost": it has ended, and how is not known.  With `take` its record is taken
** where it has ended. */
static int child_state(lua_State *L)
{
  struct child *c = toown(L);
  if (!look(c, lua_toboolean(L, 2))) {
    lua_pushstring(L, is_stopped(c) ? "stopped" : "running");
    return 1;
  }
  if (c->code == 0) {
    lua_pushliteral(L, "lost");
    return 1;
  }
  lua_pushstring(L, c->code == CLD_EXITED ? "exit" : "signal");
  lua_pushinteger(L, c->status);
  return 2;
}

/* close(): of one whose record is taken, the pidfd */
static int child_close(lua_State *L)
{
  struct child *c = toown(L);
  if (c->taken)
    close_pidfd(c);
  return 0;
}

/* kill(signal, group) -> 0 or errno */
static int child_kill(lua_State *L)
{
  struct child *c = toown(L);
  lua_pushinteger(L, send_signal(c, (int)luaL_checkinteger(L, 2),
                                 c->leads && lua_toboolean(L, 3)));
  return 1;
}

/* terminate(): asks it, or its group, to end */
static int child_terminate(lua_State *L)
{
  terminate(toown(L));
  return 0;
}

/* detach(): from now on the turns look after it */
static int child_detach(lua_State *L)
{
  struct child *c = toown(L);
  *(struct child **)lua_touserdata(L, 1) = NULL;
  c->detached = true;
  if (c->taken)
    child_free(c);
  else
    let_live(c);
  return 0;
}

/* linger(): collected, it is left to end by itself; the end of the Lua state
** waits for that */
static int child_linger(lua_State *L)
{
  toown(L)->lingers = true;
  return 0;
}

static int child_gc(lua_State *L)
{
  struct child **box = luaL_checkudata(L, 1, CHILD_TYPE);
  struct child *c = *box;
  *box = NULL;
  if (c == NULL)
    return 0;
  if (c->pid == 0 || is_foreign(c) || c->taken) {
    child_free(c);
    return 0;
  }
  c->kill_at_ns = UINT64_MAX;
  if (!c->lingers) {
    c->kill_at_ns = now_ns() + c->grace_ns;
    if (c->grace_ns > 0)
      terminate(c);
  }
  let_live(c);
  return 0;
}

static const luaL_Reg methods[] = {
    {"pid", child_pid},
    {"fd", child_fd},
    {"state", child_state},
    {"close", child_close},
    {"kill", child_kill},
    {"terminate", child_terminate},
    {"detach", child_detach},
    {"linger", child_linger},
    {NULL, NULL},
};

void child_register(lua_State *L)
{
  luaL_newmetatable(L, CHILD_TYPE);
  lua_pushcfunction(L, child_gc);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
