// fuzz_watch_table.c: the watch table against an array with an entry for each descriptor.
//
// Tokens are kept for long and looked up again when their descriptor has had other owners.

#include <errno.h>

#include "operations.h"
#include "watch_table.h"

// Beyond a few doublings of the table's array.
#define DESCRIPTOR_COUNT 1200
#define TOKEN_COUNT 32

static struct {
    bool is_owned;
    uint32_t generation;
    uint16_t interest;
    uint8_t trigger;
} model[DESCRIPTOR_COUNT];

static uint64_t tokens[TOKEN_COUNT]; // of owners that may be gone
static char owners[DESCRIPTOR_COUNT];

static int
take_descriptor(struct operations *operations)
{
    uint8_t choice = take_byte(operations);
    if (choice < 0xc0) {
        return choice & 0x0f; // those that are used again and again
    }
    return choice == 0xff ? -1 - (int)take_number(operations, 3)
                          : (int)take_below(operations, DESCRIPTOR_COUNT);
}

static void
add(struct watch_table *table, int fd, bool is_memory_short)
{
    fail_next_allocation(is_memory_short);
    void *owner = fd < 0 ? owners : &owners[fd];
    int result = watch_table_add(table, fd, owner);
    bool has_failed = is_memory_short && !fail_next_allocation(false);
    if (fd < 0) {
        REQUIRE(result == -EBADF && !has_failed);
    }
    else if (model[fd].is_owned) {
        REQUIRE(result == -EEXIST && !has_failed);
    }
    else if (has_failed) {
        REQUIRE(result == -ENOMEM);
    }
    else {
        REQUIRE(result == 0);
        model[fd].is_owned = true;
    }
}

static void
discard(struct watch_table *table, int fd)
{
    watch_table_remove(table, fd);
    if (fd >= 0 && model[fd].is_owned) {
        model[fd].is_owned = false;
        model[fd].generation++;
        model[fd].interest = 0;
        model[fd].trigger = 0;
    }
}

// The generation of a descriptor after very many owners: its next but two is 0.
static void
make_old(struct watch_table *table, int fd)
{
    struct watch *watch = watch_table_get(table, fd);
    if (watch != NULL) {
        watch->generation = model[fd].generation = UINT32_MAX - 1;
    }
}

static void
note_registration(struct watch_table *table, int fd, uint16_t interest)
{
    struct watch *watch = watch_table_get(table, fd);
    if (watch != NULL) {
        watch->interest = model[fd].interest = interest;
        watch->trigger = model[fd].trigger = interest != 0;
    }
}

static void
check_descriptor(const struct watch_table *table, int fd)
{
    struct watch *watch = watch_table_get(table, fd);
    REQUIRE((watch != NULL) == (fd >= 0 && model[fd].is_owned));
    if (watch == NULL) {
        return;
    }
    REQUIRE(watch->owner == &owners[fd]);
    REQUIRE(watch->generation == model[fd].generation);
    REQUIRE(watch->interest == model[fd].interest);
    REQUIRE(watch->trigger == model[fd].trigger);
    uint64_t token = watch_table_token(table, fd);
    REQUIRE(token == ((uint64_t)model[fd].generation << 32 | (uint32_t)fd));
    REQUIRE(watch_table_find(table, token) == watch);
}

static void
check_token(const struct watch_table *table, uint64_t token)
{
    int fd = token_fd(token);
    bool is_known = fd >= 0 && fd < DESCRIPTOR_COUNT && model[fd].is_owned &&
                    model[fd].generation == token >> 32;
    struct watch *watch = watch_table_find(table, token);
    REQUIRE((watch != NULL) == is_known);
    REQUIRE(watch == NULL || watch->owner == &owners[fd]);
}

static void
check_all(const struct watch_table *table)
{
    size_t owned_count = 0;
    for (int fd = 0; fd < DESCRIPTOR_COUNT; fd++) {
        owned_count += model[fd].is_owned;
        check_descriptor(table, fd);
    }
    REQUIRE(table->owned_count == owned_count);
    REQUIRE(watch_table_is_consistent(table));
}

static void
operate(struct watch_table *table, struct operations *operations)
{
    uint8_t choice = take_byte(operations);
    int fd = take_descriptor(operations);
    switch (choice % 8) {
    case 0:
    case 1:
        add(table, fd, choice >= 0xe0);
        break;
    case 2:
        discard(table, fd);
        break;
    case 3:
        note_registration(table, fd, take_byte(operations));
        break;
    case 4:
        make_old(table, fd);
        break;
    case 5:
        if (watch_table_get(table, fd) != NULL) {
            tokens[take_below(operations, TOKEN_COUNT)] = watch_table_token(table, fd);
        }
        break;
    case 6:
        check_token(table, take_number(operations, 8));
        break;
    default:
        // One that a wild event would carry.
        check_token(table, tokens[take_below(operations, TOKEN_COUNT)] ^
                               UINT64_C(1) << take_below(operations, 64));
        break;
    }
    check_descriptor(table, fd);
    for (int i = 0; i < TOKEN_COUNT; i++) {
        check_token(table, tokens[i]);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct operations operations = {bytes, length};
    struct watch_table table;
    watch_table_init(&table);
    for (int fd = 0; fd < DESCRIPTOR_COUNT; fd++) {
        model[fd].is_owned = false;
        model[fd].generation = 0;
        model[fd].interest = 0;
        model[fd].trigger = 0;
    }
    for (int i = 0; i < TOKEN_COUNT; i++) {
        tokens[i] = 0;
    }
    for (unsigned count = 1; operations.left > 0; count++) {
        operate(&table, &operations);
        if (count % 16 == 0) {
            check_all(&table);
        }
    }
    check_all(&table);
    watch_table_fini(&table);
    return 0;
}
