// watch_table.h: which object owns a file descriptor, and what the engine was told.
//
// The kernel hands descriptor numbers out again as soon as they are closed, while
// events of the old file may still wait to be handled. Every number therefore has a
// generation, counted up whenever its owner changes; an event carries the token
// (generation << 32 | fd) it was registered with, and watch_table_find() drops it by
// one comparison if it is stale.
//
// Not here: system calls. The reactor keeps the table and the engine in step.

#ifndef CORONET_WATCH_TABLE_H
#define CORONET_WATCH_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct watch {
    void *owner;         // borrowed; NULL while nobody owns the number
    uint32_t generation; // of the present or, with no owner, the next owner
    uint16_t interest;   // EVENT_* bits the engine was asked for, 0 = not registered
    uint8_t trigger;     // enum engine_trigger, while registered
};

struct watch_table {
    struct watch *watches; // owned; indexed by descriptor
    size_t capacity;       // entries in watches
    size_t owned_count;    // entries with an owner
};

void watch_table_init(struct watch_table *table);
void watch_table_fini(struct watch_table *table);

// Makes [owner] (not NULL) the owner of [fd], registered for nothing. Returns 0,
// -EBADF if fd is negative, -EEXIST if it has an owner, -ENOMEM.
int watch_table_add(struct watch_table *table, int fd, void *owner);

// Ends the ownership of [fd] and counts its generation up; legal if it has no owner.
void watch_table_remove(struct watch_table *table, int fd);

// The entry of [fd], NULL if it has no owner. Borrowed, until the next add.
static inline struct watch *
watch_table_get(const struct watch_table *table, int fd)
{
    if (fd < 0 || (size_t)fd >= table->capacity || table->watches[fd].owner == NULL) {
        return NULL;
    }
    return &table->watches[fd];
}

// The token that events of the present owner of [fd] carry.
uint64_t watch_table_token(const struct watch_table *table, int fd);

static inline int
token_fd(uint64_t token)
{
    return (int)(uint32_t)token;
}

// The entry a token speaks of, NULL if that owner is gone. Borrowed, until the next add.
static inline struct watch *
watch_table_find(const struct watch_table *table, uint64_t token)
{
    struct watch *watch = watch_table_get(table, token_fd(token));
    return watch == NULL || watch->generation != token >> 32 ? NULL : watch;
}

// Checks every invariant; false if one is broken. O(n): for tests and debug builds.
bool watch_table_is_consistent(const struct watch_table *table);

#endif
