/*
 * nop: reference for the row "nop". The tightest loop a C program can
 * write for 256 nops in flight: fill the SQ, enter once, reap all.
 *
 *   nop OPS IN_FLIGHT
 */
#include <errno.h>

#include "bench.h"

static void fill(struct io_uring *ring, unsigned n)
{
  for (unsigned i = 0; i < n; i++) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data64(sqe, i);
  }
}

static unsigned reap(struct io_uring *ring)
{
  struct io_uring_cqe *cqe;
  unsigned head, n = 0;
  io_uring_for_each_cqe(ring, head, cqe)
  {
    if (cqe->res < 0)
      die("nop", cqe->res);
    n++;
  }
  io_uring_cq_advance(ring, n);
  return n;
}

static long loop(struct io_uring *ring, long ops, unsigned in_flight)
{
  long done = 0;
  while (done < ops) {
    unsigned left = in_flight;
    fill(ring, in_flight);
    while (left > 0) {
      ring_turn(ring, left);
      left -= reap(ring);
    }
    done += in_flight;
  }
  return done;
}

int main(int argc, char **argv)
{
  long ops = argument(argc, argv, 1, "operations");
  unsigned in_flight = (unsigned)argument(argc, argv, 2, "in flight");
  struct io_uring ring;
  ring_open(&ring, in_flight);
  double wall = wall_s(), cpu = cpu_s();
  long done = loop(&ring, ops, in_flight);
  report((double)done, wall_s() - wall, cpu_s() - cpu);
  io_uring_queue_exit(&ring);
  return 0;
}
