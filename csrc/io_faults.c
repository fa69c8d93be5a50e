// io_faults.c: system calls that fail, or do less than asked, on purpose. See io_faults.h.
//
// As long as a set is at work in some thread, the table below stands in for the system's.
// Each entry asks what its call meets, in this thread and for this descriptor, and makes
// the call itself unless that is a failure. Invariants:
//   1. EAGAIN is only told of a descriptor that could be marked: else nobody would ever say
//      that it is ready, and a program would hang by our fault.
//   2. A fault is counted when it has had an effect: a call that was cut short counts if it
//      has moved as much as it was cut to.

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "io_faults.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_BLOCKS 64

enum mark {
    MARK_SELECTED = 1, // concerned, where not all are
    MARK_OWED = 2,     // its readiness is to be told again
    MARK_OVER = 4,     // as after a reset
};

static _Thread_local struct io_faults *faults_here;

// How many threads have a set at work; guarded, with the table in use.
static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;
static int started_count;

static const struct io_calls faulty_calls;

// --- Sets of faults ---------------------------------------------------------------------

void
io_faults_init(struct io_faults *faults, uint64_t seed)
{
    memset(faults, 0, sizeof(*faults));
    // Seeds are small numbers, mostly: spread over all bits, and never 0.
    faults->random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
}

void
io_faults_fini(struct io_faults *faults)
{
    free(faults->marks);
    faults->marks = NULL;
    faults->mark_capacity = 0;
}

static bool
has_mark(const struct io_faults *faults, int fd, enum mark mark)
{
    return fd >= 0 && (size_t)fd < faults->mark_capacity && (faults->marks[fd] & mark);
}

static int
set_mark(struct io_faults *faults, int fd, enum mark mark)
{
    if (fd < 0) {
        return -EBADF;
    }
    if ((size_t)fd >= faults->mark_capacity) {
        size_t capacity = ((size_t)fd + 1) * 2;
        unsigned char *marks = realloc(faults->marks, capacity);
        if (marks == NULL) {
            return -ENOMEM;
        }
        memset(marks + faults->mark_capacity, 0, capacity - faults->mark_capacity);
        faults->marks = marks;
        faults->mark_capacity = capacity;
    }
    faults->owed_count += mark == MARK_OWED && !has_mark(faults, fd, MARK_OWED);
    faults->marks[fd] |= (unsigned char)mark;
    return 0;
}

// The number has another file now, or none.
static void
clear_marks(struct io_faults *faults, int fd)
{
    if (faults != NULL && fd >= 0 && (size_t)fd < faults->mark_capacity) {
        faults->owed_count -= has_mark(faults, fd, MARK_OWED);
        faults->marks[fd] = 0;
    }
}

int
io_faults_select(struct io_faults *faults, int fd)
{
    faults->is_selective = true;
    return set_mark(faults, fd, MARK_SELECTED);
}

static void
change_started_count(int change)
{
    pthread_mutex_lock(&start_lock);
    started_count += change;
    atomic_store(&io_calls_in_use, started_count > 0 ? &faulty_calls : &io_system_calls);
    pthread_mutex_unlock(&start_lock);
}

int
io_faults_start(struct io_faults *faults)
{
    if (faults_here != NULL) {
        return -EBUSY;
    }
    faults_here = faults;
    change_started_count(1);
    return 0;
}

int
io_faults_stop(struct io_faults *faults)
{
    if (faults_here != faults) {
        return -EINVAL;
    }
    change_started_count(-1);
    faults_here = NULL;
    return 0;
}

int
io_faults_take_owed(void)
{
    struct io_faults *faults = faults_here;
    if (faults == NULL || faults->owed_count == 0) {
        return -1;
    }
    int fd = 0;
    while (!has_mark(faults, fd, MARK_OWED)) {
        fd++;
    }
    faults->marks[fd] &= (unsigned char)~MARK_OWED;
    faults->owed_count--;
    return fd;
}

// --- What a call meets ------------------------------------------------------------------

// 32 random bits: xorshift, its upper half.
static uint32_t
next_random(struct io_faults *faults)
{
    faults->random ^= faults->random << 13;
    faults->random ^= faults->random >> 7;
    faults->random ^= faults->random << 17;
    return (uint32_t)(faults->random >> 32);
}

static struct io_fault *
choose_fault(struct io_faults *faults, struct io_fault_rule *rule)
{
    if (rule->plan != NULL) {
        size_t step =
            rule->next_step < rule->plan_length ? rule->plan[rule->next_step++] : 0;
        return step == 0 || step > rule->fault_count ? NULL : &rule->faults[step - 1];
    }
    if (rule->fault_count == 0) {
        return NULL;
    }
    uint64_t drawn = next_random(faults);
    for (size_t i = 0; i < rule->fault_count; i++) {
        if (drawn < rule->faults[i].share) {
            return &rule->faults[i];
        }
        drawn -= rule->faults[i].share;
    }
    return NULL;
}

