// line_cases.h: what the C tests of lines share.

#ifndef CORONET_LINE_CASES_H
#define CORONET_LINE_CASES_H

#include "harness.h"
#include "line_buffer.h"

static inline void
check_find(struct line_buffer *buffer, enum line_ending ending, size_t limit,
           enum line_status expected_status, size_t expected_length,
           size_t expected_ending_length)
{
    size_t length = SIZE_MAX;
    size_t ending_length = SIZE_MAX;
    CHECK_INT(line_buffer_find_line(buffer, ending, limit, &length, &ending_length),
              expected_status);
    if (expected_status == LINE_FOUND) {
        CHECK_UINT(length, expected_length);
        CHECK_UINT(ending_length, expected_ending_length);
    }
    CHECK(line_buffer_is_consistent(buffer));
}

#endif
