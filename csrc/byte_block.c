// byte_block.c: making room, and nothing else of difficulty; see byte_block.h.
//
// Called by line_buffer.c and write_queue.c only.
//
// Invariants: without a block all fields are zero; with one, start < end <= capacity.
// A block never holds more than PTRDIFF_MAX bytes, so sums of two lengths of which one
// has been checked cannot overflow.
//
// In hard mode a block grows by exactly what is needed: every append moves the bytes, and
// a pointer kept too long, or a byte written too far, is found at once by an address
// sanitizer.

#include "byte_block.h"

#include "hard_mode.h"
#include "live_counts.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// The least size of a block, enough for a few lines of a usual protocol.
#define BYTE_BLOCK_MIN_CAPACITY 512

void
byte_block_clear(struct byte_block *block)
{
    LIVE_COUNT(LIVE_BLOCKS, block->bytes == NULL ? 0 : -1);
    free(block->bytes);
    byte_block_init(block);
}

// The size of the block that replaces one of [capacity] bytes when [needed] bytes, at
// most PTRDIFF_MAX, are to go in.
static size_t
choose_capacity(size_t capacity, size_t needed)
{
    if (HARD_MODE && needed <= HARD_MODE_MAX_TIGHT_BYTES) {
        return needed > 0 ? needed : 1;
    }
    size_t chosen = BYTE_BLOCK_MIN_CAPACITY;
    if (capacity > PTRDIFF_MAX / 2) {
        return PTRDIFF_MAX;
    }
    if (capacity * 2 > chosen) {
        chosen = capacity * 2;
    }
    while (chosen < needed) {
        if (chosen > PTRDIFF_MAX / 2) {
            return needed;
        }
        chosen *= 2;
    }
    return chosen;
}

// Copies the bytes held to [start] of a larger block. A fresh one instead of realloc(),
// which would copy the drained bytes in front too.
static int
grow(struct byte_block *block, size_t capacity, size_t start)
{
    size_t length = byte_block_length(block);
    char *bytes = malloc(capacity);
    if (bytes == NULL) {
        return -ENOMEM;
    }
    if (length > 0) {
        memcpy(bytes + start, block->bytes + block->start, length);
    }
    LIVE_COUNT(LIVE_BLOCKS, block->bytes == NULL ? 1 : 0);
    free(block->bytes);
    *block = (struct byte_block){bytes, start, start + length, capacity};
    return 0;
}

// Whether the bytes held have to go into a larger block for [needed] to fit.
static bool
must_grow(const struct byte_block *block, size_t needed)
{
    return block->bytes == NULL || needed > block->capacity ||
           byte_block_length(block) > block->capacity / 2;
}

// Called when [length] more bytes do not fit behind the last one.
static int
make_room(struct byte_block *block, size_t length)
{
    size_t held = byte_block_length(block);
    if (length > (size_t)PTRDIFF_MAX - held) {
        return -ENOMEM;
    }
    size_t needed = held + length;
    if (must_grow(block, needed)) {
        return grow(block, choose_capacity(block->capacity, needed), 0);
    }
    memmove(block->bytes, block->bytes + block->start, held);
    block->start = 0;
    block->end = held;
    return 0;
}

// Called when [length] more bytes do not fit before the first one. What stays free is
// shared between both sides, for either may be next.
static int
make_room_in_front(struct byte_block *block, size_t length)
{
    size_t held = byte_block_length(block);
    if (length > (size_t)PTRDIFF_MAX - held) {
        return -ENOMEM;
    }
    size_t needed = held + length;
    if (must_grow(block, needed)) {
        size_t capacity = choose_capacity(block->capacity, needed);
        return grow(block, capacity, (capacity - needed) / 2 + length);
    }
    size_t start = (block->capacity - needed) / 2 + length;
    memmove(block->bytes + start, block->bytes + block->start, held);
    block->start = start;
    block->end = start + held;
    return 0;
}

char *
byte_block_reserve(struct byte_block *block, size_t length)
{
    // Without a block, capacity and end are both 0 and even 0 bytes need one.
    if ((block->bytes == NULL || length > block->capacity - block->end) &&
        make_room(block, length) != 0) {
        return NULL;
    }
    return block->bytes + block->end;
}

void
byte_block_commit(struct byte_block *block, size_t length)
{
    assert(length <= block->capacity - block->end);
    block->end += length;
    if (block->start == block->end) {
        // Nothing was written into a block that was reserved when there was none.
        byte_block_clear(block);
    }
}

int
byte_block_append(struct byte_block *block, const char *data, size_t length)
{
    if (length == 0) {
        return 0;
    }
    char *room = byte_block_reserve(block, length);
    if (room == NULL) {
        return -ENOMEM;
    }
    memcpy(room, data, length);
    block->end += length;
    return 0;
}

int
byte_block_prepend(struct byte_block *block, const char *data, size_t length)
{
    if (length == 0) {
        return 0;
    }
    if (length > block->start && make_room_in_front(block, length) != 0) {
        return -ENOMEM;
    }
    block->start -= length;
    memcpy(block->bytes + block->start, data, length);
    return 0;
}

bool
byte_block_is_consistent(const struct byte_block *block)
{
    if (block->bytes == NULL) {
        return block->start == 0 && block->end == 0 && block->capacity == 0;
    }
    return block->start < block->end && block->end <= block->capacity &&
           block->capacity <= PTRDIFF_MAX;
}
