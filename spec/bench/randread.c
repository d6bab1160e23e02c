/*
 * randread: reference for the row "randread". READS random aligned reads
 * of 4 KB, DEPTH in flight, each into a buffer of its own; no registered
 * files or buffers, for the Lua side uses none either.
 *
 *   randread FILE READS DEPTH
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>

#include "bench.h"

enum { BLOCK = 4096 };

static struct io_uring ring;
static uint64_t blocks;
static int file;
static long left; /* reads not yet started */

static uint64_t random_block(void)
{
  static uint64_t x = 88172645463325252u; /* xorshift64 */
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return x % blocks;
}

static void start(char *block)
{
  struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
  io_uring_prep_read(sqe, file, block, BLOCK, random_block() * BLOCK);
  io_uring_sqe_set_data(sqe, block);
  left--;
}

/* Returns how many completed; as many follow while any are left. */
static unsigned turn(void)
{
  struct io_uring_cqe *cqe;
  unsigned head, n = 0;
  ring_turn(&ring, 1);
  io_uring_for_each_cqe(&ring, head, cqe)
  {
    if (cqe->res != BLOCK)
      die("read", cqe->res < 0 ? cqe->res : EIO);
    if (left > 0)
      start(io_uring_cqe_get_data(cqe));
    n++;
  }
  io_uring_cq_advance(&ring, n);
  return n;
}

static void file_open(const char *path)
{
  struct stat st;
  file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0 || fstat(file, &st) < 0)
    die(path, errno);
  blocks = (uint64_t)st.st_size / BLOCK;
  if (blocks == 0)
    die(path, EINVAL);
}

int main(int argc, char **argv)
{
  long reads = argument(argc, argv, 2, "reads"), done = 0;
  unsigned depth = (unsigned)argument(argc, argv, 3, "depth");
  char *data = malloc((size_t)depth * BLOCK);
  file_open(argv[1]);
  ring_open(&ring, depth); /* DEPTH in flight: never full */
  left = reads;
  double wall = wall_s(), cpu = cpu_s();
  for (unsigned i = 0; i < depth && left > 0; i++)
    start(data + (size_t)i * BLOCK);
  while (done < reads)
    done += turn();
  report((double)done, wall_s() - wall, cpu_s() - cpu);
  io_uring_queue_exit(&ring);
  close(file);
  free(data);
  return 0;
}
