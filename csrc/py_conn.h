// py_conn.h: sk_conn, a connection: any pollable descriptor with its buffers.
//
// py_conn.c has its life (making, events, waiting), py_conn_close.c its end, py_conn_new.c its
// constructor, py_conn_type.c the type and its attributes; py_conn_read.c and py_conn_write.c
// have the two directions, py_conn_lines.c lines and records, py_conn_input.c what is held,
// py_conn_output.c and py_conn_file.c what users queue, py_valve.c what holds a direction;
// py_conn_socket.c connect and the socket options, py_conn_accept.c listening and accepting,
// py_conn_message.c datagrams and ancillary data.
//
// Readiness: a connection is registered once, both directions, edge-triggered, when it
// first has to wait. may_read and may_write say whether trying a system call can make
// sense; an edge sets them, EAGAIN clears them. A listener is registered level-triggered
// and only for reading, and not at all while nobody accepts or it is paused.

#ifndef CORONET_PY_CONN_H
#define CORONET_PY_CONN_H

#include "py_hub.h"

#include <errno.h>

#include "frame.h"
#include "line_buffer.h"
#include "nonblocking_io.h"
#include "write_queue.h"

typedef struct SkConnObject SkConnObject;
typedef struct TrafficObject TrafficObject;
struct transport;
struct valve;
struct parameters;

enum flow_direction { FLOW_IN, FLOW_OUT };

// What most connections leave as it is. Two elements: reading, then writing.
struct conn_options {
    uint64_t low_mark[2];  // bytes held, waiting: on_data is called from so many on, ...
    uint64_t high_mark[2]; // ... and reading stops; py_conn_options.c has the words
    int64_t timeout_ns[2]; // of one direction alone; -1 = none
    int64_t linger_ns;     // -1 = no limit
};

// Those of a connection that has none of its own.
extern const struct conn_options conn_default_options;

struct SkConnObject {
    PyObject_HEAD
    struct ready_target target; // takes the reactor's events
    PyObject *weak_references;
    HubObject *hub; // owned
    int fd;         // -1 once the descriptor is closed or was lost

    bool is_closed : 1; // close() was called; the fd may still send what is left
    bool is_socket : 1;
    bool is_stream : 1; // false for datagram sockets
    bool is_listener : 1;
    bool is_internet_stream : 1; // TCP: a short read means that no more is there ...
    bool reads_to_the_end : 1;   // ... unless a hang-up or urgent data was seen
    bool may_read : 1;
    bool may_write : 1;
    bool is_buffered : 1;         // writes are coalesced
    bool was_blocking : 1;        // O_NONBLOCK was off when we took the fd: restored
    bool reader_wants_room : 1;   // its reader, in wait_fd(), waits for writing as well
    bool reader_needs_answer : 1; // its reader shakes hands: woken if output is lost
    bool writer_is_paused : 1; // its writer waits for waiting_owner's packet to leave ...
    bool pauses_to_low_mark : 1; // ... or for so little to wait
    bool is_cut_off : 1;         // its output ended in the middle of a file
    bool was_accepted : 1;       // so it is connected, and no listener
    bool is_exclusive : 1;       // a listener that other processes wait on, too
    bool is_reset : 1;           // a test's peer has gone; that is to be told as a reset
    bool was_woken_in_vain : 1;  // hard mode: its last wait has ended for nothing
    uint8_t priority;            // enum priority, of its callbacks

    struct waiter *reader;       // who waits to read, NULL = nobody
    struct waiter *writer;       // who waits to write, NULL = nobody
    struct line_buffer input;    // bytes received and not yet taken
    struct write_queue output;   // packets written and not yet sent
    struct transport *transport; // owned; its layers (py_layer.h), NULL = none
    struct valve *valve; // owned; what holds its directions (py_valve.h), NULL = nothing
    void *waiting_owner; // borrowed; of the packet its writer waits for, or NULL
    uint64_t writer_unsent;       // once that is gone: how much of it was dropped
    struct conn_options *options; // owned; NULL: as it is for all
    int64_t timeout_ns;           // bounds each wait; -1 = none
    int error;                    // errno of the last failure, 0 = none
    int write_error;              // -errno of a failed flush, for the next write to raise
    int broken_by;                // errno that the stream broke off with, 0 = none
    unsigned events;              // what resumes the bound coroutine in co_resume
    unsigned revents;             // what was ready when something last was
    PyObject *coroutine;          // owned; the Task bound by conet, or NULL
    uint64_t device;              // with inode: which file the fd was, to notice that
    uint64_t inode;               // the number was closed and reused behind our back
    struct list_node hub_link;    // on hub->connections while it has an fd
    struct list_node dirty_link; // on hub->dirty while coalesced output has not been sent
    struct drain *drain;         // owned; while it is closed and sends what is left
    struct callbacks *callbacks; // owned; who is told what happens to it, or NULL
    uint64_t moved_bytes[2];     // by enum flow_direction, on the wire (py_traffic.h)
    int64_t created_ns;          // since the epoch
    TrafficObject *traffic;      // owned; which counts its bytes too, or NULL
    PyObject *server;            // owned; what users have it belong to, or NULL
};

