// fuzz_write_queue.c: the write queue against an array of packets, each with the place of its
// bytes in a pattern that hardly repeats.
//
// Two queues share one spare packet. Owners are compared in the order of their release; some
// of them add to the queue while they are released, as Python code may.

#include <errno.h>
#include <string.h>

#include "operations.h"
#include "write_queue.h"

#define MAX_PACKETS 96
#define PATTERN_SIZE (64 * 1024)
#define MAX_PIECE 8191
#define QUEUE_COUNT 2
#define LAYER_COUNT 3

struct model_packet {
    uint64_t owner; // 0 = none
    uint64_t left;
    size_t place; // of its next byte in the pattern; in the file, for a file's bytes
    int kind;
    int layer;
    bool is_urgent, starts_message, has_begun;
    bool is_stream; // in the model every append is a packet of its own
};

struct model_queue {
    struct model_packet packets[MAX_PACKETS + 8];
    size_t count;
};

struct release {
    uint64_t owner;
    uint64_t unsent;
};

static struct write_queue queues[QUEUE_COUNT];
static struct model_queue models[QUEUE_COUNT];
static struct write_packet *spare;
static char pattern[PATTERN_SIZE + MAX_PIECE];
static size_t next_place;
static uint64_t next_owner;

// What is to be released, in this order; the first so many have been.
static struct release expected[2 * MAX_PACKETS];
static size_t expected_count;
static size_t released_count;

static void append(int number, size_t length, int layer, bool is_memory_short);

static void *
layer_of(int layer)
{
    static char layers[LAYER_COUNT];
    return layer == 0 ? NULL : &layers[layer];
}

static void *
pointer_of(uint64_t owner)
{
    return (void *)(uintptr_t)owner;
}

// Bytes that have not been used for long.
static size_t
choose_place(size_t length)
{
    size_t place = next_place;
    next_place = (next_place + length) % PATTERN_SIZE;
    return place;
}

// Each seventh owner writes something to the first queue when it is released.
static bool
does_write(uint64_t owner)
{
    return owner % 7 == 3 && models[0].count < MAX_PACKETS;
}

static void
note_release(void *owner, uint64_t unsent)
{
    REQUIRE(released_count < expected_count);
    REQUIRE(owner == pointer_of(expected[released_count].owner));
    REQUIRE(unsent == expected[released_count].unsent);
    released_count++;
    REQUIRE(write_queue_is_consistent(&queues[0]));
    if (does_write((uint64_t)(uintptr_t)owner)) {
        append(0, 5, 0, false);
    }
}

static void
expect_release(uint64_t owner, uint64_t unsent)
{
    if (owner != 0) {
        expected[expected_count++] = (struct release){owner, unsent};
    }
}

static void
model_insert(struct model_queue *model, size_t index, struct model_packet packet)
{
    memmove(&model->packets[index + 1], &model->packets[index],
            (model->count - index) * sizeof(packet));
    model->packets[index] = packet;
    model->count++;
}

static void
model_remove(struct model_queue *model, size_t index, uint64_t unsent)
{
    expect_release(model->packets[index].owner, unsent);
    model->count--;
    memmove(&model->packets[index], &model->packets[index + 1],
            (model->count - index) * sizeof(model->packets[0]));
}

static uint64_t
model_length(const struct model_queue *model)
{
    uint64_t length = 0;
    for (size_t i = 0; i < model->count; i++) {
        length += model->packets[i].left;
    }
    return length;
}

