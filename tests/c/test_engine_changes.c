// test_engine_changes.c: how registrations change, with every engine: added, modified and
// removed in any order, closed numbers, duplicates, kinds of files.

// For socketpair and the like under -std=c11 with glibc.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "engine_cases.h"
#include "watch_table.h"

static void
test_engine_closed_number_reused_has_new_token_only(void)
{
    int old[2];
    int new[2];
    make_pair(old);
    put(old[1], "x");
    CHECK_INT(operations->add(engine, old[0], TOKEN, EVENT_READ, ENGINE_LEVEL), 0);
    CHECK_UINT(look(TOKEN), EVENT_READ);
    // Behind the engine's back.
    close_pair(old);
    make_pair(new);
    REQUIRE(new[0] == old[0]);
    CHECK_UINT(look(TOKEN), 0);
    CHECK_INT(operations->remove(engine, new[0]), -ENOENT);
    CHECK_INT(operations->add(engine, new[0], OTHER_TOKEN, EVENT_READ, ENGINE_LEVEL), 0);
    CHECK_UINT(look(OTHER_TOKEN), 0);
    put(new[1], "y");
    CHECK_UINT(await(OTHER_TOKEN), EVENT_READ);
    close_pair(new);
}

static void
test_engine_duplicate_is_added_besides_the_original(void)
{
    int pair[2];
    make_pair(pair);
    int copy = dup(pair[0]);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE), 0);
    CHECK_INT(operations->add(engine, copy, OTHER_TOKEN, EVENT_WRITE, ENGINE_EDGE), 0);
    CHECK_UINT(await(OTHER_TOKEN), EVENT_WRITE);
    CHECK_INT(operations->remove(engine, copy), 0);
    close(copy);
    put(pair[1], "x");
    CHECK_UINT(await(TOKEN), EVENT_READ);
    close_pair(pair);
}

static void
test_engine_removed_fd_is_silent(void)
{
    int pair[2];
    make_pair(pair);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_READ, ENGINE_LEVEL), 0);
    put(pair[1], "x");
    CHECK_UINT(await(TOKEN), EVENT_READ);
    CHECK_INT(operations->remove(engine, pair[0]), 0);
    CHECK_UINT(look(TOKEN), 0);
    CHECK_INT(operations->remove(engine, pair[0]), -ENOENT);
    close_pair(pair);
}

static void
test_engine_wrong_order_is_an_error(void)
{
    int pair[2];
    make_pair(pair);
    CHECK_INT(operations->modify(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE),
              -ENOENT);
    CHECK_INT(operations->remove(engine, pair[0]), -ENOENT);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE), 0);
    CHECK_INT(operations->remove(engine, pair[0]), 0);
    CHECK_INT(operations->modify(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE),
              -ENOENT);
    close_pair(pair);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE), -EBADF);
    CHECK_INT(operations->modify(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE),
              -EBADF);
    CHECK_INT(operations->remove(engine, pair[0]), -EBADF);
    CHECK_INT(operations->add(engine, -1, TOKEN, EVENT_READ, ENGINE_EDGE), -EBADF);
}

static void
test_engine_file_without_readiness_is_refused(void)
{
    int file = open(__FILE__, O_RDONLY);
    if (file < 0) {
        file = open("/proc/self/exe", O_RDONLY);
    }
    int directory = open("/", O_RDONLY);
    REQUIRE(file >= 0 && directory >= 0);
    CHECK_INT(operations->add(engine, file, TOKEN, EVENT_READ, ENGINE_EDGE), -EPERM);
    CHECK_INT(operations->add(engine, directory, TOKEN, EVENT_READ, ENGINE_EDGE), -EPERM);
    // It was not watched: a watched number may come to mean such a file.
    CHECK_INT(operations->remove(engine, file), -ENOENT);
#if defined(__linux__)
    // A device that the kernel refuses: elsewhere some are accepted.
    int device = open("/dev/null", O_RDONLY);
    REQUIRE(device >= 0);
    CHECK_INT(operations->add(engine, device, TOKEN, EVENT_READ, ENGINE_EDGE), -EPERM);
    CHECK_INT(operations->remove(engine, device), -ENOENT);
    close(device);
#endif
    close(file);
    close(directory);
}

static void
test_engine_modify_changes_interest_token_and_trigger(void)
{
    int pair[2];
    make_pair(pair);
    put(pair[1], "x");
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE), 0);
    CHECK_UINT(await(TOKEN), EVENT_READ);
    CHECK_INT(operations->modify(engine, pair[0], OTHER_TOKEN, EVENT_WRITE, ENGINE_EDGE),
              0);
    CHECK_UINT(await(OTHER_TOKEN), EVENT_WRITE);
    CHECK_UINT(look(OTHER_TOKEN), 0);
    // Asking again reports what is there already, edge or not.
    CHECK_INT(operations->modify(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE), 0);
    CHECK_UINT(await(TOKEN), EVENT_READ);
    CHECK_UINT(look(TOKEN), 0);
    CHECK_INT(operations->modify(engine, pair[0], TOKEN, EVENT_READ, ENGINE_LEVEL), 0);
    CHECK_UINT(await(TOKEN), EVENT_READ);
    CHECK_UINT(await(TOKEN), EVENT_READ);
    close_pair(pair);
}

