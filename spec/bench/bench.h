/*
 * What the C references share: clocks, a ring with the flags of the
 * core's set-up ladder, and giving up. Static
 * inline only, so that every reference is one standalone .c file.
 */
#ifndef URING_BENCH_H
#define URING_BENCH_H

#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RING_FLAGS                                                            \
  (IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER |                     \
   IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |                   \
   IORING_SETUP_CLAMP)

static inline double clock_s(clockid_t clock)
{
  struct timespec t;
  if (clock_gettime(clock, &t) < 0)
    return 0;
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline double wall_s(void)
{
  return clock_s(CLOCK_MONOTONIC);
}

/* User + system time of this process, every thread of it, exactly. */
static inline double cpu_s(void)
{
  return clock_s(CLOCK_PROCESS_CPUTIME_ID);
}

/* 'err' is an errno, or what liburing returns, its negative. */
static inline void die(const char *what, int err)
{
  fprintf(stderr, "%s: %s\n", what, strerror(err < 0 ? -err : err));
  exit(1);
}

static inline void ring_open(struct io_uring *ring, unsigned entries)
{
  struct io_uring_params p = {.flags = RING_FLAGS};
  int rc = io_uring_queue_init_params(entries, ring, &p);
  if (rc < 0)
    die("io_uring_queue_init_params", rc);
}

/* Waits for one completion; EINTR and EAGAIN are for trying again. */
static inline void ring_turn(struct io_uring *ring, unsigned wait)
{
  int rc = io_uring_submit_and_wait(ring, wait);
  if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
    die("io_uring_submit_and_wait", rc);
}

/* The one line every contender ends with, read by harness.lua. */
static inline void report(double ops, double wall, double cpu)
{
  printf("ops=%.0f wall=%.6f cpu=%.6f\n", ops, wall, cpu);
}

static inline long argument(int argc, char **argv, int i, const char *name)
{
  char *end;
  long value = i < argc ? strtol(argv[i], &end, 10) : -1;
  if (value < 0 || *end != '\0') {
    fprintf(stderr, "%s: argument %d (%s) must be a number >= 0\n", argv[0], i,
            name);
    exit(2);
  }
  return value;
}

#endif