static void
append(int number, size_t length, int layer, bool is_memory_short)
{
    struct model_queue *model = &models[number];
    size_t place = choose_place(length);
    fail_next_allocation(is_memory_short);
    int result = write_queue_append(&queues[number], pattern + place, length,
                                    layer_of(layer), &spare);
    if (is_memory_short && !fail_next_allocation(false)) {
        REQUIRE(result == -ENOMEM);
        return;
    }
    REQUIRE(result == 0);
    const struct model_packet *last =
        model->count > 0 ? &model->packets[model->count - 1] : NULL;
    bool goes_on = last != NULL && last->is_stream && last->layer == layer;
    if (length > 0) {
        struct model_packet packet = {.left = length,
                                      .place = place,
                                      .kind = WRITE_BYTES,
                                      .layer = layer,
                                      .starts_message = !goes_on,
                                      .is_stream = true};
        model_insert(model, model->count, packet);
    }
}

// Adds one packet to [batch]; false if there was no memory.
static bool
add_packet(struct write_queue *batch, int kind, size_t length, bool is_memory_short,
           struct model_packet *packet)
{
    size_t place = choose_place(length);
    *packet = (struct model_packet){
        .left = length, .place = place, .kind = WRITE_BYTES, .starts_message = true};
    if (kind != 0) {
        packet->owner = ++next_owner;
    }
    int result;
    fail_next_allocation(is_memory_short);
    switch (kind) {
    case 0:
        result = write_queue_copy(batch, pattern + place, length);
        break;
    case 1:
        result = write_queue_refer(batch, pattern + place, length, note_release,
                                   pointer_of(packet->owner));
        break;
    case 2:
        packet->kind = WRITE_FILE;
        result = write_queue_add_file(batch, 3, (int64_t)place, length, note_release,
                                      pointer_of(packet->owner));
        break;
    default:
        packet->kind = WRITE_MARK;
        packet->left = 0;
        packet->layer = kind - 3;
        result = write_queue_add_mark(batch, layer_of(packet->layer), note_release,
                                      pointer_of(packet->owner));
    }
    if (!fail_next_allocation(false) && is_memory_short) {
        REQUIRE(result == -ENOMEM);
        return false;
    }
    REQUIRE(result == 0);
    return true;
}

// The index before which something urgent goes: of the packets that it may overtake, the
// first one that nothing has begun to send and that is not cut off from its message.
static size_t
find_urgent_place(const struct model_queue *model, int layer)
{
    size_t first = model->count;
    while (first > 0 && model->packets[first - 1].layer == layer &&
           model->packets[first - 1].kind != WRITE_MARK) {
        first--;
    }
    for (size_t i = first; i < model->count; i++) {
        const struct model_packet *packet = &model->packets[i];
        if (packet->starts_message && !packet->is_urgent && !packet->has_begun) {
            return i;
        }
    }
    return model->count;
}

static void
join(int number, struct operations *operations, int layer)
{
    struct model_queue *model = &models[number];
    struct write_queue batch;
    write_queue_init(&batch);
    uint8_t flags = take_byte(operations);
    struct write_placing placing = {layer_of(layer), (flags & 1) != 0, (flags & 6) == 6};
    size_t place = placing.is_urgent ? find_urgent_place(model, layer) : model->count;
    size_t count = (flags >> 3) % 4;
    size_t added = 0;
    for (size_t i = 0; i < count; i++) {
        uint8_t kind = take_byte(operations);
        size_t length = take_length(operations, MAX_PIECE);
        struct model_packet packet;
        if (add_packet(&batch, kind % 3, length, kind >= 0xf0, &packet)) {
            packet.layer = layer;
            packet.is_urgent = placing.is_urgent;
            packet.starts_message = added == 0 && !placing.is_joined;
            model_insert(model, place + added, packet);
            added++;
        }
    }
    write_queue_join(&queues[number], &batch, &placing);
    REQUIRE(write_queue_is_empty(&batch) && write_queue_length(&batch) == 0);
}

static void
add_alone(int number, struct operations *operations, bool is_memory_short)
{
    struct model_packet packet;
    int kind = (int)take_below(operations, 3 + LAYER_COUNT);
    size_t length = take_length(operations, MAX_PIECE);
    if (add_packet(&queues[number], kind, length, is_memory_short, &packet)) {
        model_insert(&models[number], models[number].count, packet);
    }
}

