/* Direct descriptors. */
#include "direct.h"

#include "ring.h"

void direct_free(struct core *core, uint32_t ring, int slot)
{
  const int nothing = -1;
  for (struct ring *r = core->rings; r != NULL; r = r->next)
    if (r->number == ring && r->state == RING_OPEN && r->epoch == *core->epoch)
      io_uring_register_files_update(&r->io, (unsigned)slot, &nothing, 1);
}
