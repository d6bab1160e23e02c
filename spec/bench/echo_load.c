/*
 * echo_load: the load generator of the row "echo", the same for every
 * server. CONNECTIONS clients each keep one message of BYTES on its way
 * and check what comes back. It is made to cost less than any server it
 * drives: multishot recv into provided buffers, sends that complete
 * silently, one enter a turn. It has a processor to itself and polls.
 *
 *   echo_load PORT SERVER_PID CONNECTIONS BYTES WARM_MS MEASURED_MS
 *
 * Prints the requests answered in the measured window, its length, and
 * the CPU time the *server* used in it, from that process's CPU clock
 * (utime + stime of all its threads, in nanoseconds and not in ticks).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "bench.h"

enum { CONNS_MAX = 256, BUFS = 512, GROUP = 1, DRAIN_S = 5 };

struct conn {
  int fd;
  unsigned got;  /* bytes of the current reply seen so far */
  long answered; /* replies, since the beginning */
  char *message; /* what is sent and must come back */
};

static struct io_uring ring;
static struct io_uring_buf_ring *pool;
static char *pool_data;
static struct conn conns[CONNS_MAX];
static unsigned nconns, bytes;
static unsigned waiting; /* connections whose reply is still to come */
static long answered;
static int stopping;

static int connect_to(int port)
{
  struct sockaddr_in a = {.sin_family = AF_INET};
  int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  a.sin_port = htons((uint16_t)port);
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
    die("connect", errno);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

static void pool_give(unsigned short id)
{
  io_uring_buf_ring_add(pool, pool_data + (size_t)id * bytes, bytes, id,
                        io_uring_buf_ring_mask(BUFS), 0);
  io_uring_buf_ring_advance(pool, 1);
}

static void pool_open(void)
{
  struct io_uring_buf_reg reg = {.ring_entries = BUFS, .bgid = GROUP};
  void *mem;
  if (posix_memalign(&mem, 4096, BUFS * sizeof(struct io_uring_buf)))
    die("posix_memalign", ENOMEM);
  pool = mem;
  pool_data = malloc((size_t)BUFS * bytes);
  reg.ring_addr = (unsigned long)mem;
  int rc = io_uring_register_buf_ring(&ring, &reg, 0);
  if (rc < 0 || !pool_data)
    die("io_uring_register_buf_ring", rc);
  io_uring_buf_ring_init(pool);
  for (unsigned i = 0; i < BUFS; i++)
    pool_give((unsigned short)i);
}

static struct io_uring_sqe *next_sqe(void)
{
  struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
  if (!sqe)
    die("submission queue", ENOBUFS);
  return sqe;
}

static void recv_arm(struct conn *c)
{
  struct io_uring_sqe *sqe = next_sqe();
  io_uring_prep_recv_multishot(sqe, c->fd, NULL, 0, 0);
  io_uring_sqe_set_flags(sqe, IOSQE_BUFFER_SELECT);
  sqe->buf_group = GROUP;
  io_uring_sqe_set_data(sqe, c);
}

/* MSG_WAITALL: the kernel finishes a short send. Only errors complete. */
static void send_message(struct conn *c)
{
  struct io_uring_sqe *sqe = next_sqe();
  io_uring_prep_send(sqe, c->fd, c->message, bytes, MSG_WAITALL);
  io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
  io_uring_sqe_set_data(sqe, c);
  waiting++;
}

static void conn_open(struct conn *c, int port, int seed)
{
  c->fd = connect_to(port);
  c->message = malloc(bytes);
  for (unsigned i = 0; i < bytes; i++)
    c->message[i] = (char)(seed * 31 + (int)i * 7);
  recv_arm(c);
  send_message(c);
}

static void check(struct conn *c, const char *data, unsigned n)
{
  if (n > bytes - c->got || memcmp(data, c->message + c->got, n)) {
    fprintf(stderr, "the echo differs from what was sent\n");
    exit(1);
  }
  c->got += n;
  if (c->got < bytes)
    return;
  c->got = 0;
  c->answered++;
  answered++;
  waiting--;
  if (!stopping)
    send_message(c);
}

static void complete(struct io_uring_cqe *cqe)
{
  struct conn *c = io_uring_cqe_get_data(cqe);
  unsigned id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
  if (cqe->res == 0)
    die("the server closed a connection", ECONNRESET);
  if (cqe->res < 0 && cqe->res != -ENOBUFS)
    die("send or recv", cqe->res);
  if (cqe->res > 0) {
    check(c, pool_data + (size_t)id * bytes, (unsigned)cqe->res);
    pool_give((unsigned short)id);
  }
  if (!(cqe->flags & IORING_CQE_F_MORE))
    recv_arm(c);
}

/* Never sleeps: if it did, the server would be charged for waking it, and a
 * slower server more often. */
static void turn(void)
{
  struct io_uring_cqe *cqe;
  unsigned head, n = 0;
  ring_turn(&ring, 0);
  io_uring_for_each_cqe(&ring, head, cqe)
  {
    complete(cqe);
    n++;
  }
  io_uring_cq_advance(&ring, n);
}

static void turn_until(double end)
{
  while (wall_s() < end)
    turn();
}

/* Every connection must have had its share, or the figure means little. */
static void measure(double length, clockid_t server)
{
  long before[CONNS_MAX] = {0}, first = answered;
  for (unsigned i = 0; i < nconns; i++)
    before[i] = conns[i].answered;
  double wall = wall_s(), cpu = clock_s(server);
  turn_until(wall + length);
  cpu = clock_s(server) - cpu;
  wall = wall_s() - wall;
  for (unsigned i = 0; i < nconns; i++)
    if (conns[i].answered == before[i])
      die("a connection was starved", ETIMEDOUT);
  report((double)(answered - first), wall, cpu);
}

/* Closes only when nothing is under way, so that no server sees a reset. */
static void drain(void)
{
  double end = wall_s() + DRAIN_S;
  stopping = 1;
  while (waiting > 0 && wall_s() < end)
    turn();
  for (unsigned i = 0; i < nconns; i++) {
    shutdown(conns[i].fd, SHUT_RDWR);
    close(conns[i].fd);
    free(conns[i].message);
  }
}

int main(int argc, char **argv)
{
  int port = (int)argument(argc, argv, 1, "port");
  pid_t pid = (pid_t)argument(argc, argv, 2, "server pid");
  nconns = (unsigned)argument(argc, argv, 3, "connections");
  bytes = (unsigned)argument(argc, argv, 4, "bytes");
  double warm = (double)argument(argc, argv, 5, "warm-up ms") * 1e-3;
  double length = (double)argument(argc, argv, 6, "measured ms") * 1e-3;
  clockid_t server;
  if (nconns > CONNS_MAX || clock_getcpuclockid(pid, &server))
    die("connections or server pid", EINVAL);
  alarm((unsigned)(warm + length) + 2 * DRAIN_S); /* whatever happens */
  ring_open(&ring, 4 * CONNS_MAX);
  pool_open();
  for (unsigned i = 0; i < nconns; i++)
    conn_open(&conns[i], port, (int)i);
  turn_until(wall_s() + warm);
  measure(length, server);
  drain();
  io_uring_queue_exit(&ring);
  return 0;
}