// --- py_conn.c ----------------------------------------------------------------------

// What the result of a system call is told as: [end], by which it says that the peer has gone,
// is a reset where a test wants that. The kernel tells an error once, to whoever asks first,
// and from then on of an end of file: who reads must not take that for the whole stream.
static inline ssize_t
conn_tell(const SkConnObject *conn, ssize_t count, ssize_t end)
{
    if (count != end) {
        return count;
    }
    return conn->is_reset ? -ECONNRESET : end == 0 ? -(ssize_t)conn->broken_by : count;
}

// Notes what a system call has failed with, if that is the end of the stream.
void conn_note_break(SkConnObject *conn, ssize_t error);

// A connection for [fd] of this description, which goes to it: on failure it is closed.
// A new reference, NULL with an exception. The fd is non-blocking already.
SkConnObject *conn_new(HubObject *hub, int fd, const struct io_description *description);

// Has the hub know whose conn->fd is. 0 or -errno.
int conn_claim_descriptor(SkConnObject *conn);

// Raises what is wrong with using the connection now. Returns -1.
int conn_refuse(SkConnObject *conn);

// 0 if the connection is open and the caller in its thread; else -1 with an exception.
static inline int
conn_check_usable(SkConnObject *conn)
{
    if (conn->hub->thread_id == PyThread_get_thread_ident() && !conn->is_closed &&
        !conn->hub->is_closed) {
        return 0;
    }
    return conn_refuse(conn);
}

// 0 if the caller is in the connection's thread, whether it is open or not. Once the hub is
// gone, with its thread perhaps, any thread may close what it left open. Else -1 with
// RuntimeError.
int conn_check_thread(const SkConnObject *conn);

// 0 if it is open, the caller in its thread, and it is a socket; otherwise -1 with OSError (ENOTSOCK).
int conn_check_socket(SkConnObject *conn);

// A connection with callbacks is read by them: 0 if [direction] is another, or if one of
// them asks; else -1 with BusyError. What has just come is in the buffer after it.
int callbacks_begin(SkConnObject *conn, const char *direction);

// 0 if [waiter] (its reader or writer) is free; else -1 with BusyError.
int conn_check_free(SkConnObject *conn, struct waiter *waiter, const char *direction);

// The connection behind a watch table's owner; NULL for other owners and for NULL.
SkConnObject *conn_of_target(struct ready_target *target);

// What every operation begins with: the connection is usable, [*place] (its reader or writer)
// free, and the operation counted, which may switch. NULL: it needs neither. 0, or -1 with an
// exception.
int conn_begin(SkConnObject *conn, struct waiter **place, const char *direction);

// Parks until a direction may make progress, within the connection's timeout. 0, or -1
// with an exception: TimeoutError, ClosedError and what hub_park() raises. Switches.
int conn_wait_readable(SkConnObject *conn, const char *operation);
int conn_wait_writable(SkConnObject *conn, const char *operation);

// The same for [waiter], its reader or writer, within [timeout_ns] (-1: no limit).
int conn_wait_within(SkConnObject *conn, struct waiter **place, int64_t timeout_ns,
                     const char *operation);

// The same, but 1 without an exception when the time is over.
int conn_park_within(SkConnObject *conn, struct waiter **place, int64_t timeout_ns,
                     const char *operation);

// Raises RuntimeError if the connection has layers, which [operation] would go past. 0 or -1.
int conn_check_unlayered(SkConnObject *conn, const char *operation);

// Tells the engine of the fd, if it does not know it yet. 0 or -errno.
int conn_register(SkConnObject *conn);

// Keeps the failure as the connection's error and raises it. Returns NULL.
PyObject *conn_raise(SkConnObject *conn, ssize_t negative_errno);
PyObject *conn_raise_closed(SkConnObject *conn);

