/* Buffers handed to the kernel one list at a time, by provide_buffers: the
** older way, in which the program names groups and buffers by numbers.  What
** a Pool does is this, and better.
**
** The memory of each is lent from the completion of provide_buffers until a
** completion brings its number, or all of its group have been removed.
*/
#ifndef URING_PROVIDED_H
#define URING_PROVIDED_H

#include "op.h"

struct provision;

/* What an operation that provides will leave behind, made in advance; NULL:
** out of memory. */
struct provision *provision_new(struct core *core, const struct request *q);
void provision_free(struct provision *p);

/* The operation has ended: with success the buffers are the kernel's. */
void provided_settle(struct ring *r, struct event *e, int32_t res);

/* A completion has brought this one. */
void provided_claim(struct ring *r, uint16_t group, unsigned number);

/* The ring is closed: all of them come back. */
void provided_release(struct ring *r);

#endif
