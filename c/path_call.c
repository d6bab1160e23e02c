/* System calls on paths. */
#include "path_call.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "errors.h"
#include "worker.h"

struct path_call {
  struct job job;
  int (*make)(struct path_call *c); /* in the thread: a result or -1 */
  int result;
  int fd; /* of its own, or -1 */
  bool nofollow;
  uint32_t number, other;
  struct timespec times[2];
  struct statvfs vfs;
  char *list; /* of names, with a zero behind each; its size is the result */
  char *name;
  char path[];
};

/*
** In the thread
*/

static void call_run(struct job *job)
{
  struct path_call *c = (struct path_call *)job;
  c->result = c->make(c);
  if (c->result < 0)
    job->error = errno;
}

static void call_release(struct job *job)
{
  struct path_call *c = (struct path_call *)job;
  if (c->fd >= 0)
    close(c->fd);
  free(c->list);
  free(c->name);
}

static int at_flags(const struct path_call *c)
{
  return c->nofollow ? AT_SYMLINK_NOFOLLOW : 0;
}

static int make_chmod(struct path_call *c)
{
  return fchmodat(AT_FDCWD, c->path, c->number, at_flags(c));
}

static int make_chown(struct path_call *c)
{
  return fchownat(AT_FDCWD, c->path, c->number, c->other, at_flags(c));
}

static int make_utime(struct path_call *c)
{
  return utimensat(AT_FDCWD, c->path, c->times, at_flags(c));
}

static ssize_t list_into(const struct path_call *c, char *list, size_t size)
{
  return c->nofollow ? llistxattr(c->path, list, size)
                     : listxattr(c->path, list, size);
}

/* It may grow between asking for its size and asking for it. */
static int make_listxattr(struct path_call *c)
{
  for (;;) {
    ssize_t n = list_into(c, NULL, 0);
    if (n < 0)
      return -1;
    free(c->list);
    c->list = malloc((size_t)n + 1);
    if (c->list == NULL) {
      errno = ENOMEM;
      return -1;
    }
    n = list_into(c, c->list, (size_t)n);
    if (n >= 0 || errno != ERANGE)
      return (int)n;
  }
}

static int make_readlink(struct path_call *c)
{
  c->list = malloc(PATH_MAX);
  if (c->list == NULL)
    return -1;
  return (int)readlink(c->path, c->list, PATH_MAX);
}

static int make_realpath(struct path_call *c)
{
  c->list = realpath(c->path, NULL);
  return c->list != NULL ? (int)strlen(c->list) : -1;
}

static int make_removexattr(struct path_call *c)
{
  return c->nofollow ? lremovexattr(c->path, c->name)
                     : removexattr(c->path, c->name);
}

static int make_statvfs(struct path_call *c)
{
  return statvfs(c->path, &c->vfs);
}

static int make_watch(struct path_call *c)
{
  return inotify_add_watch(c->fd, c->path, c->number);
}

/*
** For Lua.  The path is the first argument.
*/

static struct path_call *new_call(lua_State *L, struct core *core,
                                  int (*make)(struct path_call *c))
{
  size_t len;
  const char *path = luaL_checklstring(L, 1, &len);
  struct path_call *c =
      (struct path_call *)worker_new_job(L, core, sizeof *c + len + 1);
  memcpy(c->path, path, len + 1);
  c->fd = -1;
  c->make = make;
  c->job.run = call_run;
  c->job.release = call_release;
  c->job.finishes = true;
  return c;
}

/* true | nil, message, errno */
static int deliver_done(lua_State *L, struct job *job)
{
  const struct path_call *c = (const struct path_call *)job;
  if (job->error != 0)
    return push_failure(L, c->path, job->error);
  lua_pushboolean(L, 1);
  return 1;
}

static int deliver_result(lua_State *L, struct job *job)
{
  const struct path_call *c = (const struct path_call *)job;
  if (job->error != 0)
    return push_failure(L, c->path, job->error);
  lua_pushinteger(L, c->result);
  return 1;
}