// Goes on sending, ends the draining that is done, and wakes a writer that paused for it
// ([*woke]). The result of conn_flush(). The caller owns a reference.
int conn_send_on(SkConnObject *conn, bool *woke);

// The coroutine bound by conet waits in co_resume for what mod() asked for: wakes it if that
// is [ready]. If it does not wait now and nobody else took the event ([woke]), its next
// co_resume returns at once: an edge does not come twice. True if somebody was woken.
bool conn_resume_coroutine(SkConnObject *conn, unsigned ready, bool woke);

// " to ('127.0.0.1', 7000)" for reports, "" if there is no such name. A new reference, NULL with
// an exception.
PyObject *conn_describe_address(SkConnObject *conn);

// --- py_conn_close.c ----------------------------------------------------------------

// Wakes its waiters with ClosedError and closes the fd, at once if no output is left,
// otherwise when it has been sent. Idempotent. -1 with an exception if closing failed, or
// if output failed before and nobody has been told. Never switches.
int conn_close(SkConnObject *conn);

// Drops the output and closes the fd at once.
void conn_abort(SkConnObject *conn);

// The fd's number now belongs to another file: closed, but without closing the fd.
void conn_detach(SkConnObject *conn);

// True if some connection still has output to send; sends what can be sent now.
bool conn_has_any_output(HubObject *hub);

// For a hub that is gone: no connection refers to its reactor any more.
void conn_forget_all(HubObject *hub);

// The closed connection has sent what it had, or may not go on: closes the fd. Gives the
// drain's reference back.
void conn_end_drain(SkConnObject *conn);

// --- py_conn_new.c ------------------------------------------------------------------

// _attach(fd): a detached connection goes on in another thread.
extern const char conn_attach_doc[];
PyObject *conn_attach(SkConnObject *conn, PyObject *number);

// tp_new: sk_conn(fd).
PyObject *conn_construct(PyTypeObject *type, PyObject *arguments, PyObject *keywords);

// --- py_conn_read.c -----------------------------------------------------------------

extern PyMethodDef conn_read_methods[];

// How much is asked of the kernel when how much will come is unknown.
#define READ_CHUNK_SIZE (64 * 1024)

// One attempt to receive, past any layers: the count, 0 at the end of file, -EAGAIN or
// another -errno.
ssize_t conn_receive_now(SkConnObject *conn, char *data, size_t length);

// Keeps bytes that have left the kernel. Without memory for them the stream has a hole, so
// the connection ends here. 0, or -1 with MemoryError.
int conn_keep_input(SkConnObject *conn, const char *data, size_t length);

// Receives into [data], parking until something is there: the count, 0 at the end of file, or
// -1 with an exception. Past any layers. [data] must outlive a switch. INPUT_PREPENDED if
// prepend() put bytes into the buffer meanwhile; nothing was received then.
#define INPUT_PREPENDED (-2)
ssize_t conn_receive(SkConnObject *conn, char *data, size_t length,
                     const char *operation);

// Adds what comes next to the buffer, about [wanted] bytes of it if that is known, else 0:
// 1, 0 at the end of file, or -1 with an exception. May switch. FILLED_IN_FRONT if it was
// prepend() that added something: who searches the buffer has to begin anew.
#define FILLED_IN_FRONT 2
int conn_fill_input(SkConnObject *conn, size_t wanted, const char *operation);

// The first [length] bytes of the buffer.
static inline PyObject *
conn_take_input(SkConnObject *conn, size_t length)
{
    PyObject *bytes =
        PyBytes_FromStringAndSize(line_buffer_data(&conn->input), (Py_ssize_t)length);
    if (bytes != NULL) {
        line_buffer_drain(&conn->input, length);
    }
    return bytes;
}

// Raises IncompleteReadError with all that is held, which is taken. Returns NULL.
PyObject *conn_raise_incomplete(SkConnObject *conn);

// --- py_conn_lines.c ----------------------------------------------------------------

extern PyMethodDef conn_line_methods[];

// How a line is to be read.
struct line_options {
    size_t limit; // the most bytes it may have, ending included
    enum line_ending ending;
    bool keeps_end; // what is returned has its ending
};

// The arguments of readln() and take_line(): limit=65536, eol="lf", keepends=True. 0, or -1
// with an exception.
int conn_parse_line_options(const struct parameters *parameters,
                            PyObject *const *arguments, Py_ssize_t count,
                            PyObject *keyword_names, struct line_options *options);

