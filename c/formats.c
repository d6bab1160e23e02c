/* Formats of `read`, as liolib.c has them. */
#include "formats.h"

#include <ctype.h>
#include <lauxlib.h>
#include <string.h>

#include "numeral.h"

/* How much to ask for where there is no telling. */
#define MUCH ((size_t)1 << 16)

/* All that is ahead is the result. */
static enum found the_rest(struct input *in, struct piece *piece)
{
  piece->from = in->cursor;
  piece->size = input_ahead(in);
  in->cursor = in->scanned = in->last;
  return FOUND;
}

static enum found up_to(struct input *in, size_t end, struct piece *piece)
{
  piece->from = in->cursor;
  piece->size = end - in->cursor;
  in->cursor = in->scanned = end;
  return FOUND;
}

static enum found find_line(struct input *in, size_t most, bool keep,
                            struct piece *piece)
{
  const unsigned char *newline = NULL;
  if (in->scanned < in->last)
    newline = memchr(input_at(in, in->scanned), '\n', in->last - in->scanned);
  if (newline != NULL) {
    size_t end = (size_t)(newline - in->block->data);
    if (end - in->cursor > most)
      return TOO_LONG;
    up_to(in, end + 1, piece);
    piece->size -= !keep;
    return FOUND;
  }
  if (input_ahead(in) > most)
    return TOO_LONG;
  if (in->ended)
    return input_ahead(in) > 0 ? the_rest(in, piece) : ABSENT;
  in->scanned = in->last;
  return WANTS;
}

static enum found find_all(struct input *in, size_t most, struct piece *piece)
{
  piece->all = true;
  if (input_ahead(in) > most)
    return TOO_LONG;
  if (in->ended)
    return the_rest(in, piece);
  piece->wants = MUCH;
  return WANTS;
}

static enum found find_bytes(struct input *in, size_t n, struct piece *piece)
{
  size_t ahead = input_ahead(in);
  if (ahead >= n && ahead > 0)
    return up_to(in, in->cursor + n, piece);
  if (in->ended)
    return ahead > 0 ? the_rest(in, piece) : ABSENT;
  piece->wants = n - ahead;
  return WANTS;
}

static enum found find_numeral(lua_State *L, struct input *in, size_t most,
                               struct piece *piece)
{
  struct numeral n;
  while (input_ahead(in) > 0 && isspace(*input_at(in, in->cursor)))
    in->cursor++; /* not taken yet, but not looked at again */
  numeral_read(&n, input_at(in, in->cursor), input_ahead(in), in->ended);
  if (!n.complete)
    return input_ahead(in) + in->cursor - in->first > most ? TOO_LONG : WANTS;
  up_to(in, in->cursor + n.consumed, piece);
  if (lua_stringtonumber(L, n.text) == 0)
    return ABSENT;
  if (lua_isinteger(L, -1)) {
    piece->kind = PIECE_INTEGER;
    piece->number.integer = lua_tointeger(L, -1);
  } else {
    piece->kind = PIECE_FLOAT;
    piece->number.real = lua_tonumber(L, -1);
  }
  lua_pop(L, 1);
  return FOUND;
}

static size_t most(uint32_t limit)
{
  return limit == UNLIMITED ? SIZE_MAX : limit;
}

enum found format_find(lua_State *L, int index, struct input *in,
                       const struct limits *limits, struct piece *piece)
{
  const char *format = "l";
  *piece = (struct piece){0};
  if (index > 0 && lua_type(L, index) == LUA_TNUMBER) {
    int exact;
    lua_Integer n = lua_tointegerx(L, index, &exact);
    return exact && n >= 0 ? find_bytes(in, (size_t)n, piece) : NO_FORMAT;
  }
  if (index > 0) {
    if (lua_type(L, index) != LUA_TSTRING)
      return NO_FORMAT;
    format = lua_tostring(L, index);
    format += *format == '*';
  }
  switch (*format) {
  case 'l':
    return find_line(in, most(limits->line), false, piece);
  case 'L':
    return find_line(in, most(limits->line), true, piece);
  case 'a':
    return find_all(in, most(limits->all), piece);
  case 'n':
    return find_numeral(L, in, most(limits->line), piece);
  default:
    return NO_FORMAT;
  }
}

enum found format_find_text(struct input *in, const char *text, size_t size,
                            size_t most, struct piece *piece)
{
  const unsigned char *at = NULL;
  *piece = (struct piece){0};
  if (in->scanned < in->last)
    at = memmem(input_at(in, in->scanned), in->last - in->scanned, text, size);
  if (at != NULL) {
    size_t end = (size_t)(at - in->block->data) + size;
    return end - in->cursor > most ? TOO_LONG : up_to(in, end, piece);
  }
  if (input_ahead(in) >= most && (!in->ended || input_ahead(in) > most))
    return TOO_LONG;
  if (in->ended)
    return input_ahead(in) > 0 ? the_rest(in, piece) : ABSENT;
  if (input_ahead(in) >= size) /* its first bytes may be there */
    in->scanned = in->last - (size - 1);
  return WANTS;
}

void format_push(lua_State *L, const struct input *in,
                 const struct piece *piece)
{
  const unsigned char *bytes = input_at(in, piece->from);
  switch (piece->kind) {
  case PIECE_INTEGER:
    lua_pushinteger(L, piece->number.integer);
    break;
  case PIECE_FLOAT:
    lua_pushnumber(L, piece->number.real);
    break;
  case PIECE_TEXT:
    lua_pushlstring(L, bytes != NULL ? (const char *)bytes : "", piece->size);
    break;
  }
}

const char *format_complaint(lua_State *L, int index)
{
  if (lua_type(L, index) == LUA_TNUMBER) {
    int exact;
    (void)lua_tointegerx(L, index, &exact);
    return exact ? "negative count" : "number has no integer representation";
  }
  if (lua_type(L, index) == LUA_TSTRING)
    return "invalid format";
  if (luaL_getmetafield(L, index, "__name") == LUA_TSTRING)
    return lua_pushfstring(L, "string expected, got %s", lua_tostring(L, -1));
  return lua_pushfstring(L, "string expected, got %s",
                         lua_type(L, index) == LUA_TLIGHTUSERDATA
                             ? "light userdata"
                             : luaL_typename(L, index));
}
