// write_queue.c: packets waiting to be sent; see write_queue.h.
//
// Called by the connections of layer 3. Packets that leave the queue are first unlinked,
// all that go in one call, and released when the queue is in order again: a release function
// may run anything, even code that adds to this very queue.
//
// Invariants: `last` is the last of the list that begins at `first`, both NULL when it is
// empty; `length` is the sum of what is left; only the first packet has begun; only packets
// of bytes that are copies have room behind them.
//
// Not here: sending.

#include "write_queue.h"

#include "hard_mode.h"
#include "live_counts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

// The least and the greatest room made for a stream of small writes at a time, the packet
// itself included: enough for a few lines, and no more than the kernel takes at once.
#define STREAM_MIN_BLOCK 512
#define STREAM_MAX_BLOCK (64 * 1024)

// The greatest packet kept as a spare one: for a few bytes that cannot leave it is waste.
#define SPARE_MAX_BLOCK 4096

// --- Packets ----------------------------------------------------------------------------

// A packet with [capacity] bytes of memory; NULL if there is none.
static struct write_packet *
packet_new(enum write_packet_kind kind, size_t capacity)
{
    if (capacity > (size_t)PTRDIFF_MAX - sizeof(struct write_packet)) {
        return NULL;
    }
    struct write_packet *packet = malloc(sizeof(*packet) + capacity);
    if (packet != NULL) {
        LIVE_COUNT(LIVE_PACKETS, 1);
        memset(packet, 0, sizeof(*packet));
        packet->kind = (uint8_t)kind;
        packet->fd = -1;
        packet->bytes = packet->memory;
        packet->starts_message = true;
    }
    return packet;
}

void
write_packet_free(struct write_packet *packet)
{
    LIVE_COUNT(LIVE_PACKETS, packet == NULL ? 0 : -1);
    free(packet);
}

// Makes a packet of the stream, whose bytes have left, the spare one, or frees it: of two
// the one with more room stays.
static void
keep_or_free(struct write_packet *packet, struct write_packet **spare)
{
    uint64_t capacity = (uint64_t)(packet->bytes - packet->memory) + packet->left +
                        (uint64_t)packet->room;
    // Memory that is used again hides what is used too late.
    const uint64_t largest = HARD_OR_USUAL(0, SPARE_MAX_BLOCK - sizeof(*packet));
    if (capacity <= largest && (*spare == NULL || (*spare)->room < capacity)) {
        packet->next = NULL;
        packet->left = 0;
        packet->bytes = packet->memory;
        packet->room = (uint32_t)capacity;
        packet->has_begun = false;
        packet->starts_message = true;
        struct write_packet *smaller = *spare;
        *spare = packet;
        packet = smaller;
    }
    write_packet_free(packet);
}

// Releases and frees the packets of a list that belongs to no queue any more. One of them may
// become [*spare], unless that is NULL.
static void
release_all(struct write_packet *packet, struct write_packet **spare)
{
    while (packet != NULL) {
        struct write_packet *next = packet->next;
        if (packet->release != NULL) {
            packet->release(packet->owner, packet->left);
        }
        if (spare != NULL && packet->is_stream) {
            keep_or_free(packet, spare);
        }
        else {
            write_packet_free(packet);
        }
        packet = next;
    }
}

static void
link_last(struct write_queue *queue, struct write_packet *packet)
{
    if (queue->last == NULL) {
        queue->first = packet;
    }
    else {
        queue->last->next = packet;
    }
    queue->last = packet;
    queue->length += packet->left;
}

// Takes the first packet off the list; it still has its `left`, which is not counted now.
static struct write_packet *
unlink_first(struct write_queue *queue)
{
    struct write_packet *packet = queue->first;
    queue->first = packet->next;
    if (queue->first == NULL) {
        queue->last = NULL;
    }
    queue->length -= packet->left;
    packet->next = NULL;
    return packet;
}

void
write_queue_clear(struct write_queue *queue)
{
    struct write_packet *packets = queue->first;
    write_queue_init(queue);
    release_all(packets, NULL);
}

// --- Adding -----------------------------------------------------------------------------

// How much memory the stream's next packet gets for [length] bytes behind [last].
static size_t
choose_block(const struct write_packet *last, size_t length)
{
    if (HARD_MODE) {
        return length;
    }
    size_t block = STREAM_MIN_BLOCK;
    if (last != NULL && last->is_stream) {
        // Twice the last one, which is filled up: few blocks however many bytes.
        while (block < STREAM_MAX_BLOCK &&
               block - sizeof(*last) <= last->left + last->room) {
            block *= 2;
        }
    }
    size_t capacity = block - sizeof(struct write_packet);
    return capacity > length ? capacity : length;
}

