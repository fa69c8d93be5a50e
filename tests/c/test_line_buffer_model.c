// test_line_buffer_model.c: a long random run of the line buffer against a model that keeps
// a plain array and scans all of it each time.

#include <string.h>

#include "harness.h"
#include "line_cases.h"

// The model: every byte held, in a plain array.
#define MODEL_SIZE 6000
#define ENDING_COUNT 5
static char model[MODEL_SIZE];
static size_t model_length;
static bool is_model_run_open;

static void
drop_from_model(size_t length)
{
    memmove(model, model + length, model_length - length);
    model_length -= length;
    is_model_run_open &= length == 0;
}

static bool
is_of_run(size_t at)
{
    return at < model_length && (model[at] == '\r' || model[at] == '\n');
}

// The length of the ending that begins at [at], 0 if none does.
static size_t
ending_in_model(size_t at, enum line_ending ending, size_t limit)
{
    bool is_pair = at + 1 < model_length && model[at] == '\r' && model[at + 1] == '\n';
    size_t run = 0;
    switch (ending) {
    case LINE_ENDING_LF:
        return model[at] == '\n';
    case LINE_ENDING_CRLF:
        return is_pair ? 2 : model[at] == '\n';
    case LINE_ENDING_CRLF_STRICT:
        return is_pair ? 2 : 0;
    case LINE_ENDING_ANY:
        while (is_of_run(at + run) && (run == 0 || at + run < limit)) {
            run++;
        }
        return run;
    case LINE_ENDING_NUL:
        return model[at] == '\0';
    }
    return 0;
}

static enum line_status
find_line_in_model(enum line_ending ending, size_t limit, size_t *length,
                   size_t *ending_length)
{
    if (ending == LINE_ENDING_ANY && is_model_run_open) {
        while (is_of_run(0)) {
            drop_from_model(1);
        }
        is_model_run_open = model_length == 0;
    }
    for (size_t i = 0; i < model_length; i++) {
        *ending_length = ending_in_model(i, ending, limit);
        if (*ending_length > 0) {
            *length = i + *ending_length;
            return *length <= limit ? LINE_FOUND : LINE_TOO_LONG;
        }
    }
    return model_length > limit ? LINE_TOO_LONG : LINE_INCOMPLETE;
}

static void
drain_both(struct line_buffer *buffer, size_t length)
{
    line_buffer_drain(buffer, length);
    drop_from_model(length);
}

// What ends lines is one byte in [end_every]; the others are few enough in kind that
// an error of one place has a chance to go unseen only now and then, not always.
static void
fill_piece(char *piece, size_t length, uint64_t end_every)
{
    for (size_t i = 0; i < length; i++) {
        piece[i] = random_below(end_every) == 0 ? "\n\r\0\n\r"[random_below(5)]
                                                : (char)random_below(256);
    }
}

static size_t
choose_length(unsigned max_bits)
{
    size_t length = (size_t)random_magnitude(max_bits);
    return length < MODEL_SIZE - model_length ? length : MODEL_SIZE - model_length;
}

static void
prepend_both(struct line_buffer *buffer, unsigned max_bits, uint64_t end_every)
{
    size_t length = choose_length(max_bits);
    memmove(model + length, model, model_length);
    fill_piece(model, length, end_every);
    REQUIRE(line_buffer_prepend(buffer, model, length) == 0);
    model_length += length;
    is_model_run_open &= length == 0;
}

static void
append_both(struct line_buffer *buffer, unsigned max_bits, uint64_t end_every)
{
    size_t length = choose_length(max_bits);
    char *added = model + model_length;
    fill_piece(added, length, end_every);
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
find_in_both(struct line_buffer *buffer, enum line_ending ending)
{
    size_t limit = 1 + (size_t)random_magnitude(13);
    size_t length = 0;
    size_t ending_length = 0;
    // A first look, with no limit, drops the same from both and says where the line ends.
    enum line_status expected =
        find_line_in_model(ending, SIZE_MAX, &length, &ending_length);
    if (random_below(2) == 0) {
        check_find(buffer, ending, SIZE_MAX, expected, length, ending_length);
        if (expected == LINE_FOUND && length > 2) {
            limit = length - 2 + (size_t)random_below(5);
        }
    }
    expected = find_line_in_model(ending, limit, &length, &ending_length);
    check_find(buffer, ending, limit, expected, length, ending_length);
    if (expected == LINE_FOUND && random_below(4) != 0) {
        line_buffer_drain_line(buffer, length);
        drop_from_model(length);
        is_model_run_open = ending == LINE_ENDING_ANY;
    }
}

// One that may be another than the [usual] kind.
static enum line_ending
choose_ending(enum line_ending usual)
{
    return random_below(16) == 0 ? (enum line_ending)random_below(ENDING_COUNT) : usual;
}

static void
test_random_operations_agree_with_the_model(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    model_length = 0;
    unsigned max_bits = 5;
    uint64_t end_every = 20;
    enum line_ending ending = LINE_ENDING_LF;
    for (int i = 0; i < 250000; i++) {
        if (i % 500 == 0) {
            max_bits = 1 + (unsigned)random_below(9);
            end_every = 1 + random_magnitude(12);
            ending = (enum line_ending)random_below(ENDING_COUNT);
        }
        uint64_t choice = random_below(100);
        if (choice < 30) {
            append_both(&buffer, max_bits, end_every);
        }
        else if (choice < 40) {
            prepend_both(&buffer, max_bits, end_every);
        }
        else if (choice < 85) {
            find_in_both(&buffer, choose_ending(ending));
        }
        else if (choice < 99) {
            size_t length = (size_t)random_magnitude(max_bits + 1);
            drain_both(&buffer, length < model_length ? length : model_length);
        }
        else if (model_length == 0) {
            line_buffer_end_run(&buffer);
            is_model_run_open = false;
        }
        else if (random_below(5) == 0) {
            line_buffer_clear(&buffer);
            model_length = 0;
            is_model_run_open = false;
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
