// harness.c: see harness.h. C11 and POSIX, so that it builds wherever the tests do.

// For alarm and write under -std=c11 with glibc.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "harness.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_FAILURES = 20 };

static struct {
    const char *case_name; // the case that runs
    int case_count;        // cases run so far
    int failure_count;     // checks that did not hold
    uint64_t seed;         // 0 until the first case starts
    uint64_t random_state;
} harness;

static void
print_place(const char *file, int line)
{
    const char *slash = strrchr(file, '/');
    fprintf(stderr, "%s:%d: in %s: ", slash != NULL ? slash + 1 : file, line,
            harness.case_name != NULL ? harness.case_name : "main");
}

// Returns what every check returns when it fails.
static bool
count_failure(void)
{
    harness.failure_count++;
    if (harness.failure_count >= MAX_FAILURES) {
        fprintf(stderr, "too many failures\n");
        harness_abandon();
    }
    return false;
}

static void
print_failures(const char *subject)
{
    fprintf(stderr, "FAILED %s: %d checks in %d cases (TEST_SEED=%" PRIu64 ")\n", subject,
            harness.failure_count, harness.case_count, harness.seed);
}

void
harness_run(const char *name, void (*function)(void))
{
    const char *wanted = getenv("TEST_CASE");
    if (wanted != NULL && strcmp(wanted, name) != 0) {
        return;
    }
    if (harness.seed == 0) {
        const char *seed = getenv("TEST_SEED");
        harness.seed = seed != NULL ? strtoull(seed, NULL, 10) : 20260101;
    }
    harness.random_state = harness.seed;
    harness.case_name = name;
    harness.case_count++;
    function();
#ifdef CAN_FAIL_ALLOCATIONS
    allow_allocations();
#endif
    harness.case_name = NULL;
}

static void
write_text(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0) {
        _exit(1); // nobody can be told
    }
}

static void
tell_who_hangs(int number)
{
    (void)number;
    // In a signal handler: no stdio.
    write_text("HANGS: ");
    write_text(harness.case_name != NULL ? harness.case_name : "main");
    write_text("\n");
    _exit(1);
}

void
harness_limit_time(unsigned seconds)
{
    signal(SIGALRM, tell_who_hangs);
    alarm(seconds);
}

int
harness_finish(const char *subject)
{
    if (harness.case_count == 0) {
        fprintf(stderr, "FAILED %s: no case of that name\n", subject);
        return 1;
    }
    if (harness.failure_count != 0) {
        print_failures(subject);
        return 1;
    }
    printf("ok %s: %d cases\n", subject, harness.case_count);
    return 0;
}

void
harness_abandon(void)
{
    print_failures(harness.case_name != NULL ? harness.case_name : "main");
    fflush(NULL);
    // Not exit(): the state a failed test leaves behind would only drown its message
    // in those of a leak checker.
    _Exit(1);
}

bool
harness_check(const char *file, int line, const char *text, bool held)
{
    if (held) {
        return true;
    }
    print_place(file, line);
    fprintf(stderr, "%s does not hold\n", text);
    return count_failure();
}

bool
harness_check_int(const char *file, int line, const char *text, const char *expected_text,
                  int64_t seen, int64_t expected)
{
    if (seen == expected) {
        return true;
    }
    print_place(file, line);
    fprintf(stderr, "%s is %" PRId64 ", not %s (%" PRId64 ")\n", text, seen,
            expected_text, expected);
    return count_failure();
}

bool
harness_check_uint(const char *file, int line, const char *text,
                   const char *expected_text, uint64_t seen, uint64_t expected)
{
    if (seen == expected) {
        return true;
    }
    print_place(file, line);
    fprintf(stderr, "%s is %" PRIu64 ", not %s (%" PRIu64 ")\n", text, seen,
            expected_text, expected);
    return count_failure();
}

bool
harness_check_pointer(const char *file, int line, const char *text,
                      const char *expected_text, const void *seen, const void *expected)
{
    if (seen == expected) {
        return true;
    }
    print_place(file, line);
    fprintf(stderr, "%s is %p, not %s (%p)\n", text, seen, expected_text, expected);
    return count_failure();
}

bool
harness_check_string(const char *file, int line, const char *text, const char *seen,
                     const char *expected)
{
    if (seen != NULL && expected != NULL && strcmp(seen, expected) == 0) {
        return true;
    }
    print_place(file, line);
    fprintf(stderr, "%s is \"%s\", not \"%s\"\n", text, seen != NULL ? seen : "(NULL)",
            expected != NULL ? expected : "(NULL)");
    return count_failure();
}

bool
harness_check_bytes(const char *file, int line, const char *text, const void *seen,
                    const void *expected, size_t length)
{
    const unsigned char *left = seen;
    const unsigned char *right = expected;
    size_t index = 0;
    while (index < length && left[index] == right[index]) {
        index++;
    }
    if (index == length) {
        return true;
    }
    print_place(file, line);
    fprintf(stderr, "byte %zu of %zu of %s is 0x%02x, not 0x%02x\n", index, length, text,
            left[index], right[index]);
    return count_failure();
}

// A Weyl sequence of odd step, its numbers stirred by two rounds of shift and multiply.
uint64_t
random_bits(void)
{
    uint64_t value = harness.random_state += UINT64_C(0xa0761d6478bd642f);
    value = (value ^ (value >> 29)) * UINT64_C(0x8ebc6af09c88c6e3);
    value = (value ^ (value >> 31)) * UINT64_C(0xd6e8feb86659fd93);
    return value ^ (value >> 32);
}

uint64_t
random_below(uint64_t bound)
{
    // The bias of the remainder does not matter to a test.
    return random_bits() % bound;
}

uint64_t
random_magnitude(unsigned max_bits)
{
    uint64_t bits = random_below(max_bits + 1);
    return bits == 0 ? 0 : random_bits() >> (64 - bits);
}