static bool
is_concerned(const struct io_faults *faults, int fd)
{
    return faults != NULL &&
           (!faults->is_selective || has_mark(faults, fd, MARK_SELECTED));
}

// False where bytes have borders: datagrams, and the numbers of an eventfd and its like, which
// Linux gives no type of file.
static bool
is_stream(int fd)
{
    struct stat status = {.st_mode = 0};
    if (fstat(fd, &status) < 0 || !S_ISSOCK(status.st_mode)) {
        return (status.st_mode & S_IFMT) != 0;
    }
    int type = 0;
    socklen_t length = sizeof(type);
    (void)getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
    return type == SOCK_STREAM;
}

static bool
moves_bytes(enum io_operation operation)
{
    return operation == IO_READ || operation == IO_WRITE || operation == IO_SEND_FILE;
}

// Whether a connection is over after this error.
static bool
is_fatal(int error)
{
    return error == ECONNRESET || error == EPIPE || error == ETIMEDOUT;
}

// Has the descriptor meet the failure. False if it cannot be made to look genuine.
static bool
fail(struct io_faults *faults, enum io_operation operation, int fd, int error)
{
    if (error == EAGAIN) {
        return set_mark(faults, fd, MARK_OWED) == 0;
    }
    if (moves_bytes(operation) && is_fatal(error) && is_stream(fd)) {
        if (set_mark(faults, fd, MARK_OVER) < 0) {
            return false;
        }
        (void)shutdown(fd, SHUT_RDWR);
    }
    return true;
}

// A call on its way.
struct call {
    struct io_fault *fault; // what it met, NULL = nothing
    size_t length;          // how much it may move
    bool is_over;           // it is not to be made: it gives [result], and errno
    int result;
};

static struct call
begin(enum io_operation operation, int fd, size_t length)
{
    struct call call = {.length = length};
    struct io_faults *faults = faults_here;
    if (!is_concerned(faults, fd)) {
        return call;
    }
    if (moves_bytes(operation) && has_mark(faults, fd, MARK_OVER)) {
        call.is_over = true;
        call.result = operation == IO_READ ? 0 : -1;
        errno = EPIPE;
        return call;
    }
    struct io_fault *fault = choose_fault(faults, &faults->rules[operation]);
    if (fault == NULL) {
        return call;
    }
    if (fault->error == 0) {
        size_t limit = fault->limit;
        if (limit == 0 && length > 1) {
            limit = 1 + next_random(faults) % (length - 1);
        }
        if (limit > 0 && limit < length && is_stream(fd) &&
            set_mark(faults, fd, MARK_OWED) == 0) {
            call.fault = fault;
            call.length = limit;
        }
    }
    else if (fail(faults, operation, fd, fault->error)) {
        fault->count++;
        call.is_over = true;
        call.result = -1;
        errno = fault->error;
    }
    return call;
}

static ssize_t
end(const struct call *call, ssize_t result)
{
    if (call->fault != NULL && result > 0 && (size_t)result == call->length) {
        call->fault->count++;
    }
    return result;
}

// --- The calls --------------------------------------------------------------------------

static ssize_t
receive(int fd, void *data, size_t length, int flags)
{
    struct call call = begin(IO_READ, fd, length);
    return call.is_over
               ? call.result
               : end(&call, io_system_calls.receive(fd, data, call.length, flags));
}

static ssize_t
read_bytes(int fd, void *data, size_t length)
{
    struct call call = begin(IO_READ, fd, length);
    return call.is_over ? call.result
                        : end(&call, io_system_calls.read(fd, data, call.length));
}

static ssize_t
send_bytes(int fd, const void *data, size_t length, int flags)
{
    struct call call = begin(IO_WRITE, fd, length);
    return call.is_over ? call.result
                        : end(&call, io_system_calls.send(fd, data, call.length, flags));
}

static ssize_t
write_bytes(int fd, const void *data, size_t length)
{
    struct call call = begin(IO_WRITE, fd, length);
    return call.is_over ? call.result
                        : end(&call, io_system_calls.write(fd, data, call.length));
}

// How many bytes the blocks hold, as far as they can be cut.
static size_t
sum_blocks(const struct iovec *blocks, size_t count)
{
    size_t sum = 0;
    for (size_t i = 0; i < count && i < MAX_BLOCKS; i++) {
        sum += blocks[i].iov_len;
    }
    return sum;
}

// The first [length] bytes of the blocks. How many blocks that is.
static size_t
cut_blocks(struct iovec cut[MAX_BLOCKS], const struct iovec *blocks, size_t length)
{
    size_t count = 0;
    do {
        cut[count] = blocks[count];
        if (cut[count].iov_len > length) {
            cut[count].iov_len = length;
        }
        length -= cut[count++].iov_len;
    } while (length > 0);
    return count;
}