static void
drain(int number, struct operations *operations)
{
    struct model_queue *model = &models[number];
    uint64_t most = 0;
    for (size_t i = 0; i < model->count && model->packets[i].kind != WRITE_MARK; i++) {
        most += model->packets[i].left;
    }
    size_t choice = take_length(operations, 8191);
    // All, the first packet exactly, or some.
    uint64_t length = choice == 0                       ? most
                      : choice == 1 && model->count > 0 ? model->packets[0].left
                                                        : choice - 2;
    length = length < most ? length : most;
    uint64_t rest = length;
    while (model->count > 0 && model->packets[0].kind != WRITE_MARK &&
           model->packets[0].left <= rest) {
        rest -= model->packets[0].left;
        model_remove(model, 0, 0);
    }
    if (rest > 0) {
        model->packets[0].left -= rest;
        model->packets[0].place += rest;
        model->packets[0].has_begun = true;
    }
    write_queue_drain(&queues[number], length, &spare);
}

static void
drop_first(int number)
{
    if (models[number].count > 0 && !models[number].packets[0].is_stream) {
        model_remove(&models[number], 0, models[number].packets[0].left);
        write_queue_drop_first(&queues[number]);
    }
}

static void
use_owner(int number, struct operations *operations, bool is_memory_short)
{
    struct model_queue *model = &models[number];
    size_t index = take_below(operations, (uint32_t)model->count + 1);
    uint64_t owner = index < model->count ? model->packets[index].owner : 0;
    void *pointer = pointer_of(owner == 0 ? next_owner + 1 : owner);
    struct model_packet *packet = owner == 0 ? NULL : &model->packets[index];
    REQUIRE(write_queue_left_of(&queues[number], pointer) ==
            (packet == NULL ? 0 : packet->left));
    if (take_byte(operations) % 2 == 0) {
        if (packet != NULL) {
            model_remove(model, index, packet->left);
        }
        REQUIRE(write_queue_withdraw(&queues[number], pointer) == (packet != NULL));
        return;
    }
    bool is_copied = packet != NULL && packet->kind == WRITE_BYTES;
    is_memory_short = is_memory_short && is_copied;
    if (is_copied && !is_memory_short) {
        expect_release(owner, 0);
        packet->owner = 0;
    }
    fail_next_allocation(is_memory_short);
    int result = write_queue_keep_copy(&queues[number], pointer);
    REQUIRE(!fail_next_allocation(false));
    REQUIRE(result == (is_memory_short ? -ENOMEM : 0));
}

static void
clear(int number)
{
    struct model_queue *model = &models[number];
    while (model->count > 0) {
        model_remove(model, 0, model->packets[0].left);
    }
    write_queue_clear(&queues[number]);
}

// The bytes that would go to the kernel now, [capacity] spans of them.
static void
check_spans(const struct model_queue *model, const struct write_queue *queue,
            int capacity)
{
    struct iovec spans[MAX_PACKETS + 8];
    int count = write_queue_gather(queue, spans, capacity);
    REQUIRE(count >= 0 && count <= capacity);
    int at = 0;
    size_t offset = 0;
    for (size_t i = 0; i < model->count && at < count; i++) {
        const struct model_packet *packet = &model->packets[i];
        REQUIRE(packet->kind == WRITE_BYTES || packet->left == 0);
        REQUIRE(packet->layer == model->packets[0].layer);
        uint64_t compared = 0;
        while (compared < packet->left && at < count) {
            // Appended pieces may lie in one span, or one piece in two.
            uint64_t common = spans[at].iov_len - offset;
            common = common < packet->left - compared ? common : packet->left - compared;
            REQUIRE(memcmp((const char *)spans[at].iov_base + offset,
                           pattern + packet->place + compared, (size_t)common) == 0);
            compared += common;
            offset += (size_t)common;
            if (offset == spans[at].iov_len) {
                at++;
                offset = 0;
            }
        }
    }
    REQUIRE(at == count);
    if (count < capacity) {
        // It was not for want of spans: all was gathered that there is.
        uint64_t length = 0;
        for (int i = 0; i < count; i++) {
            length += spans[i].iov_len;
        }
        uint64_t leading = 0;
        for (size_t i = 0; i < model->count && model->packets[i].kind == WRITE_BYTES &&
                           model->packets[i].layer == model->packets[0].layer;
             i++) {
            leading += model->packets[i].left;
        }
        REQUIRE(length == leading);
    }
}

