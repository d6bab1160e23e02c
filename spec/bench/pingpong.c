/*
 * pingpong: reference for the row "pingpong". PAIRS unix socketpairs,
 * both ends in this process; on each pair a message of BYTES goes there
 * and back, TRIPS times. Single-shot recv and send, one operation in
 * flight for each end.
 *
 *   pingpong PAIRS BYTES TRIPS
 */
#include <errno.h>
#include <sys/socket.h>

#include "bench.h"

struct end {
  int fd;
  int ping; /* sends first, counts the trips */
  int sending;
  long left; /* messages still to receive */
  unsigned moved;
  char *data;
};

static struct io_uring ring;
static unsigned bytes;

static void next(struct end *e)
{
  struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
  char *data = e->data + e->moved;
  if (e->sending)
    io_uring_prep_send(sqe, e->fd, data, bytes - e->moved, 0);
  else
    io_uring_prep_recv(sqe, e->fd, data, bytes - e->moved, 0);
  io_uring_sqe_set_data(sqe, e);
}

/* Returns 1 when this end has nothing more to do. */
static int step(struct end *e, int res)
{
  if (res <= 0)
    die("send or recv", res);
  e->moved += (unsigned)res;
  if (e->moved == bytes) {
    e->moved = 0;
    e->left -= !e->sending;
    if (e->left == 0 && e->sending != e->ping)
      return 1;
    e->sending = !e->sending;
  }
  next(e);
  return 0;
}

static unsigned turn(void)
{
  struct io_uring_cqe *cqe;
  unsigned head, n = 0, over = 0;
  ring_turn(&ring, 1);
  io_uring_for_each_cqe(&ring, head, cqe)
  {
    over += (unsigned)step(io_uring_cqe_get_data(cqe), cqe->res);
    n++;
  }
  io_uring_cq_advance(&ring, n);
  return over;
}

static void end_open(struct end *e, int fd, int ping, long trips)
{
  *e = (struct end){.fd = fd, .ping = ping, .sending = ping, .left = trips};
  e->data = calloc(1, bytes);
  next(e);
}

static void pair_open(struct end *ends, long trips)
{
  int fd[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0)
    die("socketpair", errno);
  end_open(&ends[0], fd[0], 1, trips);
  end_open(&ends[1], fd[1], 0, trips);
}

int main(int argc, char **argv)
{
  unsigned pairs = (unsigned)argument(argc, argv, 1, "pairs"), over = 0;
  long trips = argument(argc, argv, 3, "trips");
  struct end *ends = calloc(2 * pairs, sizeof *ends);
  bytes = (unsigned)argument(argc, argv, 2, "bytes");
  ring_open(&ring, 2 * pairs); /* one operation an end: never full */
  for (unsigned i = 0; i < pairs; i++)
    pair_open(&ends[2 * i], trips);
  double wall = wall_s(), cpu = cpu_s();
  while (over < 2 * pairs)
    over += turn();
  report((double)pairs * (double)trips, wall_s() - wall, cpu_s() - cpu);
  io_uring_queue_exit(&ring);
  for (unsigned i = 0; i < 2 * pairs; i++) {
    close(ends[i].fd);
    free(ends[i].data);
  }
  free(ends);
  return 0;
}
