// fuzz_line_buffer.c: the line buffer against an array of all bytes held, which is searched
// from its beginning each time.

#include <errno.h>
#include <string.h>

#include "line_buffer.h"
#include "operations.h"

#define MODEL_SIZE (16 * 1024)
#define ENDING_COUNT 5

static char model[MODEL_SIZE];
static size_t model_length;
static bool is_model_run_open;
static enum line_ending usual_ending; // of this input: that most searches are for

static void
drop_from_model(size_t length)
{
    memmove(model, model + length, model_length - length);
    model_length -= length;
    if (length > 0) {
        is_model_run_open = false;
    }
}

// The length of the ending that begins at [at], 0 if none does. A run goes no further than
// [limit] bytes from the start.
static size_t
match_ending(const char *bytes, size_t length, size_t at, enum line_ending ending,
             size_t limit)
{
    bool is_feed = bytes[at] == '\n';
    bool is_pair = bytes[at] == '\r' && at + 1 < length && bytes[at + 1] == '\n';
    size_t run = 0;
    switch (ending) {
    case LINE_ENDING_LF:
        return is_feed ? 1 : 0;
    case LINE_ENDING_CRLF:
        return is_pair ? 2 : is_feed ? 1 : 0;
    case LINE_ENDING_CRLF_STRICT:
        return is_pair ? 2 : 0;
    case LINE_ENDING_ANY:
        while (at + run < length &&
               (bytes[at + run] == '\r' || bytes[at + run] == '\n') &&
               (run == 0 || at + run < limit)) {
            run++;
        }
        return run;
    case LINE_ENDING_NUL:
        return bytes[at] == '\0' ? 1 : 0;
    }
    return 0;
}

// The length of the first line, its ending included; 0 if there is none.
static size_t
match_line(const char *bytes, size_t length, enum line_ending ending, size_t limit,
           size_t *ending_length)
{
    for (size_t at = 0; at < length; at++) {
        *ending_length = match_ending(bytes, length, at, ending, limit);
        if (*ending_length > 0) {
            return at + *ending_length;
        }
    }
    return 0;
}

static void
drop_open_run(void)
{
    while (model_length > 0 && (model[0] == '\r' || model[0] == '\n')) {
        drop_from_model(1);
        is_model_run_open = true;
    }
    is_model_run_open = model_length == 0;
}

static void
find_line(struct line_buffer *buffer, enum line_ending ending, size_t limit,
          bool is_taken)
{
    if (ending == LINE_ENDING_ANY && is_model_run_open) {
        drop_open_run();
    }
    size_t expected_ending = 0;
    size_t expected = match_line(model, model_length, ending, limit, &expected_ending);
    size_t length = 0;
    size_t ending_length = 0;
    switch (line_buffer_find_line(buffer, ending, limit, &length, &ending_length)) {
    case LINE_FOUND:
        REQUIRE(expected > 0 && expected <= limit);
        REQUIRE(length == expected && ending_length == expected_ending);
        if (is_taken) {
            line_buffer_drain_line(buffer, length);
            drop_from_model(length);
            is_model_run_open = ending == LINE_ENDING_ANY;
        }
        break;
    case LINE_INCOMPLETE:
        REQUIRE(expected == 0 && model_length <= limit);
        break;
    case LINE_TOO_LONG:
        REQUIRE(expected > limit || (expected == 0 && model_length > limit));
        break;
    }
}

// The short way: it may know nothing, but nothing wrong.
static void
find_lf(struct line_buffer *buffer, size_t limit, bool is_taken)
{
    bool must_know = buffer->ending == LINE_ENDING_LF && !buffer->is_end_found;
    size_t ending_length;
    size_t expected =
        match_line(model, model_length, LINE_ENDING_LF, SIZE_MAX, &ending_length);
    size_t length = line_buffer_find_lf(buffer, limit);
    if (length == 0) {
        REQUIRE(!must_know || expected == 0 || expected > limit);
        return;
    }
    REQUIRE(length == expected && length <= limit);
    if (is_taken) {
        line_buffer_drain_line(buffer, length);
        drop_from_model(length);
    }
}

// Bytes that come: the fuzzer's own, as they are or brought down to few kinds; or many of one
// kind with what may end a line behind them. The result is as long as it is allocated, for the sanitizer.
static char *
make_piece(struct operations *operations, size_t *length)
{
    static const char ends[] = "\n\r\0\r\n\r";
    static const char few[] = "\r\nab\0\r\nc";
    size_t most = MODEL_SIZE - model_length;
    uint8_t kind = take_byte(operations);
    size_t size = take_length(operations, most);
    if (kind % 2 == 0 && size > operations->left) {
        size = operations->left;
    }
    char *piece = malloc(size > 0 ? size : 1);
    REQUIRE(piece != NULL);
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = kind % 2 == 0 ? take_byte(operations) : 0;
        piece[i] = (char)(kind % 2 == 1   ? (uint8_t)('a' + (i + kind) % 26)
                          : kind % 4 == 0 ? (uint8_t)few[byte % (sizeof(few) - 1)]
                                          : byte);
    }
    if (kind % 2 == 1) {
        size_t offset = (kind >> 1) % sizeof(ends);
        size_t count = (kind >> 4) % (sizeof(ends) - offset);
        count = count < size ? count : size;
        memcpy(piece + size - count, ends + offset, count);
    }
    *length = size;
    return piece;
}

static void
append(struct line_buffer *buffer, const char *piece, size_t length, bool is_memory_short)
{
    fail_next_allocation(is_memory_short);
    int result = line_buffer_append(buffer, piece, length);
    if (is_memory_short && !fail_next_allocation(false)) {
        REQUIRE(result == -ENOMEM);
        return;
    }
    REQUIRE(result == 0);
    memcpy(model + model_length, piece, length);
    model_length += length;
}