static void
check_queue(const struct model_queue *model, const struct write_queue *queue,
            int capacity)
{
    REQUIRE(write_queue_is_consistent(queue));
    REQUIRE(write_queue_length(queue) == model_length(model));
    REQUIRE(write_queue_is_empty(queue) == (model->count == 0));
    if (model->count > 0) {
        const struct write_packet *first = write_queue_first(queue);
        REQUIRE(first->kind == model->packets[0].kind);
        REQUIRE(first->layer == layer_of(model->packets[0].layer));
        // Who overtakes whom is told by these; in the stream several packets may lie in one.
        if (!first->is_stream) {
            REQUIRE(first->has_begun == model->packets[0].has_begun);
            REQUIRE(first->is_urgent == model->packets[0].is_urgent);
            REQUIRE(first->starts_message == model->packets[0].starts_message);
        }
        if (first->kind == WRITE_FILE) {
            REQUIRE(first->fd == 3 && first->left == model->packets[0].left);
            REQUIRE(first->offset == (int64_t)model->packets[0].place);
        }
    }
    check_spans(model, queue, capacity);
}

static void
operate(struct operations *operations)
{
    uint8_t choice = take_byte(operations);
    int number = choice % 16 == 15 ? 1 : 0;
    bool is_memory_short = choice >= 0xf0;
    int layer = choice / 16 % 8 < LAYER_COUNT ? choice / 16 % 8 : 0;
    bool has_room = models[number].count < MAX_PACKETS - 8;
    switch (take_byte(operations) % 10) {
    case 0:
    case 1:
        if (has_room) {
            append(number, take_length(operations, MAX_PIECE), layer, is_memory_short);
        }
        break;
    case 2:
    case 3:
        if (has_room) {
            join(number, operations, layer);
        }
        break;
    case 4:
        if (has_room) {
            add_alone(number, operations, is_memory_short);
        }
        break;
    case 5:
        drop_first(number);
        break;
    case 6:
        use_owner(number, operations, is_memory_short);
        break;
    case 7:
        if (choice == 0) {
            clear(number);
        }
        break;
    default:
        drain(number, operations);
        break;
    }
    REQUIRE(released_count == expected_count);
    expected_count = released_count = 0;
}

static void
make_pattern(void)
{
    if (pattern[1] != 0) {
        return; // done once
    }
    for (size_t i = 0; i < sizeof(pattern); i++) {
        pattern[i] = (char)(i * 131 + (i >> 8) * 29 + (i >> 5));
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct operations operations = {bytes, length};
    make_pattern();
    next_place = 0;
    next_owner = 0;
    expected_count = released_count = 0;
    for (int i = 0; i < QUEUE_COUNT; i++) {
        write_queue_init(&queues[i]);
        models[i].count = 0;
    }
    for (unsigned count = 0; operations.left > 0; count++) {
        operate(&operations);
        int capacity = count % 4 == 0 ? (int)(count / 4 % 3) : MAX_PACKETS;
        for (int i = 0; i < QUEUE_COUNT; i++) {
            check_queue(&models[i], &queues[i], capacity);
        }
    }
    clear(1);
    clear(0);
    clear(0); // what the released ones have written
    REQUIRE(write_queue_is_empty(&queues[0]));
    free(spare);
    spare = NULL;
    return 0;
}