// The names of these arguments, for struct parameters.
extern const char *const conn_line_option_names[];

// Takes a line out of the buffer. NULL without an exception: there is no whole one.
PyObject *conn_take_buffered_line(SkConnObject *conn, const struct line_options *options);

// tp_iternext: the next line; NULL without an exception at the end of file.
PyObject *conn_next_line(SkConnObject *conn);

// --- py_conn_frames.c ---------------------------------------------------------------

extern PyMethodDef conn_frame_methods[];

// How a frame is to be read.
struct frame_options {
    struct frame_format format;
    size_t limit; // the most bytes its payload may have
};

// The arguments of read_frame() and take_frame(): format=">I", limit=1048576. 0, or -1 with
// an exception.
int conn_parse_frame_options(const struct parameters *parameters,
                             PyObject *const *arguments, Py_ssize_t count,
                             PyObject *keyword_names, struct frame_options *options);

// The names of these arguments, for struct parameters.
extern const char *const conn_frame_option_names[];

// Takes a frame out of the buffer and returns its payload. NULL without an exception: it is
// not whole, and [*missing] bytes more are needed, as far as can be told.
PyObject *conn_take_buffered_frame(SkConnObject *conn,
                                   const struct frame_options *options, size_t *missing);

// --- py_conn_send.c -----------------------------------------------------------------

// How much is asked for, of [usual] bytes, where what comes is kept until it is whole: in hard
// mode one byte, of the first of each stream. Who asks for what is there (readsome, recv,
// take) is given that.
static inline size_t
conn_receive_size(const SkConnObject *conn, size_t usual)
{
    bool is_cut = HARD_MODE && conn->is_socket && conn->is_stream &&
                  conn->moved_bytes[FLOW_IN] < HARD_MODE_MAX_TIGHT_BYTES;
    return is_cut ? 1 : usual;
}

// How much of [length] bytes one call is to send: in hard mode not all that could leave.
static inline size_t
conn_send_length(const SkConnObject *conn, size_t length)
{
    return conn->is_socket && conn->is_stream ? hard_mode_cut(length) : length;
}

// One system call for what the spans hold, past any layers. The count, or -errno.
ssize_t conn_send_spans(SkConnObject *conn, const struct iovec *spans, int count);

// One attempt to send a block, past the queue, which is empty, and past any valve or layers: the
// count or -errno.
ssize_t conn_send_now(SkConnObject *conn, const char *data, size_t length);

// Sends the coalesced output of every connection that has some. Failures are kept for
// the next write.
void conn_flush_dirty(HubObject *hub);

static inline void
hub_flush_output(HubObject *hub)
{
    if (!list_is_empty(&hub->dirty)) {
        conn_flush_dirty(hub);
    }
}

// Sends what the queue holds, as far as the kernel takes it. 0, -EAGAIN (an event will
// tell when to go on), FLUSH_GOES_ON (the next turn will go on), or another -errno: the
// queue is dropped, the error kept. The caller owns a reference: other threads may run.
#define FLUSH_GOES_ON 1
int conn_flush(SkConnObject *conn);

// How many bytes it may send in a turn: fewer where single limits cap each system call.
uint64_t conn_turn_budget(const SkConnObject *conn);

// Drops the output for an error of the kernel, which is kept for the next write. Returns it.
int conn_fail_output(SkConnObject *conn, int error);

// Puts it on the hub's dirty list: what waits leaves before anybody waits.
void conn_mark_dirty(SkConnObject *conn);

// --- py_conn_write.c ----------------------------------------------------------------

extern PyMethodDef conn_write_methods[];

// Raises the failure that was kept, once; for a stream that was cut off also later, with
// another text. Returns -1.
int conn_raise_write_error(SkConnObject *conn);

// A writer that waits notes the owner of its packet as conn->waiting_owner; the packet's
// release function calls conn_note_left().
void conn_note_left(SkConnObject *conn, uint64_t unsent);

// Sends and parks until that packet has left, or with [to_low_mark] until no more than that
// waits. 0, or -1 with an exception; the packet may still be in the queue then.
int conn_pause_writer(SkConnObject *conn, bool to_low_mark, const char *operation);

// Whether what it paused for has not come yet.
bool conn_writer_must_wait(const SkConnObject *conn);

// Bytes that were written and not yet sent: not those that a write() still waits to hand over.
uint64_t conn_pending(SkConnObject *conn);

// Puts the number of bytes written on the exception that is set.
void conn_note_bytes_written(size_t written);

