/* What the readers of arguments share.  A reader takes one argument, or a
** few that belong together, from the Lua stack into the request.
*/
#ifndef URING_READER_H
#define URING_READER_H

#include "op.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

struct reader {
  lua_State *L;
  struct request *q;
  int index; /* the next argument */
  int last;  /* the last one; what readers push lies above */
  const struct options *options; /* Options that are the next argument */
};

/* The options of one call: bits of enum row_option. */
struct options {
  unsigned set, cleared;
  int place;  /* of a descriptor; -1: any */
  int number; /* of a group of buffers */
  uint64_t timeout_ns;
};

typedef void read_one(struct reader *in, const struct arg *a);

/* Raises "bad argument 'fd' to 'read' (why)". */
int args_bad(const struct reader *in, const struct arg *a, const char *why);
int args_bad_type(const struct reader *in, const struct arg *a, int index,
                  const char *expected);

/* The integer, the open Buffer at a stack index; or they raise. */
lua_Integer args_integer(const struct reader *in, const struct arg *a,
                         int index, lua_Integer min, lua_Integer max);
struct buffer *args_buffer(const struct reader *in, const struct arg *a,
                           int index, const char *expected);

/* Is the string at this index exactly this name? */
bool args_is_name(lua_State *L, int index, const char *name);

/* Is the next argument Options?  Then it stays that until they are taken. */
bool args_has_options(struct reader *in);

/* Is the next argument not given, or nil?  As args_missing, but it is an
** optional one and has been passed if so; a table in its place is the table
** of options. */
bool args_missing(const struct reader *in);
bool args_left_out(struct reader *in);

/* The optional length behind a Buffer or string of `whole` bytes. */
size_t args_length(struct reader *in, size_t whole);

/* Into the field of the SQE that the argument is. */
void args_set_field(struct request *q, const struct arg *a, lua_Integer n);

/* Keeps the string at a stack index until the operation has ended: one of
** them as it is, more in a table of ours. */
void args_keep(struct reader *in, int index);

/* Lends the first `size` bytes of a Buffer. */
void args_lend(struct reader *in, const struct buffer *b, size_t size,
               bool writes);

/* Checks member `n` of the vector (on the top of the stack), puts it into
** our copy. */
void args_take_member(struct reader *in, const struct arg *a, bool strings,
                      unsigned n);

/* The address at the next argument, for readers of tables. */
read_one args_address;

/* args_options.c: the table at the next argument, and what it comes to. */
void args_read_options(struct reader *in, struct options *o);

/* The same, or Options, where there are any; else nothing is taken. */
void args_take_options(struct reader *in, struct options *o);

/* What every row takes, or nearly. */
#define OPTIONS_COMMON                                                        \
  (OPTION_ASYNC | OPTION_DRAIN | OPTION_LINK | OPTION_HARDLINK |              \
   OPTION_FIXED_FILE)

/* Is there more to apply than those of them that are set? */
static inline bool args_has_special(const struct request *q, unsigned set)
{
  return set & ~(unsigned)OPTIONS_COMMON || q->row->options ||
         q->row->multishot || q->pool != NULL || q->needs_pool;
}

/* Pushes the names of those that are there. */
void args_push_options(lua_State *L, const struct options *o);

void args_apply_options(lua_State *L, struct request *q,
                        const struct options *o);

/* args_memory.c */
read_one args_read_path, args_read_name, args_read_buffer, args_read_data,
    args_read_buffers, args_read_datas, args_read_message_in,
    args_read_message_out, args_read_room, args_read_value, args_read_length,
    args_read_pool, args_read_pieces;

/* args_struct.c */
read_one args_read_pages, args_read_advice, args_read_word, args_read_words,
    args_read_word_kind, args_read_open_how, args_read_epoll_op,
    args_read_epoll_event, args_read_option_room, args_read_option_value,
    args_read_command, args_read_files, args_read_first_slot;

/* args_raw.c */
read_one args_read_raw;

#endif
