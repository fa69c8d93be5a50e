// io_faults.h: system calls that fail, or do less than asked, on purpose. For tests.
//
// A set of faults says, for each kind of call, what is to happen: step by step (a plan), or
// by chance with given shares and a seed. It is started for one thread, and concerns what
// io_calls() makes there; other threads go on as ever. What happens is what the system could
// do as well:
//
//   * Bytes are never lost: a call that is cut short is made, with less room or less to send,
//     and not on sockets whose packets have borders.
//   * After EAGAIN or a call that was cut short, readiness is told once more at the next turn
//     (io_faults_take_owed), as if news had come just then.
//   * After ECONNRESET, EPIPE or ETIMEDOUT on a stream the descriptor is over: it is shut
//     down, so that its peer sees it too; reads give the end of file, and writes EPIPE.
//   * An interrupted connect goes on.
//
// Owned by whoever started it, and stopped by the same thread.

#ifndef CORONET_IO_FAULTS_H
#define CORONET_IO_FAULTS_H

#include "io_calls.h"

#include <stdbool.h>

enum io_operation {
    IO_READ, // recv, read, recvmsg
    IO_WRITE,
    IO_SEND_FILE, // sendfile
    IO_READ_FILE, // pread
    IO_ACCEPT,
    IO_CONNECT,
    IO_OPEN, // socket, dup
    IO_OPERATION_COUNT,
};

#define IO_FAULT_MAX_KINDS 16

// One thing that can happen to a call.
struct io_fault {
    int error;      // errno; 0: it is cut short
    size_t limit;   // to so many bytes; 0: by a random number of them
    uint32_t share; // of 2^32 calls, where chance decides
    uint64_t count; // how often it has happened
};

struct io_fault_rule {
    struct io_fault faults[IO_FAULT_MAX_KINDS];
    size_t fault_count;
    const unsigned char *plan; // borrowed; one a call: 0 for nothing, else the place of a
    size_t plan_length;        // fault, counted from 1. NULL: chance decides
    size_t next_step;
};

struct io_faults {
    struct io_fault_rule rules[IO_OPERATION_COUNT];
    uint64_t random;      // the generator's state; not 0
    bool is_selective;    // only descriptors that io_faults_select() named are concerned
    unsigned char *marks; // owned, by descriptor
    size_t mark_capacity;
    size_t owed_count; // descriptors whose readiness is to be told again
};

// Nothing happens yet. [seed] decides what chance does.
void io_faults_init(struct io_faults *faults, uint64_t seed);
void io_faults_fini(struct io_faults *faults);

// [fd] is one of those that are concerned, until it is closed. 0, -EBADF or -ENOMEM.
int io_faults_select(struct io_faults *faults, int fd);

// Lets it happen in this thread. 0, or -EBUSY: another set is at work here.
int io_faults_start(struct io_faults *faults);

// 0, or -EINVAL: it is not at work in this thread.
int io_faults_stop(struct io_faults *faults);

// A descriptor of this thread whose readiness has to be told anew, or -1.
int io_faults_take_owed(void);

// Whether faults are at work in any thread.
static inline bool
io_faults_are_on(void)
{
    return io_calls() != &io_system_calls;
}

#endif
