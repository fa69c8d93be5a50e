// test_write_queue_model.c: random operations on the queue and on a plain array of packets
// that follows the words of write_queue.h in the simplest way.
//
// Every byte has a value of its own, so order is seen; every owner is released once, and the
// order of the releases is compared too.

#include <string.h>

#include "harness.h"
#include "write_queue.h"

#define MAX_PACKETS 400

struct model_packet {
    uint64_t owner; // 0 = none
    uint64_t value; // of its first byte; the others count up from it
    uint64_t left;
    int kind;
    int layer;
    bool starts, is_urgent, has_begun, is_stream;
};

static struct model_packet model[MAX_PACKETS];
static size_t model_count;
static uint64_t next_owner;
static uint64_t next_value;

// Owners in the order of their release, by the queue and by the model.
struct release {
    uint64_t owner, unsent;
};
static struct release seen[MAX_PACKETS], expected[MAX_PACKETS];
static size_t seen_count, expected_count;
static struct write_packet *spare;

static char layers[3]; // only their addresses count; layer 0 is NULL

static void *
layer_of(int number)
{
    return number == 0 ? NULL : &layers[number];
}

static void
note_release(void *owner, uint64_t unsent)
{
    REQUIRE(seen_count < MAX_PACKETS);
    seen[seen_count++] = (struct release){(uint64_t)(uintptr_t)owner, unsent};
}

// Bytes with the values that come next.
static const char *
make_bytes(size_t length)
{
    static char bytes[1 << 16];
    static size_t used;
    if (length > sizeof(bytes) - used) {
        used = 0;
    }
    for (size_t i = 0; i < length; i++) {
        bytes[used + i] = (char)(next_value + i);
    }
    used += length;
    return bytes + used - length;
}

static void
model_release(size_t index, uint64_t unsent)
{
    if (model[index].owner != 0) {
        expected[expected_count++] = (struct release){model[index].owner, unsent};
    }
    model_count--;
    memmove(&model[index], &model[index + 1],
            (model_count - index) * sizeof(struct model_packet));
}

static size_t
find_place(int layer)
{
    size_t barrier = model_count;
    while (barrier > 0 && model[barrier - 1].layer == layer &&
           model[barrier - 1].kind != WRITE_MARK) {
        barrier--;
    }
    for (size_t i = barrier; i < model_count; i++) {
        if (model[i].starts && !model[i].is_urgent && !model[i].has_begun) {
            return i;
        }
    }
    return model_count;
}

static void
model_insert(size_t index, struct model_packet packet)
{
    memmove(&model[index + 1], &model[index],
            (model_count - index) * sizeof(struct model_packet));
    model[index] = packet;
    model_count++;
}

static void
append(struct write_queue *queue, int layer)
{
    size_t length = 1 + (size_t)random_magnitude(11);
    REQUIRE(write_queue_append(queue, make_bytes(length), length, layer_of(layer),
                               &spare) == 0);
    struct model_packet *last = model_count > 0 ? &model[model_count - 1] : NULL;
    bool goes_on = last != NULL && last->is_stream && last->layer == layer;
    // In the model every piece is a packet: only the first of a stream starts a message.
    struct model_packet packet = {.value = next_value,
                                  .left = length,
                                  .kind = WRITE_BYTES,
                                  .layer = layer,
                                  .starts = !goes_on,
                                  .is_stream = true};
    model_insert(model_count, packet);
    next_value += length;
}

static void
join(struct write_queue *queue, int layer)
{
    struct write_queue batch;
    write_queue_init(&batch);
    struct write_placing placing = {layer_of(layer), random_below(3) == 0,
                                    random_below(4) == 0};
    size_t place = placing.is_urgent ? find_place(layer) : model_count;
    size_t count = 1 + (size_t)random_below(4);
    for (size_t i = 0; i < count; i++) {
        size_t length = (size_t)random_magnitude(10);
        struct model_packet packet = {.value = next_value,
                                      .left = length,
                                      .layer = layer,
                                      .starts = i == 0 && !placing.is_joined,
                                      .is_urgent = placing.is_urgent};
        int error;
        switch (random_below(3)) {
        case 0:
            packet.kind = WRITE_BYTES;
            error = write_queue_copy(&batch, make_bytes(length), length);
            break;
        case 1:
            packet.kind = WRITE_FILE;
            packet.owner = ++next_owner;
            error = write_queue_add_file(&batch, 0, (int64_t)next_value, length,
                                         note_release, (void *)(uintptr_t)next_owner);
            break;
        default:
            packet.kind = WRITE_BYTES;
            packet.owner = ++next_owner;
            // A reference needs bytes that stay: those of zero value do.
            static const char zeros[1 << 10];
            packet.value = UINT64_MAX;
            error = write_queue_refer(&batch, zeros, length, note_release,
                                      (void *)(uintptr_t)next_owner);
        }
        REQUIRE(error == 0);
        model_insert(place + i, packet);
        next_value += length;
    }
    write_queue_join(queue, &batch, &placing);
}

