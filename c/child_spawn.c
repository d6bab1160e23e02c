/* Starting programs, by posix_spawn.
**
** The C library sees to what is delicate between the parent's memory and
** exec: the child borrows it (as with vfork, so the size of this process does
** not matter), all signals are blocked meanwhile, no handler of ours runs
** there, and other threads of the process are in nobody's way.  An error of
** exec comes back from the call itself.
**
** Everything is read and checked before, so that between the first
** descriptor and the last nothing can raise.
*/
#include "child_spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <unistd.h>

#include "child.h"
#include "errors.h"
#include "timer.h"

extern char **environ;

#define MAX_FDS 256 /* descriptors of the child are 0 to 255 */

struct spawning {
  char *const *argv;
  char *const *envp;
  const char *cwd;      /* NULL: this process's */
  int sources[MAX_FDS]; /* what becomes the child's descriptor i; -1: nothing
                         */
  int copies[MAX_FDS];  /* of those, out of the way of all targets; or -1 */
  int top;              /* the highest of its descriptors */
  int dir;              /* cwd, opened; -1 */
  bool session, grouped;
  pid_t group;      /* 0: its own */
  char subject[32]; /* what has failed, where it is a descriptor */
};

/*
** Descriptors
*/

static int open_dir(struct spawning *s)
{
  if (s->cwd == NULL)
    return 0;
  s->dir = open(s->cwd, O_PATH | O_DIRECTORY | O_CLOEXEC);
  return s->dir < 0 ? errno : 0;
}

static int bad_source(struct spawning *s, int source)
{
  int err = errno;
  (void)snprintf(s->subject, sizeof s->subject, "fd %d", source);
  return err;
}

/* Copies what must move, above all targets, so that no dup2 of the child hits
** what a later one is to copy.  0 or errno. */
static int copy_sources(struct spawning *s)
{
  for (int i = 0; i <= s->top; i++) {
    int source = s->sources[i];
    if (source == i && fcntl(source, F_GETFD) < 0)
      return bad_source(s, source);
    if (source < 0 || source == i)
      continue;
    s->copies[i] = fcntl(source, F_DUPFD_CLOEXEC, s->top + 1);
    if (s->copies[i] < 0)
      return bad_source(s, source);
  }
  return 0;
}

static void close_all(struct spawning *s)
{
  for (int i = 0; i <= s->top; i++)
    if (s->copies[i] >= 0)
      close(s->copies[i]);
  if (s->dir >= 0)
    close(s->dir);
}

/*
** posix_spawn
*/

/* What the child does with its descriptors.  The directory comes first: the
** others may take its number.  0 or errno. */
static int add_actions(const struct spawning *s,
                       posix_spawn_file_actions_t *actions)
{
  int err = 0;
  if (s->dir >= 0)
    err = posix_spawn_file_actions_addfchdir_np(actions, s->dir);
  for (int i = 0; i <= s->top && err == 0; i++) {
    if (s->sources[i] < 0)
      err = posix_spawn_file_actions_addclose(actions, i);
    else /* onto itself, it only ceases to be closed by exec */
      err = posix_spawn_file_actions_adddup2(
          actions, s->copies[i] >= 0 ? s->copies[i] : i, i);
  }
  if (err == 0)
    err = posix_spawn_file_actions_addclosefrom_np(actions, s->top + 1);
  return err;
}

/* No signal is blocked in the child, and SIGPIPE is what it is by default:
** many a program that has a ring ignores it.  What else is ignored stays so,
** as with nohup; handlers do not survive exec. */
static void set_attributes(const struct spawning *s, posix_spawnattr_t *attr)
{
  short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
  sigset_t set;
  sigemptyset(&set);
  posix_spawnattr_setsigmask(attr, &set);
  sigaddset(&set, SIGPIPE);
  posix_spawnattr_setsigdefault(attr, &set);
  if (s->session)
    flags |= POSIX_SPAWN_SETSID;
  if (s->grouped) {
    flags |= POSIX_SPAWN_SETPGROUP;
    posix_spawnattr_setpgroup(attr, s->group);
  }
  posix_spawnattr_setflags(attr, flags);
}

/* 0 or errno */
static int start(const struct spawning *s, pid_t *pid)
{
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attr;
  int err = posix_spawn_file_actions_init(&actions);
  if (err != 0)
    return err;
  err = posix_spawnattr_init(&attr);
  if (err == 0) {
    err = add_actions(s, &actions);
    if (err == 0) {
      set_attributes(s, &attr);
      err = posix_spawnp(pid, s->argv[0], &actions, &attr, s->argv, s->envp);
    }
    posix_spawnattr_destroy(&attr);
  }
  posix_spawn_file_actions_destroy(&actions);
  return err;
}

