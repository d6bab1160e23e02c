/* The formats of `read`: what of the bytes in hand they ask for. */
#ifndef URING_FORMATS_H
#define URING_FORMATS_H

#include "input.h"

#include <lua.h>

enum found {
  FOUND,  /* there it is, and the cursor is behind it */
  ABSENT, /* the end of the stream, or no numeral: the result is nil */
  WANTS,  /* more bytes; the cursor is where it was */
  TOO_LONG,
  NO_FORMAT /* the argument is none */
};

enum piece_kind { PIECE_TEXT, PIECE_INTEGER, PIECE_FLOAT };

/* Bytes in hand that are one result. */
struct piece {
  size_t from, size;
  enum piece_kind kind;
  union {
    lua_Integer integer;
    lua_Number real;
  } number;
  size_t wants; /* with WANTS: so many more, at least */
  bool all;     /* everything up to the end of the stream */
};

/* In bytes; UNLIMITED: there is none. */
struct limits {
  uint32_t line; /* of a line, without its newline */
  uint32_t all;  /* of everything */
};

#define UNLIMITED UINT32_MAX

/* Looks for what the format at a stack index asks for, from the cursor on;
** index 0: a line.  Allocates nothing. */
enum found format_find(lua_State *L, int index, struct input *in,
                       const struct limits *limits, struct piece *piece);

/* Looks for a text, which belongs to the result. */
enum found format_find_text(struct input *in, const char *text, size_t size,
                            size_t most, struct piece *piece);

/* Pushes the result; may raise for lack of memory. */
void format_push(lua_State *L, const struct input *in,
                 const struct piece *piece);

/* Why the argument is no format. */
const char *format_complaint(lua_State *L, int index);

#endif
