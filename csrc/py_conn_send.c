// py_conn_send.c: sending: what the output queue holds, as far as the kernel takes it.
//
// Layers have a way of their own down from the queue (py_layer_output.c). A valve, where there
// is one, is asked here how much each system call may send.

#include "py_conn.h"

#include <errno.h>

#include "py_callbacks.h"
#include "py_layer.h"
#include "py_traffic.h"

// How many packets leave in one call.
#define FLUSH_SPANS 64

// How much one connection sends in a turn, so that none keeps the others waiting.
#define FLUSH_BUDGET ((uint64_t)1024 * 1024)

// How often it sends in a turn if each time is capped, whatever it may send in all.
#define CAPPED_SENDS 4

// How much of a file is read at a time where the system cannot send it by itself.
#define FILE_CHUNK_SIZE ((uint64_t)16 * 1024)

// --- Sending ----------------------------------------------------------------------------

// One block, the GIL given up if it is long. The count, or -errno.
static ssize_t
send_block(SkConnObject *conn, const char *data, size_t length)
{
    if (length < GIL_RELEASE_SIZE) {
        return conn->is_socket ? io_send(conn->fd, data, length)
                               : io_write(conn->fd, data, length);
    }
    ssize_t count;
    Py_BEGIN_ALLOW_THREADS
    count = conn->is_socket ? io_send(conn->fd, data, length)
                            : io_write(conn->fd, data, length);
    Py_END_ALLOW_THREADS
    return count;
}

ssize_t
conn_send_spans(SkConnObject *conn, const struct iovec *spans, int count)
{
    if (count == 1) {
        return conn->is_socket ? io_send(conn->fd, spans[0].iov_base, spans[0].iov_len)
                               : io_write(conn->fd, spans[0].iov_base, spans[0].iov_len);
    }
    return conn->is_socket ? io_send_vector(conn->fd, spans, count)
                           : io_write_vector(conn->fd, spans, count);
}

// Takes off the end of the spans what is more than [limit] bytes. How many are left.
static int
cut_spans(struct iovec *spans, int count, size_t limit)
{
    for (int i = 0; i < count; i++) {
        if (spans[i].iov_len >= limit) {
            spans[i].iov_len = limit;
            return i + 1;
        }
        limit -= spans[i].iov_len;
    }
    return count;
}

// Of the leading packets of bytes at most [limit]. The count, 0 if they hold none, or -errno.
static ssize_t
send_packets(SkConnObject *conn, size_t limit)
{
    struct iovec spans[FLUSH_SPANS];
    int count = write_queue_gather(&conn->output, spans, FLUSH_SPANS);
    if (limit < write_queue_length(&conn->output)) {
        count = cut_spans(spans, count, limit);
    }
    if (count <= 1) {
        return count == 0 ? 0 : send_block(conn, spans[0].iov_base, spans[0].iov_len);
    }
    if (write_queue_length(&conn->output) < GIL_RELEASE_SIZE) {
        return conn_send_spans(conn, spans, count);
    }
    ssize_t sent;
    Py_BEGIN_ALLOW_THREADS
    sent = conn_send_spans(conn, spans, count);
    Py_END_ALLOW_THREADS
    return sent;
}

// Of the file of the first packet at most [limit] bytes, read into the hub's scratch area.
static ssize_t
send_file_by_reading(SkConnObject *conn, const struct write_packet *packet,
                     uint64_t limit)
{
    char *chunk = conn->hub->scratch;
    uint64_t length = packet->left < limit ? packet->left : limit;
    ssize_t count;
    Py_BEGIN_ALLOW_THREADS
    count = io_read_at(packet->fd, chunk,
                       (size_t)(length < FILE_CHUNK_SIZE ? length : FILE_CHUNK_SIZE),
                       packet->offset);
    Py_END_ALLOW_THREADS
    if (count <= 0) {
        return count == 0 ? -EIO : count;
    }
    return send_block(conn, chunk, (size_t)count);
}

// Of the file of the first packet at most [limit] bytes. The count, at least 1, or -errno:
// -EIO also if the file has become shorter.
static ssize_t
send_file(SkConnObject *conn, struct write_packet *packet, uint64_t limit)
{
    if (packet->left == 0) {
        return 0; // not reached: empty files are not queued
    }
    if (!packet->must_be_read) {
        uint64_t length = packet->left < limit ? packet->left : limit;
        ssize_t count;
        // The disk may be slow.
        Py_BEGIN_ALLOW_THREADS
        count = io_send_file(conn->fd, packet->fd, packet->offset, (size_t)length);
        Py_END_ALLOW_THREADS
        if (count != 0 && count != -EOPNOTSUPP) {
            return count;
        }
        packet->must_be_read = true; // which also tells whether it really ends here
    }
    return send_file_by_reading(conn, packet, limit);
}