static void
prepend(struct line_buffer *buffer, const char *piece, size_t length,
        bool is_memory_short)
{
    fail_next_allocation(is_memory_short);
    int result = line_buffer_prepend(buffer, piece, length);
    if (is_memory_short && !fail_next_allocation(false)) {
        REQUIRE(result == -ENOMEM);
        return;
    }
    REQUIRE(result == 0);
    memmove(model + length, model, model_length);
    memcpy(model, piece, length);
    model_length += length;
    if (length > 0) {
        is_model_run_open = false;
    }
}

// As a read does it: more room than what comes in the end.
static void
reserve_and_commit(struct line_buffer *buffer, const char *piece, size_t length,
                   size_t unused, bool is_memory_short)
{
    fail_next_allocation(is_memory_short);
    char *room = line_buffer_reserve(buffer, length + unused);
    if (is_memory_short && !fail_next_allocation(false)) {
        REQUIRE(room == NULL);
        return;
    }
    REQUIRE(room != NULL);
    memset(room, '\n', length + unused);
    memcpy(room, piece, length);
    line_buffer_commit(buffer, length);
    memcpy(model + model_length, piece, length);
    model_length += length;
}

// A piece whose lines are taken where it lies: only what is left goes into the buffer, which
// is empty.
static void
pass_by(struct line_buffer *buffer, const char *piece, size_t length,
        enum line_ending ending)
{
    size_t at = 0;
    size_t line;
    do {
        size_t expected_ending = 0;
        size_t expected =
            match_line(piece + at, length - at, ending, SIZE_MAX, &expected_ending);
        size_t ending_length = 0;
        line = line_find(piece + at, length - at, ending, &ending_length);
        REQUIRE(line == expected);
        REQUIRE(line == 0 || ending_length == expected_ending);
        at += line;
    } while (line > 0 && at < length);
    if (at > 0) {
        line_buffer_end_run(buffer);
        is_model_run_open = false;
    }
    append(buffer, piece + at, length - at, false);
    line_buffer_note_searched(buffer, ending, length - at);
}

static void
receive(struct line_buffer *buffer, struct operations *operations, uint8_t choice)
{
    size_t length;
    char *piece = make_piece(operations, &length);
    bool is_memory_short = choice >= 0xf0;
    enum line_ending ending = (enum line_ending)(choice / 8 % ENDING_COUNT);
    switch (choice % 4) {
    case 0:
        append(buffer, piece, length, is_memory_short);
        break;
    case 1:
        prepend(buffer, piece, length, is_memory_short);
        break;
    case 2:
        reserve_and_commit(buffer, piece, length, take_length(operations, 4096),
                           is_memory_short);
        break;
    default:
        if (model_length == 0 && ending != LINE_ENDING_ANY) {
            pass_by(buffer, piece, length, ending);
        }
        else {
            append(buffer, piece, length, is_memory_short);
        }
    }
    free(piece);
}

static enum line_ending
choose_ending(uint8_t choice)
{
    return choice % 3 != 0 ? usual_ending : (enum line_ending)(choice / 8 % ENDING_COUNT);
}

// Drops some bytes, or nearly a line.
static void
drain(struct line_buffer *buffer, struct operations *operations, uint8_t choice)
{
    size_t length = take_length(operations, model_length);
    if (choice < 0x80) {
        size_t ending_length;
        size_t line = match_line(model, model_length, choose_ending(choice), SIZE_MAX,
                                 &ending_length);
        length = line > length % 4 ? line - length % 4 : 0;
    }
    line_buffer_drain(buffer, length);
    drop_from_model(length);
}

static size_t
take_limit(struct operations *operations, enum line_ending ending)
{
    size_t ending_length;
    size_t line = match_line(model, model_length, ending, SIZE_MAX, &ending_length);
    size_t wanted = take_length(operations, MODEL_SIZE);
    switch (wanted % 4) {
    case 0:
        return SIZE_MAX;
    case 1:
        return 1 + wanted / 4;
    case 2:
        return line + 3 - (wanted / 4 % 3); // near the length of the line
    default:
        return line > 3 ? line - wanted / 4 % 3 : 1;
    }
}

static void
operate(struct line_buffer *buffer, struct operations *operations)
{
    uint8_t choice = take_byte(operations);
    enum line_ending ending = choose_ending(choice);
    switch (choice % 8) {
    case 0:
    case 1:
    case 2:
        receive(buffer, operations, take_byte(operations));
        break;
    case 3:
    case 4:
        find_line(buffer, ending, take_limit(operations, ending), choice < 0xa0);
        break;
    case 5:
        find_lf(buffer, take_limit(operations, LINE_ENDING_LF), choice < 0xa0);
        break;
    case 6:
        drain(buffer, operations, choice);
        break;
    default:
        if (choice >= 0xe0) {
            line_buffer_clear(buffer);
            model_length = 0;
            is_model_run_open = false;
        }
        else if (model_length == 0) {
            line_buffer_end_run(buffer);
            is_model_run_open = false;
        }
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct operations operations = {bytes, length};
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    model_length = 0;
    is_model_run_open = false;
    usual_ending = (enum line_ending)take_below(&operations, ENDING_COUNT);
    while (operations.left > 0) {
        operate(&buffer, &operations);
        REQUIRE(line_buffer_length(&buffer) == model_length);
        REQUIRE((line_buffer_data(&buffer) == NULL) == (model_length == 0));
        REQUIRE(model_length == 0 ||
                memcmp(line_buffer_data(&buffer), model, model_length) == 0);
        REQUIRE(line_buffer_is_consistent(&buffer));
    }
    line_buffer_clear(&buffer);
    return 0;
}
