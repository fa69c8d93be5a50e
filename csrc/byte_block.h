// byte_block.h: one block of memory that takes bytes at its end, now and then at its
// start, and gives them away at its start. The line buffer and the write queue are made
// of it.
//
// The bytes held lie in [start, end) of the block. The block exists only while bytes
// are held: who drains the last one frees it, so an idle connection owns none.
// A byte costs amortised O(1), however small the pieces in which it comes and goes:
//   - bytes are moved within the block only if they fill at most half of it: to its front
//     for one that is added behind them, so that the other half is free; to its middle for
//     one in front of them, so that a quarter is free on either side. So bytes arrive in
//     proportion to those that were moved before they can be moved again;
//   - else they are copied into a block at least twice as large.
// Nothing makes a block smaller except its becoming empty.
//
// Not here: what the bytes mean.

#ifndef CORONET_BYTE_BLOCK_H
#define CORONET_BYTE_BLOCK_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

struct byte_block {
    char *bytes;     // owned; NULL while no bytes are held
    size_t start;    // offset of the first byte held
    size_t end;      // offset behind the last byte held
    size_t capacity; // size of the block in bytes
};

static inline void
byte_block_init(struct byte_block *block)
{
    *block = (struct byte_block){.bytes = NULL};
}

// Frees the memory and forgets the bytes; the block is empty and usable again.
void byte_block_clear(struct byte_block *block);

static inline size_t
byte_block_length(const struct byte_block *block)
{
    return block->end - block->start;
}

// The first byte held, NULL if there is none; borrowed, until the next call that
// changes the block.
static inline char *
byte_block_data(const struct byte_block *block)
{
    // Adding even 0 to a null pointer is undefined.
    return block->bytes == NULL ? NULL : block->bytes + block->start;
}

// Adds a copy of [length] bytes, which may not be the block's own. Returns 0, or
// -ENOMEM with nothing changed.
int byte_block_append(struct byte_block *block, const char *data, size_t length);

// The same in front of the first byte held.
int byte_block_prepend(struct byte_block *block, const char *data, size_t length);

// Makes room for [length] bytes behind the last and returns where they go; NULL, with
// nothing changed, if there is no memory. One byte_block_commit() must follow, before
// any other call: it says how many bytes were written there, 0 included.
char *byte_block_reserve(struct byte_block *block, size_t length);
void byte_block_commit(struct byte_block *block, size_t length);

// Drops the first [length] bytes, no more than are held.
static inline void
byte_block_drain(struct byte_block *block, size_t length)
{
    assert(length <= byte_block_length(block));
    block->start += length;
    if (block->start == block->end) {
        byte_block_clear(block);
    }
}

// Checks every invariant; false if one is broken. Between byte_block_reserve() and
// byte_block_commit() an empty block owns memory, and is not consistent.
bool byte_block_is_consistent(const struct byte_block *block);

#endif