static ssize_t
write_vector(int fd, const struct iovec *blocks, int count)
{
    struct call call = begin(IO_WRITE, fd, sum_blocks(blocks, (size_t)count));
    if (call.is_over) {
        return call.result;
    }
    if (call.fault == NULL) {
        return io_system_calls.write_vector(fd, blocks, count);
    }
    struct iovec cut[MAX_BLOCKS];
    int cut_count = (int)cut_blocks(cut, blocks, call.length);
    return end(&call, io_system_calls.write_vector(fd, cut, cut_count));
}

// The message with its blocks cut to what the call may move.
static struct msghdr
cut_message(const struct msghdr *message, struct iovec cut[MAX_BLOCKS], size_t length)
{
    struct msghdr result = *message;
    result.msg_iov = cut;
    // The field is an int on some systems and a size_t on others.
    result.msg_iovlen =
        (__typeof__(result.msg_iovlen))cut_blocks(cut, message->msg_iov, length);
    return result;
}

static ssize_t
send_message(int fd, const struct msghdr *message, int flags)
{
    size_t length = sum_blocks(message->msg_iov, (size_t)message->msg_iovlen);
    struct call call = begin(IO_WRITE, fd, length);
    if (call.is_over) {
        return call.result;
    }
    if (call.fault == NULL) {
        return io_system_calls.send_message(fd, message, flags);
    }
    struct iovec blocks[MAX_BLOCKS];
    struct msghdr cut = cut_message(message, blocks, call.length);
    return end(&call, io_system_calls.send_message(fd, &cut, flags));
}

static ssize_t
receive_message(int fd, struct msghdr *message, int flags)
{
    size_t length = sum_blocks(message->msg_iov, (size_t)message->msg_iovlen);
    struct call call = begin(IO_READ, fd, length);
    if (call.is_over) {
        if (call.result ==
            0) { // the end of file; a failure leaves the fields as they are
            message->msg_namelen = 0; // not reached: a connection remembers its failure
            message->msg_controllen = 0;
            message->msg_flags = 0;
        }
        return call.result;
    }
    if (call.fault == NULL) {
        return io_system_calls.receive_message(fd, message, flags);
    }
    struct iovec blocks[MAX_BLOCKS];
    struct msghdr cut = cut_message(message, blocks, call.length);
    ssize_t result = end(&call, io_system_calls.receive_message(fd, &cut, flags));
    message->msg_namelen = cut.msg_namelen;
    message->msg_controllen = cut.msg_controllen;
    message->msg_flags = cut.msg_flags;
    return result;
}

static ssize_t
send_file(int fd, int file_fd, int64_t offset, size_t length)
{
    struct call call = begin(IO_SEND_FILE, fd, length);
    return call.is_over
               ? call.result
               : end(&call, io_system_calls.send_file(fd, file_fd, offset, call.length));
}

static ssize_t
read_at(int fd, void *data, size_t length, int64_t offset)
{
    struct call call = begin(IO_READ_FILE, fd, length);
    return call.is_over
               ? call.result
               : end(&call, io_system_calls.read_at(fd, data, call.length, offset));
}

// What was opened has none of the marks of what had its number before.
static int
note_opened(int fd)
{
    clear_marks(faults_here, fd);
    return fd;
}

static int
accept_connection(int fd, struct sockaddr *address, socklen_t *length)
{
    struct call call = begin(IO_ACCEPT, fd, 0);
    if (call.is_over) {
        return call.result;
    }
    return note_opened(io_system_calls.accept(fd, address, length));
}

static int
connect_socket(int fd, const struct sockaddr *address, socklen_t length)
{
    struct call call = begin(IO_CONNECT, fd, 0);
    if (!call.is_over) {
        return io_system_calls.connect(fd, address, length);
    }
    int error = errno;
    if (error == EINTR || error == EINPROGRESS) {
        // It goes on; how it ends, an event and the socket's error tell.
        if (io_system_calls.connect(fd, address, length) < 0) {
            return -1;
        }
        errno = error;
    }
    return -1;
}

static int
open_socket(int domain, int type, int protocol)
{
    struct call call = begin(IO_OPEN, -1, 0);
    return call.is_over
               ? call.result
               : note_opened(io_system_calls.open_socket(domain, type, protocol));
}

static int
duplicate(int fd)
{
    struct call call = begin(IO_OPEN, -1, 0);
    return call.is_over ? call.result : note_opened(io_system_calls.duplicate(fd));
}

static int
close_descriptor(int fd)
{
    clear_marks(faults_here, fd);
    return io_system_calls.close(fd);
}

static const struct io_calls faulty_calls = {
    .receive = receive,
    .receive_message = receive_message,
    .read = read_bytes,
    .send = send_bytes,
    .send_message = send_message,
    .write = write_bytes,
    .write_vector = write_vector,
    .send_file = send_file,
    .read_at = read_at,
    .accept = accept_connection,
    .connect = connect_socket,
    .open_socket = open_socket,
    .duplicate = duplicate,
    .close = close_descriptor,
};
