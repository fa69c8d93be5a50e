// failing_allocations.c: one allocation fails on demand. The linker's --wrap sends those of the
// code under test here; where the linker cannot do that, none fails, and the targets see that
// it was not made.

#include <stdlib.h>

#include "operations.h"

static bool is_failing;

bool
fail_next_allocation(bool is_next_failing)
{
    bool was_failing = is_failing;
    is_failing = is_next_failing;
    return was_failing;
}

#ifdef CAN_FAIL_ALLOCATIONS

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);

void *
__wrap_malloc(size_t size)
{
    return fail_next_allocation(false) ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t count, size_t size)
{
    return fail_next_allocation(false) ? NULL : __real_calloc(count, size);
}

#endif
