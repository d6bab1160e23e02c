/* Direct descriptors: files that an operation opens into a slot among those
** registered with its ring, and that have no number in the process.
**
** Such a slot is the result of the operation, as a descriptor would be, and
** goes the same way; what nobody is given is not closed but emptied.  An
** outcome may be dropped when its ring is gone, and so it knows the ring by
** its number: with the ring went all its slots.
*/
#ifndef URING_DIRECT_H
#define URING_DIRECT_H

#include "core.h"

/* Empties a slot of the ring with this number, where that is still open. */
void direct_free(struct core *core, uint32_t ring, int slot);

#endif
