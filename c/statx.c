/* From struct statx to a table. */
#include "statx.h"

#include <lauxlib.h>
#include <sys/stat.h>

static void set_integer(lua_State *L, const char *name, lua_Integer n)
{
  lua_pushinteger(L, n);
  lua_setfield(L, -2, name);
}

static void set_time(lua_State *L, const char *name,
                     const struct statx_timestamp *t)
{
  lua_pushnumber(L, (lua_Number)t->tv_sec + t->tv_nsec / 1e9);
  lua_setfield(L, -2, name);
}

const char *statx_type(unsigned mode)
{
  switch (mode & S_IFMT) {
  case S_IFREG:
    return "file";
  case S_IFDIR:
    return "directory";
  case S_IFLNK:
    return "link";
  case S_IFSOCK:
    return "socket";
  case S_IFIFO:
    return "fifo";
  case S_IFCHR:
    return "char";
  case S_IFBLK:
    return "block";
  default:
    return "unknown";
  }
}

void statx_push(lua_State *L, const struct statx *s)
{
  lua_createtable(L, 0, 18);
  set_integer(L, "mask", s->stx_mask);
  set_integer(L, "blksize", s->stx_blksize);
  set_integer(L, "attributes", s->stx_attributes);
  set_integer(L, "nlink", s->stx_nlink);
  set_integer(L, "uid", s->stx_uid);
  set_integer(L, "gid", s->stx_gid);
  set_integer(L, "mode", s->stx_mode);
  set_integer(L, "ino", s->stx_ino);
  set_integer(L, "size", s->stx_size);
  set_integer(L, "blocks", s->stx_blocks);
  set_time(L, "atime", &s->stx_atime);
  set_time(L, "btime", &s->stx_btime);
  set_time(L, "ctime", &s->stx_ctime);
  set_time(L, "mtime", &s->stx_mtime);
  set_integer(L, "rdev_major", s->stx_rdev_major);
  set_integer(L, "rdev_minor", s->stx_rdev_minor);
  set_integer(L, "dev_major", s->stx_dev_major);
  set_integer(L, "dev_minor", s->stx_dev_minor);
  lua_pushstring(L, statx_type(s->stx_mode));
  lua_setfield(L, -2, "type");
}
