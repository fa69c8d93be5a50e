// operations.h: what the fuzz targets share.
//
// A target takes the fuzzer's bytes for a list of operations. It does each of them twice,
// once with the code under test and once with a model that is too simple to be wrong, and
// REQUIREs after each that both agree. When the bytes have run out, all numbers are 0.
//
// Allocations of the code under test go through failing_allocations.c, so that a target can
// let one fail and see that nothing has changed.

#ifndef CORONET_FUZZ_OPERATIONS_H
#define CORONET_FUZZ_OPERATIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct operations {
    const uint8_t *bytes; // borrowed: those not yet taken
    size_t left;
};

// The entry point that libFuzzer calls; returns 0.
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

// The next allocation of the code under test fails, or with false, none does any more. True
// if the one before was never made.
bool fail_next_allocation(bool is_failing);

// Ends the program, as what the fuzzer looks for, unless [condition] is true.
#define REQUIRE(condition)                                                               \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);    \
            abort();                                                                     \
        }                                                                                \
    } while (0)

static inline uint8_t
take_byte(struct operations *operations)
{
    if (operations->left == 0) {
        return 0;
    }
    operations->left--;
    return *operations->bytes++;
}

// A number of [size] bytes.
static inline uint64_t
take_number(struct operations *operations, unsigned size)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < size; i++) {
        number = number << 8 | take_byte(operations);
    }
    return number;
}

// A number below [bound], which is at most 65536. Small bounds take one byte.
static inline uint32_t
take_below(struct operations *operations, uint32_t bound)
{
    return (uint32_t)take_number(operations, bound <= 256 ? 1 : 2) % bound;
}

// A length of up to [most] bytes: mostly small, at times any.
static inline size_t
take_length(struct operations *operations, size_t most)
{
    size_t length = take_byte(operations);
    if (length >= 0xe0) {
        length = (length & 0x1f) << 8 | take_byte(operations);
    }
    return length < most ? length : most;
}

#endif