int
write_queue_append(struct write_queue *queue, const char *data, size_t length,
                   void *layer, struct write_packet **spare)
{
    struct write_packet *last = queue->last;
    if (last == NULL && *spare != NULL && length <= (*spare)->room && length > 0) {
        struct write_packet *packet = *spare;
        *spare = NULL;
        packet->left = length;
        packet->room -= (uint32_t)length;
        packet->layer = layer;
        memcpy(packet->memory, data, length);
        link_last(queue, packet);
        return 0;
    }
    if (last != NULL && (!last->is_stream || last->layer != layer)) {
        last = NULL;
    }
    size_t room = last == NULL ? 0 : last->room;
    size_t fitting = length < room ? length : room;
    struct write_packet *packet = NULL;
    if (fitting < length) {
        size_t capacity = choose_block(last, length - fitting);
        packet = packet_new(WRITE_BYTES, capacity);
        if (packet == NULL) {
            return -ENOMEM;
        }
        packet->left = length - fitting;
        size_t rest = capacity - (length - fitting);
        packet->room = (uint32_t)(rest < UINT32_MAX ? rest : UINT32_MAX);
        packet->layer = layer;
        packet->is_stream = true;
        packet->starts_message = last == NULL;
        memcpy(packet->memory, data + fitting, length - fitting);
    }
    if (fitting > 0) {
        // The bytes of the stream lie in the packet itself; const is for the readers.
        memcpy(last->memory + (last->bytes - last->memory) + last->left, data, fitting);
        last->left += fitting;
        last->room -= (uint32_t)fitting;
        queue->length += fitting;
    }
    if (packet != NULL) {
        link_last(queue, packet);
    }
    return 0;
}

int
write_queue_copy(struct write_queue *queue, const char *data, size_t length)
{
    struct write_packet *packet = packet_new(WRITE_BYTES, length);
    if (packet == NULL) {
        return -ENOMEM;
    }
    if (length > 0) {
        memcpy(packet->memory, data, length);
    }
    packet->left = length;
    link_last(queue, packet);
    return 0;
}

// Adds a packet of [length] bytes that lie elsewhere. NULL without memory.
static struct write_packet *
add_owned(struct write_queue *queue, enum write_packet_kind kind, uint64_t length,
          write_release release, void *owner)
{
    struct write_packet *packet = packet_new(kind, 0);
    if (packet != NULL) {
        packet->left = length;
        packet->release = release;
        packet->owner = owner;
        link_last(queue, packet);
    }
    return packet;
}

int
write_queue_refer(struct write_queue *queue, const char *data, size_t length,
                  write_release release, void *owner)
{
    struct write_packet *packet = add_owned(queue, WRITE_BYTES, length, release, owner);
    if (packet == NULL) {
        return -ENOMEM;
    }
    packet->bytes = data;
    return 0;
}

int
write_queue_add_file(struct write_queue *queue, int fd, int64_t offset, uint64_t length,
                     write_release release, void *owner)
{
    struct write_packet *packet = add_owned(queue, WRITE_FILE, length, release, owner);
    if (packet == NULL) {
        return -ENOMEM;
    }
    packet->fd = fd;
    packet->offset = offset;
    return 0;
}

int
write_queue_add_mark(struct write_queue *queue, void *layer, write_release release,
                     void *owner)
{
    struct write_packet *packet = add_owned(queue, WRITE_MARK, 0, release, owner);
    if (packet == NULL) {
        return -ENOMEM;
    }
    packet->layer = layer;
    return 0;
}

// The packet behind which something urgent of [layer] goes; NULL: before the first one.
static struct write_packet *
find_urgent_place(struct write_queue *queue, const void *layer)
{
    struct write_packet *place = queue->last;
    struct write_packet *previous = NULL;
    bool is_found = false;
    for (struct write_packet *packet = queue->first; packet != NULL;
         previous = packet, packet = packet->next) {
        if (packet->layer != layer || packet->kind == WRITE_MARK) {
            // Nothing goes past it: what was found in front of it does not count.
            is_found = false;
            place = queue->last;
        }
        else if (!is_found && packet->starts_message && !packet->is_urgent &&
                 !packet->has_begun) {
            is_found = true;
            place = previous;
        }
    }
    return place;
}

void
write_queue_join(struct write_queue *queue, struct write_queue *batch,
                 const struct write_placing *placing)
{
    if (batch->first == NULL) {
        return;
    }
    for (struct write_packet *packet = batch->first; packet != NULL;
         packet = packet->next) {
        assert(packet->kind != WRITE_MARK);
        packet->layer = placing->layer;
        packet->is_urgent = placing->is_urgent;
        packet->is_stream = false;
        packet->room = 0;
        packet->starts_message = packet == batch->first && !placing->is_joined;
    }
    struct write_packet *place =
        placing->is_urgent ? find_urgent_place(queue, placing->layer) : queue->last;
    struct write_packet **link = place == NULL ? &queue->first : &place->next;
    batch->last->next = *link;
    *link = batch->first;
    if (batch->last->next == NULL) {
        queue->last = batch->last;
    }
    queue->length += batch->length;
    write_queue_init(batch);
}

