// write_queue.h: bytes waiting to be sent.
//
// Small writes are copied behind each other and leave together in one system call.
// They lie in one block of memory (byte_block.h), which exists only while bytes wait:
// an idle connection owns none.
//
// Not here: sending, deciding when to send (the connection's), Python objects.

#ifndef CORONET_WRITE_QUEUE_H
#define CORONET_WRITE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

#include "byte_block.h"

struct write_queue {
    struct byte_block block; // the bytes that wait
};

void write_queue_init(struct write_queue *queue);

// Frees the block and forgets the bytes; the queue is empty and usable again.
void write_queue_clear(struct write_queue *queue);

static inline size_t
write_queue_length(const struct write_queue *queue)
{
    return byte_block_length(&queue->block);
}

// The first byte that waits, NULL if there is none; borrowed, until the next call that
// changes the queue.
static inline const char *
write_queue_data(const struct write_queue *queue)
{
    return byte_block_data(&queue->block);
}

// Adds a copy of [length] bytes, which may not be the queue's own, at the end. Returns
// 0, or -ENOMEM with nothing changed.
int write_queue_append(struct write_queue *queue, const char *data, size_t length);

// Drops the first [length] bytes, which have been sent, no more than wait. The last
// one's going frees the block.
void write_queue_drain(struct write_queue *queue, size_t length);

// Checks every invariant; false if one is broken. For tests and debug builds.
bool write_queue_is_consistent(const struct write_queue *queue);

#endif