/* chmod(path, mode [, nofollow]) */
static int path_chmod(lua_State *L)
{
  struct core *core = core_upvalue(L);
  lua_Integer mode = luaL_checkinteger(L, 2);
  bool nofollow = lua_toboolean(L, 3);
  struct path_call *c;
  luaL_argcheck(L, mode >= 0 && mode <= 07777, 2, "no mode");
  c = new_call(L, core, make_chmod);
  c->number = (uint32_t)mode;
  c->nofollow = nofollow;
  return worker_await(L, core, deliver_done);
}

/* -1: as it is */
static uint32_t check_id(lua_State *L, int arg)
{
  lua_Integer id = luaL_optinteger(L, arg, -1);
  luaL_argcheck(L, id >= -1 && id < UINT32_MAX, arg, "out of range");
  return (uint32_t)id;
}

/* chown(path, uid | nil, gid | nil [, nofollow]) */
static int path_chown(lua_State *L)
{
  struct core *core = core_upvalue(L);
  uint32_t uid = check_id(L, 2), gid = check_id(L, 3);
  bool nofollow = lua_toboolean(L, 4);
  struct path_call *c = new_call(L, core, make_chown);
  c->number = uid;
  c->other = gid;
  c->nofollow = nofollow;
  return worker_await(L, core, deliver_done);
}

/* Seconds since the epoch; nil: as it is; true: now */
static struct timespec check_time(lua_State *L, int arg)
{
  struct timespec t = {0, UTIME_OMIT};
  lua_Number seconds, whole;
  if (lua_isnoneornil(L, arg))
    return t;
  t.tv_nsec = UTIME_NOW;
  if (lua_isboolean(L, arg) && lua_toboolean(L, arg))
    return t;
  seconds = luaL_checknumber(L, arg);
  whole = floor(seconds);
  luaL_argcheck(L, whole >= -9e15 && whole <= 9e15, arg, "out of range");
  t.tv_sec = (time_t)whole;
  t.tv_nsec = (long)((seconds - whole) * 1e9);
  return t;
}

/* utime(path, atime, mtime [, nofollow]) */
static int path_utime(lua_State *L)
{
  struct core *core = core_upvalue(L);
  struct timespec atime = check_time(L, 2), mtime = check_time(L, 3);
  bool nofollow = lua_toboolean(L, 4);
  struct path_call *c = new_call(L, core, make_utime);
  c->times[0] = atime;
  c->times[1] = mtime;
  c->nofollow = nofollow;
  return worker_await(L, core, deliver_done);
}

/* a list of names | nil, message, errno */
static int deliver_list(lua_State *L, struct job *job)
{
  const struct path_call *c = (const struct path_call *)job;
  lua_Integer i = 0;
  if (job->error != 0)
    return push_failure(L, c->path, job->error);
  lua_newtable(L);
  for (int at = 0; at < c->result; at += (int)strlen(c->list + at) + 1) {
    lua_pushstring(L, c->list + at);
    lua_rawseti(L, -2, ++i);
  }
  return 1;
}

/* a string | nil, message, errno */
static int deliver_string(lua_State *L, struct job *job)
{
  const struct path_call *c = (const struct path_call *)job;
  if (job->error != 0)
    return push_failure(L, c->path, job->error);
  lua_pushlstring(L, c->list, (size_t)c->result);
  return 1;
}

/* readlink(path) */
static int path_readlink(lua_State *L)
{
  struct core *core = core_upvalue(L);
  new_call(L, core, make_readlink)->job.finishes = false;
  return worker_await(L, core, deliver_string);
}

/* realpath(path) */
static int path_realpath(lua_State *L)
{
  struct core *core = core_upvalue(L);
  new_call(L, core, make_realpath)->job.finishes = false;
  return worker_await(L, core, deliver_string);
}

/* listxattr(path [, nofollow]) */
static int path_listxattr(lua_State *L)
{
  struct core *core = core_upvalue(L);
  bool nofollow = lua_toboolean(L, 2);
  struct path_call *c = new_call(L, core, make_listxattr);
  c->nofollow = nofollow;
  c->job.finishes = false;
  return worker_await(L, core, deliver_list);
}