// An event fetched for an owner that has gone since is known by its token.
static void
test_engine_fetched_event_of_a_former_owner_is_told_by_its_generation(void)
{
    struct watch_table table;
    struct engine_event events[2];
    int pair[2];
    int owners[2];
    watch_table_init(&table);
    make_pair(pair);
    put(pair[1], "x");
    CHECK_INT(watch_table_add(&table, pair[0], &owners[0]), 0);
    CHECK_INT(operations->add(engine, pair[0], watch_table_token(&table, pair[0]),
                              EVENT_READ, ENGINE_EDGE),
              0);
    REQUIRE(operations->wait(engine, &events[0], 1, -1) == 1);
    // The number goes to another while the event is on its way.
    CHECK_INT(operations->remove(engine, pair[0]), 0);
    watch_table_remove(&table, pair[0]);
    CHECK_INT(watch_table_add(&table, pair[0], &owners[1]), 0);
    CHECK_INT(operations->add(engine, pair[0], watch_table_token(&table, pair[0]),
                              EVENT_READ, ENGINE_EDGE),
              0);
    REQUIRE(operations->wait(engine, &events[1], 1, -1) == 1);
    CHECK(watch_table_find(&table, events[0].token) == NULL);
    const struct watch *watch = watch_table_find(&table, events[1].token);
    CHECK(watch != NULL && watch->owner == &owners[1]);
    watch_table_fini(&table);
    close_pair(pair);
}

// One end of a pair, and what a level-triggered engine has to say about it.
struct model {
    int pair[2];
    unsigned interest; // 0 while it is not added
    uint64_t token;
    bool has_bytes;
};

static void
change_randomly(struct model *model, int step)
{
    unsigned interest =
        (random_below(2) ? EVENT_READ : 0u) | (random_below(2) ? EVENT_WRITE : 0u);
    if (random_below(3) == 0) {
        if (model->has_bytes) {
            drain(model->pair[0]);
        }
        else {
            put(model->pair[1], "x");
        }
        model->has_bytes = !model->has_bytes;
    }
    else if (interest == 0) {
        CHECK_INT(operations->remove(engine, model->pair[0]),
                  model->interest != 0 ? 0 : -ENOENT);
        model->interest = 0;
    }
    else {
        uint64_t token = (uint64_t)step << 8 | (model->token & 0xff);
        CHECK_INT((model->interest != 0 ? operations->modify : operations->add)(
                      engine, model->pair[0], token, interest, ENGINE_LEVEL),
                  0);
        model->token = token;
        model->interest = interest;
    }
}

static void
test_engine_random_changes_match_model(void)
{
    enum { MODELS = 6, STEPS = 4000 };
    struct model models[MODELS] = {{.interest = 0}};
    struct engine_event events[MODELS + 1];
    for (unsigned i = 0; i < MODELS; i++) {
        make_pair(models[i].pair);
        models[i].token = i;
    }
    for (int step = 1; step <= STEPS; step++) {
        change_randomly(&models[random_below(MODELS)], step);
        int expected_count = 0;
        for (unsigned i = 0; i < MODELS; i++) {
            unsigned state = EVENT_WRITE | (models[i].has_bytes ? EVENT_READ : 0u);
            expected_count += (models[i].interest & state) != 0;
        }
        int count = operations->wait(engine, events, MODELS + 1, 0);
        if (!CHECK_INT(count, expected_count)) {
            break;
        }
        for (int i = 0; i < count; i++) {
            const struct model *model = &models[events[i].token & 0xff];
            unsigned state = EVENT_WRITE | (model->has_bytes ? EVENT_READ : 0u);
            CHECK_UINT(events[i].token, model->token);
            CHECK_UINT(events[i].ready, model->interest & state);
        }
    }
    for (unsigned i = 0; i < MODELS; i++) {
        close_pair(models[i].pair);
    }
}

static const struct engine_case cases[] = {
    CASE(test_engine_closed_number_reused_has_new_token_only),
    CASE(test_engine_duplicate_is_added_besides_the_original),
    CASE(test_engine_removed_fd_is_silent),
    CASE(test_engine_wrong_order_is_an_error),
    CASE(test_engine_file_without_readiness_is_refused),
    CASE(test_engine_modify_changes_interest_token_and_trigger),
    CASE(test_engine_fetched_event_of_a_former_owner_is_told_by_its_generation),
    CASE(test_engine_random_changes_match_model),
};

int
main(void)
{
    harness_limit_time(120);
    engine_cases_run(cases, COUNT_OF(cases));
    return harness_finish("engine changes");
}
