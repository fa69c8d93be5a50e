// test_line_buffer_model.c: a long random run of the line buffer against a model that keeps
// a plain array and scans all of it each time.

#include <string.h>

#include "harness.h"
#include "line_buffer.h"

// The model: every byte held, in a plain array.
#define MODEL_SIZE 6000
static char model[MODEL_SIZE];
static size_t model_length;

static enum line_status
find_line_in_model(size_t limit, size_t *length)
{
    for (size_t i = 0; i < model_length; i++) {
        if (model[i] == '\n') {
            *length = i + 1;
            return i + 1 <= limit ? LINE_FOUND : LINE_TOO_LONG;
        }
    }
    return model_length > limit ? LINE_TOO_LONG : LINE_INCOMPLETE;
}

static void
drain_both(struct line_buffer *buffer, size_t length)
{
    line_buffer_drain(buffer, length);
    memmove(model, model + length, model_length - length);
    model_length -= length;
}

// Line feeds are one byte in [line_feed_every]; the others are few enough in kind that
// an error of one place has a chance to go unseen only now and then, not always.
static void
fill_piece(char *piece, size_t length, uint64_t line_feed_every)
{
    for (size_t i = 0; i < length; i++) {
        piece[i] = random_below(line_feed_every) == 0 ? '\n' : (char)random_below(256);
    }
}

static size_t
choose_length(unsigned max_bits)
{
    size_t length = (size_t)random_magnitude(max_bits);
    return length < MODEL_SIZE - model_length ? length : MODEL_SIZE - model_length;
}

static void
prepend_both(struct line_buffer *buffer, unsigned max_bits, uint64_t line_feed_every)
{
    size_t length = choose_length(max_bits);
    memmove(model + length, model, model_length);
    fill_piece(model, length, line_feed_every);
    REQUIRE(line_buffer_prepend(buffer, model, length) == 0);
    model_length += length;
}

static void
append_both(struct line_buffer *buffer, unsigned max_bits, uint64_t line_feed_every)
{
    size_t length = choose_length(max_bits);
    char *added = model + model_length;
    fill_piece(added, length, line_feed_every);
    if (random_below(2) == 0) {
        REQUIRE(line_buffer_append(buffer, added, length) == 0);
    }
    else {
        size_t spare = (size_t)random_magnitude(8);
        char *room = line_buffer_reserve(buffer, length + spare);
        REQUIRE(room != NULL);
        memset(room, '\n', length + spare);
        memcpy(room, added, length);
        line_buffer_commit(buffer, length);
    }
    model_length += length;
}

static void
find_in_both(struct line_buffer *buffer)
{
    size_t limit = 1 + (size_t)random_magnitude(13);
    size_t expected_length = 0;
    enum line_status expected = find_line_in_model(limit, &expected_length);
    if (random_below(4) == 0 && expected_length > 1) {
        // Right at the line's length, or beside it.
        limit = expected_length - 1 + (size_t)random_below(3);
        expected = find_line_in_model(limit, &expected_length);
    }
    size_t length = SIZE_MAX;
    CHECK_INT(line_buffer_find_line(buffer, limit, &length), expected);
    if (expected == LINE_FOUND) {
        CHECK_UINT(length, expected_length);
    }
    if (expected == LINE_FOUND && random_below(4) != 0) {
        drain_both(buffer, expected_length);
    }
}

static void
test_random_operations_agree_with_the_model(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    model_length = 0;
    unsigned max_bits = 5;
    uint64_t line_feed_every = 20;
    for (int i = 0; i < 250000; i++) {
        if (i % 500 == 0) {
            max_bits = 1 + (unsigned)random_below(9);
            line_feed_every = 1 + random_magnitude(12);
        }
        uint64_t choice = random_below(100);
        if (choice < 30) {
            append_both(&buffer, max_bits, line_feed_every);
        }
        else if (choice < 40) {
            prepend_both(&buffer, max_bits, line_feed_every);
        }
        else if (choice < 85) {
            find_in_both(&buffer);
        }
        else if (choice < 99) {
            size_t length = (size_t)random_magnitude(max_bits + 1);
            drain_both(&buffer, length < model_length ? length : model_length);
        }
        else if (random_below(5) == 0) {
            line_buffer_clear(&buffer);
            model_length = 0;
        }
        CHECK(line_buffer_is_consistent(&buffer));
        if (CHECK_UINT(line_buffer_length(&buffer), model_length) && model_length > 0) {
            CHECK_BYTES(line_buffer_data(&buffer), model, model_length);
        }
    }
    line_buffer_clear(&buffer);
}

int
main(void)
{
    RUN(test_random_operations_agree_with_the_model);
    return harness_finish("line_buffer_model");
}