// Takes the packet of a writer that waits out of the queue, if there is one.
void conn_withdraw_write(SkConnObject *conn);

// --- py_conn_options.c --------------------------------------------------------------

extern PyMethodDef conn_option_methods[];
extern PyGetSetDef conn_option_attributes[];

static inline const struct conn_options *
conn_options_of(const SkConnObject *conn)
{
    return conn->options == NULL ? &conn_default_options : conn->options;
}

// How long a wait in this direction may take: the shorter one of the connection's timeout
// and the direction's; -1 = no limit.
static inline int64_t
conn_wait_limit_ns(const SkConnObject *conn, enum flow_direction direction)
{
    int64_t own_ns = conn->options == NULL ? -1 : conn->options->timeout_ns[direction];
    bool is_shorter = own_ns >= 0 && (conn->timeout_ns < 0 || own_ns < conn->timeout_ns);
    return is_shorter ? own_ns : conn->timeout_ns;
}

// --- py_conn_output.c ---------------------------------------------------------------

extern PyMethodDef conn_output_methods[];
extern PyGetSetDef conn_output_attributes[];

// 0 if the connection is open and no earlier output failed; else -1 with an exception.
int conn_check_may_queue(SkConnObject *conn);

// Moves the packets of [batch] to the queue, as one message; see write_queue_join(). They
// leave before anybody waits.
void conn_queue(SkConnObject *conn, struct write_queue *batch, bool is_urgent,
                bool is_joined);

// The objects that packets refer to, for tp_traverse.
int conn_visit_output(SkConnObject *conn, visitproc visit, void *arg);

// The bytes object that the packet refers to, borrowed; NULL if it is none.
PyObject *conn_packet_bytes(const struct write_packet *packet);

// The module's flush_all().
PyObject *conn_flush_all(PyObject *module, PyObject *unused);

// --- py_conn_file.c -----------------------------------------------------------------

extern PyMethodDef conn_file_methods[];

// --- py_conn_socket.c ---------------------------------------------------------------

extern PyMethodDef conn_socket_methods[];

// The module's _socket(family, type, protocol=0): a connection over a new socket.
PyObject *socket_open(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

// A connection over the new non-blocking socket [fd], which goes to it: closed on failure.
// All but the file's identity is known already. A new reference, NULL with an exception.
SkConnObject *conn_adopt_socket(HubObject *hub, int fd, bool is_stream,
                                bool is_internet_stream);

// --- py_conn_accept.c -----------------------------------------------------------------

extern PyMethodDef conn_accept_methods[];
extern PyGetSetDef conn_accept_attributes[];

// The module's _listen(conn, backlog): it is a listener from now on, on systems too that
// cannot be asked.
PyObject *conn_listen(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

// A socket may have begun to listen after its connection was made: sets is_listener.
void conn_notice_listener(SkConnObject *conn);

// An event has come while connect() goes on for callbacks. False if it does so still; else
// the callbacks are told how it ended.
bool conn_end_connect(SkConnObject *conn, unsigned ready);

// Takes a connection off the queue of a listener without waiting. 0 with a new reference in
// [*accepted], which is NULL if the one that was there had failed; -errno, -EAGAIN for none;
// 1 with an exception if one was lost for want of memory.
int conn_accept_now(SkConnObject *conn, SkConnObject **accepted);

// --- py_conn_take.c -------------------------------------------------------------------

extern PyMethodDef conn_take_methods[];

// 0 if the caller may take what is held: the connection is usable and no task reads; else
// -1 with an exception.
int conn_check_may_take(SkConnObject *conn);

// Drops the first [length] bytes held, fresh or in the buffer; no more than there are.
void conn_drain_input(SkConnObject *conn, size_t length);

// --- py_conn_input.c ------------------------------------------------------------------

extern PyMethodDef conn_input_methods[];
extern PyGetSetDef conn_input_attributes[];

// --- py_conn_now.c --------------------------------------------------------------------

extern PyMethodDef conn_now_methods[];

// Has what came last for the callbacks, and was not taken, in the connection's buffer. 0, or
// -1 with MemoryError and the connection closed.
int conn_keep_fresh(SkConnObject *conn);

// --- py_conn_message.c --------------------------------------------------------------

extern PyMethodDef conn_message_methods[];

// Sends what waits in the queue, so that what comes next is not sent past it; for a
// caller whose conn_begin() found the writer free. 0, or -1 with an exception. Switches.
int conn_send_pending(SkConnObject *conn, const char *operation);

#endif