/* removexattr(path, name [, nofollow]) */
static int path_removexattr(lua_State *L)
{
  struct core *core = core_upvalue(L);
  const char *name = luaL_checkstring(L, 2);
  bool nofollow = lua_toboolean(L, 3);
  struct path_call *c = new_call(L, core, make_removexattr);
  c->nofollow = nofollow;
  c->name = strdup(name);
  if (c->name == NULL)
    return luaL_error(L, "not enough memory");
  return worker_await(L, core, deliver_done);
}

static void set_number(lua_State *L, const char *name, uint64_t n)
{
  lua_pushinteger(L, (lua_Integer)n);
  lua_setfield(L, -2, name);
}

static int deliver_statvfs(lua_State *L, struct job *job)
{
  const struct path_call *c = (const struct path_call *)job;
  const struct statvfs *v = &c->vfs;
  if (job->error != 0)
    return push_failure(L, c->path, job->error);
  lua_createtable(L, 0, 7);
  set_number(L, "size", (uint64_t)v->f_blocks * v->f_frsize);
  set_number(L, "free", (uint64_t)v->f_bfree * v->f_frsize);
  set_number(L, "available", (uint64_t)v->f_bavail * v->f_frsize);
  set_number(L, "files", v->f_files);
  set_number(L, "files_free", v->f_ffree);
  set_number(L, "block_size", v->f_bsize);
  set_number(L, "name_max", v->f_namemax);
  return 1;
}

/* statvfs(path) */
static int path_statvfs(lua_State *L)
{
  struct core *core = core_upvalue(L);
  new_call(L, core, make_statvfs)->job.finishes = false;
  return worker_await(L, core, deliver_statvfs);
}

/* watch(path, inotify's fd, mask) -> watch descriptor */
static int path_watch(lua_State *L)
{
  struct core *core = core_upvalue(L);
  int fd = (int)luaL_checkinteger(L, 2);
  uint32_t mask = (uint32_t)luaL_checkinteger(L, 3);
  struct path_call *c = new_call(L, core, make_watch);
  c->number = mask;
  c->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* nobody closes it meanwhile */
  if (c->fd < 0)
    return push_failure(L, c->path, errno);
  return worker_await(L, core, deliver_result);
}

/* unwatch(fd, watch descriptor) */
static int path_unwatch(lua_State *L)
{
  inotify_rm_watch((int)luaL_checkinteger(L, 1), (int)luaL_checkinteger(L, 2));
  return 0;
}

/* inotify() -> descriptor | nil, message, errno */
static int path_inotify(lua_State *L)
{
  int fd = inotify_init1(IN_CLOEXEC);
  if (fd < 0)
    return push_failure(L, "inotify", errno);
  lua_pushinteger(L, fd);
  return 1;
}

/* random_name() -> 12 letters and digits that nobody can guess */
static int path_random_name(lua_State *L)
{
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";
  char name[12];
  if (getrandom(name, sizeof name, 0) != (ssize_t)sizeof name)
    return luaL_error(L, "getrandom: %s", strerror(errno));
  for (size_t i = 0; i < sizeof name; i++)
    name[i] = letters[name[i] & 31];
  lua_pushlstring(L, name, sizeof name);
  return 1;
}

static const luaL_Reg functions[] = {
    {"chmod", path_chmod},
    {"chown", path_chown},
    {"utime", path_utime},
    {"readlink", path_readlink},
    {"realpath", path_realpath},
    {"listxattr", path_listxattr},
    {"removexattr", path_removexattr},
    {"statvfs", path_statvfs},
    {"watch", path_watch},
    {"unwatch", path_unwatch},
    {"inotify", path_inotify},
    {"random_name", path_random_name},
    {NULL, NULL},
};

void path_call_register(lua_State *L, struct core *core)
{
  luaL_newlibtable(L, functions);
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, functions, 1);
  lua_setfield(L, -2, "path");
}
