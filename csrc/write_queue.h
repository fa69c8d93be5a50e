// write_queue.h: bytes waiting to be sent.
//
// Small writes are copied behind each other and leave together in one system call.
// The block exists only while bytes wait: an idle connection owns none.
//
// Not here: sending, deciding when to send (the connection's), Python objects.

#ifndef CORONET_WRITE_QUEUE_H
#define CORONET_WRITE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

struct write_queue {
    char *block;                 // owned; NULL while nothing waits
    size_t start;                // offset of the first byte that waits
    size_t end;                  // offset behind the last
    size_t capacity;             // size of the block
};

void write_queue_init(struct write_queue *queue);

// Frees the block and forgets the bytes; the queue is empty and usable again.
void write_queue_clear(struct write_queue *queue);

static inline size_t
write_queue_length(const struct write_queue *queue)
{
    return queue->end - queue->start;
}

// The first byte that waits; borrowed, until the next call that changes the queue.
static inline const char *
write_queue_data(const struct write_queue *queue)
{
    return queue->block + queue->start;
}

// Adds a copy of [length] bytes at the end. Returns 0, or -ENOMEM with nothing changed.
int write_queue_append(struct write_queue *queue, const char *data, size_t length);

// Drops the first [length] bytes, which have been sent. The last one's going frees the
// block.
void write_queue_drain(struct write_queue *queue, size_t length);

// Checks every invariant; false if one is broken. For tests and debug builds.
bool write_queue_is_consistent(const struct write_queue *queue);

#endif