// Of the leading packets at most [limit] bytes. Outside a stream each packet is a message with
// borders, and leaves whole.
static ssize_t
send_bytes(SkConnObject *conn, const struct write_packet *packet, size_t limit)
{
    if (packet->next != NULL && conn->is_stream) {
        return send_packets(conn, limit);
    }
    uint64_t length = packet->left < limit || !conn->is_stream ? packet->left : limit;
    return length == 0 ? 0 : send_block(conn, packet->bytes, (size_t)length);
}

// Sends something of what stands first in the queue, at most [limit] bytes, and of files at
// most [budget]. How many bytes to take off the queue, or -errno.
static ssize_t
send_next(SkConnObject *conn, uint64_t budget, size_t limit)
{
    struct write_packet *packet = write_queue_first(&conn->output);
    if (HARD_MODE) {
        size_t length = (size_t)write_queue_length(&conn->output);
        limit = conn_send_length(conn, length < limit ? length : limit);
    }
    switch (packet->kind) {
    case WRITE_FILE:
        return send_file(conn, packet, budget < limit ? budget : limit);
    case WRITE_MARK: // not reached: a transport takes its marks itself
        write_queue_drop_first(&conn->output);
        return 0;
    default:
        return send_bytes(conn, packet, limit);
    }
}

// The same as far as the valve allows.
static ssize_t
send_next_held(SkConnObject *conn, uint64_t budget)
{
    uint64_t length = write_queue_length(&conn->output);
    size_t wanted = (size_t)(length < budget ? length : budget);
    size_t limit = wanted == 0 ? SIZE_MAX : valve_allowance(conn, FLOW_OUT, wanted);
    if (limit == 0) {
        return -EAGAIN;
    }
    return send_next(conn, budget, limit);
}

ssize_t
conn_send_now(SkConnObject *conn, const char *data, size_t length)
{
    ssize_t count = send_block(conn, data, conn_send_length(conn, length));
    return conn_tell(conn, conn_note_moved(conn, FLOW_OUT, count), -EPIPE);
}

// The queue is lost. A stream that breaks off in the middle of a file must not look as if it
// had ended, and nothing may follow: the peer would take it for the rest of the file.
int
conn_fail_output(SkConnObject *conn, int error)
{
    struct write_packet *first = write_queue_first(&conn->output);
    if (first != NULL && first->kind == WRITE_FILE) {
        conn->is_cut_off = true;
        if (conn->is_socket) {
            io_set_hard_close(conn->fd);
        }
    }
    error = (int)conn_tell(conn, error, -EPIPE);
    conn->write_error = error;
    if (conn->callbacks != NULL) {
        callbacks_notice(conn); // on_error is due
    }
    write_queue_clear(&conn->output);
    if (conn->reader_needs_answer && conn->reader != NULL) {
        waiter_wake(conn->hub, conn->reader, WOKEN_READY);
    }
    return error;
}

uint64_t
conn_turn_budget(const SkConnObject *conn)
{
    uint64_t most =
        conn->valve == NULL ? FLUSH_BUDGET : conn->valve->single_limit[FLOW_OUT];
    return most < FLUSH_BUDGET / CAPPED_SENDS ? most * CAPPED_SENDS : FLUSH_BUDGET;
}

int
conn_flush(SkConnObject *conn)
{
    if (conn->transport != NULL) {
        return transport_flush(conn);
    }
    uint64_t budget = conn_turn_budget(conn);
    list_remove(&conn->dirty_link);
    while (!write_queue_is_empty(&conn->output)) {
        if (budget == 0) {
            list_append(&conn->hub->unfinished, &conn->dirty_link);
            return FLUSH_GOES_ON;
        }
        ssize_t count = !conn->may_write      ? -EAGAIN
                        : conn->valve == NULL ? send_next(conn, budget, SIZE_MAX)
                                              : send_next_held(conn, budget);
        conn_note_moved(conn, FLOW_OUT, count);
        if (count == -EAGAIN) {
            conn->may_write = false;
            count = conn_register(conn);
            if (count == 0) {
                return -EAGAIN;
            }
        }
        if (count < 0) {
            return conn_fail_output(conn, (int)count);
        }
        write_queue_drain(&conn->output, (uint64_t)count, &conn->hub->spare_packet);
        budget -= (uint64_t)count < budget ? (uint64_t)count : budget;
    }
    return 0;
}

void
conn_flush_dirty(HubObject *hub)
{
    struct list_node *node;
    while ((node = list_take_first(&hub->dirty)) != NULL) {
        SkConnObject *conn = CONTAINER_OF(node, SkConnObject, dirty_link);
        bool woke;
        Py_INCREF(conn);
        conn_send_on(conn, &woke);
        Py_DECREF(conn);
    }
}

void
conn_mark_dirty(SkConnObject *conn)
{
    if (!list_is_linked(&conn->dirty_link)) {
        list_append(&conn->hub->dirty, &conn->dirty_link);
    }
}