/* The pidfd comes last, when there is room again where the copies were. */
static int spawn(struct spawning *s, struct child *c, const char **subject)
{
  pid_t pid;
  int err = open_dir(s);
  *subject = s->cwd;
  if (err == 0) {
    *subject = s->subject;
    err = copy_sources(s);
  }
  if (err == 0) {
    *subject = s->argv[0];
    err = start(s, &pid);
  }
  close_all(s);
  return err != 0 ? err : child_started(c, pid);
}

/*
** Arguments
*/

/* Pushes an array of the strings of the table at `arg`, which keeps them. */
static char *const *push_strings(lua_State *L, int arg)
{
  size_t n = lua_rawlen(L, arg);
  const char **strings = lua_newuserdatauv(L, (n + 1) * sizeof *strings, 0);
  for (size_t i = 0; i < n; i++) {
    luaL_argcheck(L, lua_rawgeti(L, arg, (lua_Integer)i + 1) == LUA_TSTRING,
                  arg, "strings expected");
    strings[i] = lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  strings[n] = NULL;
  return (char *const *)strings;
}

static void read_fds(lua_State *L, int arg, struct spawning *s)
{
  luaL_checktype(L, arg, LUA_TTABLE);
  for (int i = 0; i < MAX_FDS; i++) {
    s->copies[i] = -1;
    lua_rawgeti(L, arg, i);
    s->sources[i] = lua_isnil(L, -1) ? -1 : (int)lua_tointeger(L, -1);
    if (s->sources[i] >= 0)
      s->top = i;
    lua_pop(L, 1);
  }
}

/* The place where programs are looked up in the directory; search permission
** is asked for here, where an error can only be the directory's. */
static void read_cwd(lua_State *L, int arg, struct spawning *s)
{
  size_t length;
  s->dir = -1;
  s->cwd = luaL_optlstring(L, arg, NULL, &length);
  if (s->cwd != NULL && length > 0)
    s->cwd = lua_pushfstring(L, "%s/.", s->cwd);
}

/* spawn(arguments, environment | nil, cwd | nil, { [target] = source }, group
** | nil, session, grace) -> Child | nil, message, errno.  group 0: one of its
** own. */
static int spawn_lua(lua_State *L)
{
  struct core *core = core_upvalue(L);
  struct spawning s = {.top = -1};
  struct child *c;
  const char *subject;
  int err;
  lua_settop(L, 7);
  core_enter(L, core);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_argcheck(L, lua_rawlen(L, 1) > 0, 1, "there is no command");
  s.argv = push_strings(L, 1);
  s.envp = lua_isnil(L, 2) ? environ : push_strings(L, 2);
  read_cwd(L, 3, &s);
  read_fds(L, 4, &s);
  s.grouped = !lua_isnil(L, 5);
  s.group = (pid_t)lua_tointeger(L, 5);
  s.session = lua_toboolean(L, 6);
  c = child_push(L, core);
  c->grace_ns = seconds_to_ns(luaL_checknumber(L, 7));
  c->leads = s.session || (s.grouped && s.group == 0);
  err = spawn(&s, c, &subject);
  if (err == 0)
    return 1;
  if (subject == s.cwd)
    subject = lua_tostring(L, 3);
  return push_failure(L, subject, err);
}

/* is_open(fd) -> boolean */
static int is_open_lua(lua_State *L)
{
  lua_pushboolean(L, fcntl((int)luaL_checkinteger(L, 1), F_GETFD) >= 0);
  return 1;
}

/* environment() -> this process's, { "NAME=value", … } */
static int environment_lua(lua_State *L)
{
  lua_newtable(L);
  for (int i = 0; environ != NULL && environ[i] != NULL; i++) {
    lua_pushstring(L, environ[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

void child_spawn_register(lua_State *L, struct core *core)
{
  lua_pushlightuserdata(L, core);
  lua_pushcclosure(L, spawn_lua, 1);
  lua_setfield(L, -2, "spawn");
  lua_pushcfunction(L, is_open_lua);
  lua_setfield(L, -2, "is_open");
  lua_pushcfunction(L, environment_lua);
  lua_setfield(L, -2, "environment");
}
