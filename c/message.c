/* Receiving messages. */
#include "message.h"

#include <errno.h>

#include "operation.h"
#include "ring_object.h"
#include "ring_parts.h"
#include "rows.h"

/* Messages that may wait to be taken.  One more than that ends the receiver:
** the sender cannot be made to wait, and nothing here is unbounded. */
#define MESSAGES_MAX 4096u

/* What the handle is named after, and what its results are. */
static const struct row row = {.name = "messages", .result = RESULT_WORD};

bool message_receive(struct ring *r, uint64_t user_data, int32_t res)
{
  struct operation *op = r->receiver != NULL ? r->receiver->op : NULL;
  const struct result one = {res, (uint32_t)(user_data >> 32), NO_DATA};
  if ((uint32_t)user_data != MESSAGE_SLOT || op == NULL || res < 0)
    return false;
  if (operation_unread(op) < MESSAGES_MAX && operation_deliver(op, &one))
    return true;
  message_end(r, -ENOBUFS);
  return false;
}

void message_end(struct ring *r, int32_t res)
{
  struct event *e = r->receiver;
  if (e == NULL)
    return;
  r->receiver = NULL;
  if (e->op != NULL) {
    ring_settle(r, &e->op->outcome, e, res, 0, NULL);
    operation_complete(e->op);
  }
  event_free(r, e);
}

/* Why there cannot be one more receiver; NULL: there can. */
static const char *refusal(const struct ring *r)
{
  if (r->state != RING_OPEN)
    return "attempt to use a closed ring";
  if (r->receiver != NULL)
    return "messages: the ring has a receiver already";
  return NULL;
}

/* A slot for the receiver, which keeps the handle and the ring together. */
static struct event *new_event(lua_State *L, struct ring *r)
{
  struct event *e = event_new(L, r); /* may run finalisers */
  const char *why = refusal(r);
  if (why == NULL && e == NULL)
    why = "not enough memory";
  if (why == NULL)
    return e;
  if (e != NULL && r->state == RING_OPEN)
    event_free(r, e);
  luaL_error(L, "%s", why);
  return NULL;
}

/* ring:messages() -> Operation: every result is a message, len and data.  It
** ends when it is cancelled, closed or collected, or with its ring. */
static int ring_messages(lua_State *L)
{
  struct ring *r = ring_object_open(L, 1);
  const char *why = refusal(r);
  struct operation *op;
  struct event *e;
  if (why != NULL)
    return luaL_error(L, "%s", why);
  op = operation_push(L, r->core, 1);
  operation_open_results(L, op);
  op->outcome.row = &row;
  e = new_event(L, r);
  e->flags |= EVENT_RECEIVES;
  e->row = &row;
  e->fd = -1;
  e->op = op;
  op->ring = r;
  op->event = e;
  r->receiver = e;
  return 1;
}

static const luaL_Reg methods[] = {
    {"messages", ring_messages},
    {NULL, NULL},
};

void message_methods(lua_State *L)
{
  luaL_setfuncs(L, methods, 0);
}