// --- Taking -----------------------------------------------------------------------------

int
write_queue_gather(const struct write_queue *queue, struct iovec *spans, int capacity)
{
    int count = 0;
    const struct write_packet *packet = queue->first;
    const void *layer = packet == NULL ? NULL : packet->layer;
    for (; packet != NULL && packet->kind == WRITE_BYTES && packet->layer == layer &&
           count < capacity;
         packet = packet->next) {
        if (packet->left > 0) {
            spans[count].iov_base = (void *)(uintptr_t)packet->bytes;
            spans[count].iov_len = (size_t)packet->left;
            count++;
        }
    }
    return count;
}

void
write_queue_drain(struct write_queue *queue, uint64_t length, struct write_packet **spare)
{
    assert(length <= queue->length);
    struct write_packet *packet = queue->first;
    if (packet != NULL && packet == queue->last && packet->is_stream &&
        packet->left == length) {
        // What was just written has left at once, as mostly.
        write_queue_init(queue);
        keep_or_free(packet, spare);
        return;
    }
    struct write_packet *gone = NULL;
    struct write_packet **gone_end = &gone;
    while ((packet = queue->first) != NULL && packet->kind != WRITE_MARK &&
           packet->left <= length) {
        length -= packet->left;
        unlink_first(queue);
        if (packet->kind == WRITE_BYTES) {
            packet->bytes += packet->left;
        }
        packet->left = 0;
        *gone_end = packet;
        gone_end = &packet->next;
    }
    if (length > 0 && packet != NULL) {
        assert(packet->kind != WRITE_MARK);
        packet->has_begun = true;
        packet->left -= length;
        queue->length -= length;
        if (packet->kind == WRITE_BYTES) {
            packet->bytes += length;
        }
        else {
            packet->offset += (int64_t)length;
        }
    }
    release_all(gone, spare);
}

void
write_queue_drop_first(struct write_queue *queue)
{
    release_all(unlink_first(queue), NULL);
}

// The link that points at the packet of [owner]; and the packet in front of it, NULL if it is
// the first.
static struct write_packet **
find_owner(struct write_queue *queue, const void *owner, struct write_packet **previous)
{
    struct write_packet **link = &queue->first;
    *previous = NULL;
    while (*link != NULL && ((*link)->release == NULL || (*link)->owner != owner)) {
        *previous = *link;
        link = &(*link)->next;
    }
    return link;
}

uint64_t
write_queue_left_of(struct write_queue *queue, const void *owner)
{
    struct write_packet *previous;
    const struct write_packet *packet = *find_owner(queue, owner, &previous);
    return packet == NULL ? 0 : packet->left;
}

bool
write_queue_withdraw(struct write_queue *queue, const void *owner)
{
    struct write_packet *previous;
    struct write_packet **link = find_owner(queue, owner, &previous);
    struct write_packet *packet = *link;
    if (packet == NULL) {
        return false;
    }
    *link = packet->next;
    if (queue->last == packet) {
        queue->last = previous;
    }
    queue->length -= packet->left;
    packet->next = NULL;
    release_all(packet, NULL);
    return true;
}

int
write_queue_keep_copy(struct write_queue *queue, const void *owner)
{
    struct write_packet *previous;
    struct write_packet **link = find_owner(queue, owner, &previous);
    struct write_packet *packet = *link;
    if (packet == NULL || packet->kind != WRITE_BYTES) {
        return 0;
    }
    struct write_packet *copy = packet_new(WRITE_BYTES, (size_t)packet->left);
    if (copy == NULL) {
        return -ENOMEM;
    }
    if (packet->left > 0) {
        memcpy(copy->memory, packet->bytes, (size_t)packet->left);
    }
    copy->next = packet->next;
    copy->left = packet->left;
    copy->layer = packet->layer;
    copy->is_urgent = packet->is_urgent;
    copy->starts_message = packet->starts_message;
    copy->has_begun = packet->has_begun;
    *link = copy;
    if (queue->last == packet) {
        queue->last = copy;
    }
    packet->next = NULL;
    packet->left = 0;
    release_all(packet, NULL);
    return 0;
}

bool
write_queue_is_consistent(const struct write_queue *queue)
{
    uint64_t length = 0;
    const struct write_packet *last = NULL;
    for (const struct write_packet *packet = queue->first; packet != NULL;
         packet = packet->next) {
        bool is_copy = packet->kind == WRITE_BYTES && packet->release == NULL;
        if ((packet->has_begun && packet != queue->first) ||
            (packet->kind == WRITE_MARK && packet->left > 0) ||
            (packet->room > 0 && !(is_copy && packet->is_stream))) {
            return false;
        }
        length += packet->left;
        last = packet;
    }
    return length == queue->length && last == queue->last;
}
