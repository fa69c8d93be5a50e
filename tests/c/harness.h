// harness.h: what every C test is written with.
//
// A test is one program. Its main() is
//
//     int
//     main(void)
//     {
//         RUN(test_thing_situation_expected);
//         ...
//         return harness_finish("thing");
//     }
//
// A failed check prints its place and what was compared, and the run goes on to the
// next statement; a check is also an expression that says whether it held, for tests
// that had better stop. After 20 failures the program ends. Checks are made from the
// thread that runs the test.
//
// Random numbers start afresh in every case, from a seed that is printed on failure and
// can be given as TEST_SEED. TEST_CASE names a single case to run.

#ifndef CORONET_TESTS_HARNESS_H
#define CORONET_TESTS_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RUN(function) harness_run(#function, function)

// Each takes what was seen first and what was expected second.
#define CHECK(condition) harness_check(__FILE__, __LINE__, #condition, (condition))
#define CHECK_INT(seen, expected)                                                        \
    harness_check_int(__FILE__, __LINE__, #seen, #expected, (seen), (expected))
#define CHECK_UINT(seen, expected)                                                       \
    harness_check_uint(__FILE__, __LINE__, #seen, #expected, (seen), (expected))
#define CHECK_POINTER(seen, expected)                                                    \
    harness_check_pointer(__FILE__, __LINE__, #seen, #expected, (seen), (expected))
#define CHECK_STRING(seen, expected)                                                     \
    harness_check_string(__FILE__, __LINE__, #seen, (seen), (expected))
#define CHECK_BYTES(seen, expected, length)                                              \
    harness_check_bytes(__FILE__, __LINE__, #seen, (seen), (expected), (length))

// Ends the program if the condition does not hold: for set-up that must not fail.
#define REQUIRE(condition)                                                               \
    do {                                                                                 \
        if (!CHECK(condition)) {                                                         \
            harness_abandon();                                                           \
        }                                                                                \
    } while (0)

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

void harness_run(const char *name, void (*function)(void));

// Ends the program after so many seconds, with the name of the case that hangs.
void harness_limit_time(unsigned seconds);

// Prints the program's one line, and returns its exit status.
int harness_finish(const char *subject);

// Prints the summary and ends the program with status 1.
_Noreturn void harness_abandon(void);

bool harness_check(const char *file, int line, const char *text, bool held);
bool harness_check_int(const char *file, int line, const char *text,
                       const char *expected_text, int64_t seen, int64_t expected);
bool harness_check_uint(const char *file, int line, const char *text,
                        const char *expected_text, uint64_t seen, uint64_t expected);
bool harness_check_pointer(const char *file, int line, const char *text,
                           const char *expected_text, const void *seen,
                           const void *expected);
bool harness_check_string(const char *file, int line, const char *text, const char *seen,
                          const char *expected);
bool harness_check_bytes(const char *file, int line, const char *text, const void *seen,
                         const void *expected, size_t length);

// Random numbers: any 64 bits; one from 0 to bound - 1; and one below 2^max_bits whose
// number of bits is random too, so that every magnitude is as likely as the next.
uint64_t random_bits(void);
uint64_t random_below(uint64_t bound);
uint64_t random_magnitude(unsigned max_bits);

// Failing allocations, in code linked into the test (not in the C library). The usual
// loop, compiled only where the linker can do it:
//
//     #ifdef CAN_FAIL_ALLOCATIONS
//     for (size_t n = 1;; n++) {
//         fail_allocation_at(n);
//         int result = operation();
//         bool was_hit = allow_allocations();
//         if (!was_hit) { CHECK_INT(result, 0); break; }
//         CHECK_INT(result, -ENOMEM);
//         ... nothing has changed, live_allocations() neither ...
//     }
//     #endif
#ifdef CAN_FAIL_ALLOCATIONS
// The n-th allocation from now on fails, n counted from 1, and no other.
void fail_allocation_at(size_t n);
// No allocation fails any more; says whether the one asked for did.
bool allow_allocations(void);
// Calls of malloc, calloc and realloc since the last fail_allocation_at or
// allow_allocations, the failed one included.
size_t allocation_count(void);
// Blocks allocated and not freed. Memory that the C library allocated and the code
// under test frees (strdup) would make it drift.
int64_t live_allocations(void);
#endif

#endif
