// write_queue.h: packets waiting to be sent: bytes, files and marks, in order.
//
// A packet is what urgent output may overtake but never cut in two. Several packets can
// be one message: only before a packet that starts one may something urgent go in. The
// stream of small writes is such a message, a chain of packets that grows at its end.
//
// Every packet is a block of memory of its own, so an empty queue owns none. What a packet
// refers to (an object, a descriptor) is its owner: the queue calls the packet's release
// function exactly once, when its last byte has left or when it is dropped, in the order of
// the queue, and only when it is in order itself: the function may use the queue.
//
// A spare packet is one of the stream that has left and is in no queue: what is written next
// goes there, so that what is sent at once is neither allocated nor freed. One serves many
// queues; write_packet_free() ends it.
//
// Not here: sending, deciding when to send (the connection's), Python objects.

#ifndef CORONET_WRITE_QUEUE_H
#define CORONET_WRITE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum write_packet_kind {
    WRITE_BYTES, // bytes of the packet's own or of its owner
    WRITE_FILE,  // bytes of a file
    WRITE_MARK,  // none: a place in the stream, which its layer is told of
};

// Gives the owner back. [unsent] bytes of the packet were dropped; 0: all has left.
typedef void (*write_release)(void *owner, uint64_t unsent);

struct write_packet {
    struct write_packet *next; // NULL for the last one
    uint64_t left;             // bytes that have not left
    const char *bytes;         // WRITE_BYTES: the first of them
    int64_t offset;            // WRITE_FILE: where in the file the first of them is
    write_release release;     // NULL: there is no owner
    void *owner;
    void *layer;   // the top transport layer when it was queued; NULL = none
    uint32_t room; // free bytes behind the last: the stream may grow there
    int fd;        // WRITE_FILE: the file
    uint8_t kind;  // enum write_packet_kind
    bool is_urgent : 1;
    bool starts_message : 1; // something urgent may be put in before it
    bool has_begun : 1;      // some of it has left
    bool is_stream : 1;      // made by write_queue_append()
    bool
        must_be_read : 1; // WRITE_FILE, for the sender: the system cannot send it by itself
    char memory[];        // a copied packet's bytes
};

struct write_queue {
    struct write_packet *first;
    struct write_packet *last;
    uint64_t length; // bytes of all packets, those of files too
};

// How a batch of packets is queued.
struct write_placing {
    void *layer;
    bool is_urgent;
    bool is_joined; // to what is in front of it: no urgent packet goes in between
};

static inline void
write_queue_init(struct write_queue *queue)
{
    *queue = (struct write_queue){.first = NULL};
}

// Drops all packets, releasing their owners; the queue is empty and usable again.
void write_queue_clear(struct write_queue *queue);

// An empty queue may still hold packets of no bytes: they are gone only when this is true.
static inline bool
write_queue_is_empty(const struct write_queue *queue)
{
    return queue->first == NULL;
}

static inline uint64_t
write_queue_length(const struct write_queue *queue)
{
    return queue->length;
}

// --- Adding -----------------------------------------------------------------------------

// Adds a copy of [length] bytes to the stream at the end: to its last packet as far as
// there is room. An empty queue takes [*spare] if they fit in there. Returns 0, or -ENOMEM
// with nothing changed.
int write_queue_append(struct write_queue *queue, const char *data, size_t length,
                       void *layer, struct write_packet **spare);

// Each adds one packet at the end, a message of its own, and returns 0; or -ENOMEM with
// nothing changed and nothing released. A copy; bytes of [owner]; [length] bytes of the file
// [fd] from [offset] on; a mark for [layer]. [release] may be NULL.
int write_queue_copy(struct write_queue *queue, const char *data, size_t length);
int write_queue_refer(struct write_queue *queue, const char *data, size_t length,
                      write_release release, void *owner);
int write_queue_add_file(struct write_queue *queue, int fd, int64_t offset,
                         uint64_t length, write_release release, void *owner);
int write_queue_add_mark(struct write_queue *queue, void *layer, write_release release,
                         void *owner);

// Moves all packets of [batch], none of them marks, to [queue], as one message: to its end;
// or, if they are urgent, behind what has begun to leave and behind earlier urgent
// packets, before the first message that may be overtaken. Nothing overtakes a packet of
// another layer, or a mark.
void write_queue_join(struct write_queue *queue, struct write_queue *batch,
                      const struct write_placing *placing);

// --- Taking -----------------------------------------------------------------------------

// The packet that leaves next, NULL if there is none; borrowed, until the next call that
// changes the queue. The sender may set its must_be_read.
static inline struct write_packet *
write_queue_first(const struct write_queue *queue)
{
    return queue->first;
}

// Fills at most [capacity] spans with the bytes of the leading packets, up to the first one
// that is not WRITE_BYTES or of another layer than the first. The number of spans: 0 also
// when the leading packets hold no bytes, which write_queue_drain(queue, 0) takes away.
int write_queue_gather(const struct write_queue *queue, struct iovec *spans,
                       int capacity);

// Takes away the first [length] bytes, which have left: no more than there are, and not past
// a mark. Leading packets without bytes go with them, except marks. Of those of the stream
// one that is not too large is kept as [*spare].
void write_queue_drain(struct write_queue *queue, uint64_t length,
                       struct write_packet **spare);

// Ends a packet that is in no queue, such as a spare one, or NULL.
void write_packet_free(struct write_packet *packet);

// Takes the first packet away, whatever is left of it: for a mark that was told.
void write_queue_drop_first(struct write_queue *queue);

// How many bytes of [owner]'s packet have not left; 0 if there is none.
uint64_t write_queue_left_of(struct write_queue *queue, const void *owner);

// Takes the packet of [owner] out, wherever it stands, and releases it. False if there is
// none.
bool write_queue_withdraw(struct write_queue *queue, const void *owner);

// Puts a copy in the place of the bytes that are left of [owner]'s packet, and releases it.
// 0, also if it has none; or -ENOMEM with nothing changed.
int write_queue_keep_copy(struct write_queue *queue, const void *owner);

// Checks every invariant; false if one is broken. For tests and debug builds.
bool write_queue_is_consistent(const struct write_queue *queue);

#endif
