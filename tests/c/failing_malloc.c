// failing_malloc.c: allocation calls of the code under test, counted and, when asked,
// failing. The linker's --wrap option sends them here; calls inside the C library, and
// those a compiler's run-time makes, are not seen.
//
// Threads may allocate at the same time, hence the atomics; only one thread may ask for
// failures.

#include "harness.h"

#ifdef CAN_FAIL_ALLOCATIONS

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);

static atomic_size_t calls;   // since the last fail_allocation_at or allow_allocations
static atomic_size_t failing; // which of them fails, 0 = none
static atomic_bool was_hit;   // it has failed
static atomic_llong live;     // blocks not freed yet

void
fail_allocation_at(size_t n)
{
    atomic_store(&calls, 0);
    atomic_store(&was_hit, false);
    atomic_store(&failing, n);
}

bool
allow_allocations(void)
{
    atomic_store(&failing, 0);
    atomic_store(&calls, 0);
    return atomic_exchange(&was_hit, false);
}

size_t
allocation_count(void)
{
    return atomic_load(&calls);
}

int64_t
live_allocations(void)
{
    return atomic_load(&live);
}

static bool
must_fail(void)
{
    if (atomic_fetch_add(&calls, 1) + 1 != atomic_load(&failing)) {
        return false;
    }
    atomic_store(&was_hit, true);
    errno = ENOMEM;
    return true;
}

static void *
count_block(void *block)
{
    if (block != NULL) {
        atomic_fetch_add(&live, 1);
    }
    return block;
}

void *
__wrap_malloc(size_t size)
{
    return must_fail() ? NULL : count_block(__real_malloc(size));
}

void *
__wrap_calloc(size_t count, size_t size)
{
    return must_fail() ? NULL : count_block(__real_calloc(count, size));
}

void *
__wrap_realloc(void *block, size_t size)
{
    if (must_fail()) {
        return NULL;
    }
    bool is_new = block == NULL;
    void *moved = __real_realloc(block, size);
    return is_new ? count_block(moved) : moved;
}

void
__wrap_free(void *block)
{
    if (block != NULL) {
        atomic_fetch_sub(&live, 1);
    }
    __real_free(block);
}

#else

// A translation unit must not be empty.
typedef int failing_malloc_is_not_possible_here;

#endif