static void
drain(struct write_queue *queue)
{
    uint64_t limit = 0;
    for (size_t i = 0; i < model_count && model[i].kind != WRITE_MARK; i++) {
        limit += model[i].left;
    }
    uint64_t length = random_magnitude(12);
    length = length < limit ? length : limit;
    write_queue_drain(queue, length, &spare);
    while (model_count > 0 && model[0].kind != WRITE_MARK && model[0].left <= length) {
        length -= model[0].left;
        // What is appended to a stream that has begun goes into what has begun.
        if (model_count > 1 && model[1].is_stream && !model[1].starts) {
            model[1].has_begun = true;
        }
        model_release(0, 0);
    }
    if (length > 0) {
        model[0].has_begun = true;
        model[0].left -= length;
        model[0].value += model[0].value == UINT64_MAX ? 0 : length;
    }
}

static void
withdraw_or_copy(struct write_queue *queue)
{
    size_t index = (size_t)random_below(model_count + 1);
    if (index == model_count || model[index].owner == 0) {
        CHECK(!write_queue_withdraw(queue, (void *)(uintptr_t)(next_owner + 1)));
        return;
    }
    const void *owner = (void *)(uintptr_t)model[index].owner;
    if (random_below(2) == 0) {
        CHECK(write_queue_withdraw(queue, owner));
        model_release(index, model[index].left);
    }
    else if (model[index].kind == WRITE_BYTES) {
        CHECK_INT(write_queue_keep_copy(queue, owner), 0);
        expected[expected_count++] = (struct release){model[index].owner, 0};
        model[index].owner = 0;
    }
}

static void
check_spans(const struct write_queue *queue)
{
    struct iovec spans[MAX_PACKETS];
    int count = write_queue_gather(queue, spans, MAX_PACKETS);
    int at = 0;
    size_t offset = 0;
    for (size_t i = 0; i < model_count && model[i].kind == WRITE_BYTES &&
                       model[i].layer == model[0].layer;
         i++) {
        // A stream's pieces may lie in one span.
        for (uint64_t k = 0; k < model[i].left; k++) {
            REQUIRE(at < count);
            char value = model[i].value == UINT64_MAX ? 0 : (char)(model[i].value + k);
            REQUIRE(((const char *)spans[at].iov_base)[offset] == value);
            if (++offset == spans[at].iov_len) {
                at++;
                offset = 0;
            }
        }
    }
    CHECK_INT(at, count);
}

static void
check_all(const struct write_queue *queue)
{
    uint64_t length = 0;
    for (size_t i = 0; i < model_count; i++) {
        length += model[i].left;
    }
    REQUIRE(write_queue_is_consistent(queue));
    REQUIRE(write_queue_length(queue) == length);
    REQUIRE(write_queue_is_empty(queue) == (model_count == 0));
    REQUIRE(seen_count == expected_count);
    REQUIRE(memcmp(seen, expected, seen_count * sizeof(seen[0])) == 0);
    seen_count = expected_count = 0;
    if (model_count > 0) {
        REQUIRE(write_queue_first(queue)->kind == model[0].kind);
        if (model[0].kind == WRITE_FILE) {
            REQUIRE(write_queue_first(queue)->offset == (int64_t)model[0].value);
        }
    }
    check_spans(queue);
}

static void
clear(struct write_queue *queue)
{
    write_queue_clear(queue);
    while (model_count > 0) {
        model_release(0, model[0].left);
    }
}

static void
test_random_operations_agree_with_a_plain_array(void)
{
    struct write_queue queue;
    write_queue_init(&queue);
    model_count = 0;
    next_owner = next_value = 0;
    for (int i = 0; i < 60000; i++) {
        uint64_t choice = random_below(1000);
        int layer = random_below(8) == 0 ? (int)random_below(3) : 0;
        if (model_count > MAX_PACKETS - 10 || choice == 0) {
            clear(&queue);
        }
        else if (choice < 200) {
            append(&queue, layer);
        }
        else if (choice < 500) {
            join(&queue, layer);
        }
        else if (choice < 520) {
            next_owner++;
            REQUIRE(write_queue_add_mark(&queue, layer_of(layer), note_release,
                                         (void *)(uintptr_t)next_owner) == 0);
            struct model_packet mark = {
                .owner = next_owner, .kind = WRITE_MARK, .layer = layer, .starts = true};
            model_insert(model_count, mark);
        }
        else if (choice < 900) {
            drain(&queue);
        }
        else if (choice < 960) {
            withdraw_or_copy(&queue);
        }
        else if (model_count > 0 && model[0].kind == WRITE_MARK) {
            write_queue_drop_first(&queue);
            model_release(0, 0);
        }
        check_all(&queue);
    }
    clear(&queue);
    check_all(&queue);
}

int
main(void)
{
    RUN(test_random_operations_agree_with_a_plain_array);
    return harness_finish("write_queue_model");
}
