/*
 * echo_server: reference for the row "echo". A TCP echo server on
 * liburing, single-shot recv and send, one operation in flight for each
 * connection, everything prepared in a turn handed over in one enter.
 * Serves CONNECTIONS clients, then ends.
 *
 *   echo_server CONNECTIONS BYTES      prints: pid=... port=...
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "bench.h"

struct conn {
  int fd;
  int sending; /* which of the two operations is in flight */
  unsigned len, sent;
  char *data;
};

static struct io_uring ring;
static unsigned bytes;

static int listen_any(void)
{
  struct sockaddr_in a = {.sin_family = AF_INET};
  socklen_t len = sizeof a;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) < 0 ||
      listen(fd, 128) < 0 || getsockname(fd, (struct sockaddr *)&a, &len) < 0)
    die("listen", errno);
  printf("pid=%d port=%d\n", (int)getpid(), ntohs(a.sin_port));
  fflush(stdout);
  return fd;
}

/* One operation a connection, so 256 entries never run out. */
static void recv_more(struct conn *c)
{
  struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
  c->sending = 0;
  io_uring_prep_recv(sqe, c->fd, c->data, bytes, 0);
  io_uring_sqe_set_data(sqe, c);
}

static void send_rest(struct conn *c)
{
  struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
  c->sending = 1;
  io_uring_prep_send(sqe, c->fd, c->data + c->sent, c->len - c->sent, 0);
  io_uring_sqe_set_data(sqe, c);
}

static void accept_all(int listener, struct conn *conns, unsigned n)
{
  for (unsigned i = 0; i < n; i++) {
    conns[i].fd = accept(listener, NULL, NULL);
    conns[i].data = malloc(bytes);
    if (conns[i].fd < 0 || !conns[i].data)
      die("accept", errno);
    recv_more(&conns[i]);
  }
}

/* Returns 1 when the connection is over. */
static int step(struct conn *c, int res)
{
  if (res <= 0) {
    close(c->fd);
    free(c->data);
    return 1;
  }
  if (!c->sending) {
    c->len = (unsigned)res;
    c->sent = 0;
    send_rest(c);
  } else if ((c->sent += (unsigned)res) < c->len)
    send_rest(c);
  else
    recv_more(c);
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

int main(int argc, char **argv)
{
  unsigned n = (unsigned)argument(argc, argv, 1, "connections"), over = 0;
  struct conn *conns = calloc(n, sizeof *conns);
  bytes = (unsigned)argument(argc, argv, 2, "bytes");
  ring_open(&ring, 256);
  int listener = listen_any();
  accept_all(listener, conns, n);
  while (over < n)
    over += turn();
  io_uring_queue_exit(&ring);
  close(listener);
  free(conns);
  return 0;
}
