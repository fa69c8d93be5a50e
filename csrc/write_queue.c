// write_queue.c: bytes waiting to be sent; see write_queue.h.
//
// Called by a connection that coalesces its writes, or whose socket takes no more. The
// queue has no rules of its own beyond those of the block it is made of; the name is
// kept apart so that what waits can become more than bytes.
//
// Not here: the memory (byte_block.c), sending.

#include "write_queue.h"

void
write_queue_init(struct write_queue *queue)
{
    byte_block_init(&queue->block);
}

void
write_queue_clear(struct write_queue *queue)
{
    byte_block_clear(&queue->block);
}

int
write_queue_append(struct write_queue *queue, const char *data, size_t length)
{
    return byte_block_append(&queue->block, data, length);
}

void
write_queue_drain(struct write_queue *queue, size_t length)
{
    byte_block_drain(&queue->block, length);
}

bool
write_queue_is_consistent(const struct write_queue *queue)
{
    return byte_block_is_consistent(&queue->block);
}
