/* Operations of which one SQE gives many results, and how each kind asks for
** it.  A probe tells of opcodes and not of flags: whether the kernel knows
** one of these is found out when it is first asked for, and remembered by the
** ring.
*/
#ifndef URING_MULTISHOT_H
#define URING_MULTISHOT_H

#include "ring.h"

/* A bit for each opcode. */
static inline uint64_t multishot_bit(uint8_t opcode)
{
  return opcode < 64 ? (uint64_t)1 << opcode : 0;
}

/* Asks for many results; the opcode is one that can. */
void multishot_ask(struct io_uring_sqe *sqe);

/* May the same be had one by one?  A message would come in another form. */
bool multishot_can_be_single(const struct io_uring_sqe *sqe);
void multishot_make_single(struct io_uring_sqe *sqe);

/* Makes the kernel refuse it as one that does not know the flag would. */
void multishot_spoil(struct io_uring_sqe *sqe);

/* Takes the name of what a kernel may lack besides opcodes ("bundle",
** "incremental_pool", "recv_multishot" …) into the options of a ring that is
** to do without.  False: it is none of these. */
bool multishot_without(struct ring_options *o, const char *name);

/* Pushes a table: true and false for what the ring has found out, "untried"
** for what it has not. */
void multishot_push(lua_State *L, const struct ring *r);

#endif
