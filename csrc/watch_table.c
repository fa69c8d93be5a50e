// watch_table.c: see watch_table.h. The reactor is its only caller.
//
// Invariants: the array covers every descriptor that ever had an owner, and never
// shrinks, for generations must outlive their owners; an entry without an owner is
// registered for nothing. Descriptors are small numbers, the kernel hands out the
// lowest one free, so an array indexed by them is both the smallest and the fastest.

#include "watch_table.h"

#include "hard_mode.h"
#include "live_counts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_CAPACITY = 64 };

// Makes the array cover [index]. 0, or -ENOMEM with nothing changed.
static int
cover(struct watch_table *table, size_t index)
{
    size_t capacity = table->capacity < MIN_CAPACITY ? MIN_CAPACITY : table->capacity * 2;
    if (HARD_MODE || capacity <= index) {
        capacity = index + 1;
    }
    // Not realloc and memset: a wild descriptor number must not cost more than address
    // space, and the pages of a large calloc are not touched.
    struct watch *watches = calloc(capacity, sizeof(struct watch));
    if (watches == NULL) {
        return -ENOMEM;
    }
    if (table->watches != NULL) {
        memcpy(watches, table->watches, table->capacity * sizeof(struct watch));
        free(table->watches);
    }
    table->watches = watches;
    table->capacity = capacity;
    return 0;
}

void
watch_table_init(struct watch_table *table)
{
    *table = (struct watch_table){.watches = NULL};
}

void
watch_table_fini(struct watch_table *table)
{
    // An owner that is still there was forgotten: it stays counted.
    free(table->watches);
    watch_table_init(table);
}

int
watch_table_add(struct watch_table *table, int fd, void *owner)
{
    assert(owner != NULL);
    if (fd < 0) {
        return -EBADF;
    }
    size_t index = (size_t)fd;
    if (index >= table->capacity) {
        int result = cover(table, index);
        if (result < 0) {
            return result;
        }
    }
    struct watch *watch = &table->watches[index];
    if (watch->owner != NULL) {
        return -EEXIST;
    }
    watch->owner = owner;
    table->owned_count++;
    LIVE_COUNT(LIVE_WATCHES, 1);
    return 0;
}

void
watch_table_remove(struct watch_table *table, int fd)
{
    struct watch *watch = watch_table_get(table, fd);
    if (watch == NULL) {
        return;
    }
    // The generation may wrap around: an event would have to wait for four thousand
    // million owners to be taken for one of a later owner's.
    *watch = (struct watch){.generation = watch->generation + 1};
    table->owned_count--;
    LIVE_COUNT(LIVE_WATCHES, -1);
}

uint64_t
watch_table_token(const struct watch_table *table, int fd)
{
    const struct watch *watch = watch_table_get(table, fd);
    assert(watch != NULL);
    return (uint64_t)watch->generation << 32 | (uint32_t)fd;
}

bool
watch_table_is_consistent(const struct watch_table *table)
{
    if ((table->watches == NULL) != (table->capacity == 0)) {
        return false;
    }
    size_t owned_count = 0;
    for (size_t i = 0; i < table->capacity; i++) {
        const struct watch *watch = &table->watches[i];
        if (watch->owner != NULL) {
            owned_count++;
        }
        else if (watch->interest != 0 || watch->trigger != 0) {
            return false;
        }
    }
    return owned_count == table->owned_count;
}
