// test_fair_queue.c: members of one bucket, driven over long times by a clock of the test's
// own whose timers are late by up to a millisecond, as those of the reactor are.

#include "fair_queue.h"
#include "harness.h"

#define SECOND_NS UINT64_C(1000000000)
#define TICK_NS UINT64_C(1000000)

enum { MAX_MEMBERS = 10 };

// Members that always want more, each in pieces of its own size.
struct crowd {
    struct fair_queue queue;
    struct fair_member members[MAX_MEMBERS];
    uint64_t piece[MAX_MEMBERS];
    uint64_t moved[MAX_MEMBERS];
    size_t count;
    uint64_t now_ns;
    uint64_t rounds;
};

static void
crowd_init(struct crowd *crowd, uint64_t rate, uint64_t burst, uint64_t min_share,
           size_t count)
{
    *crowd = (struct crowd){.count = count, .now_ns = 12345};
    fair_queue_init(&crowd->queue, rate, burst, min_share, crowd->now_ns);
    for (size_t i = 0; i < count; i++) {
        fair_queue_join(&crowd->queue, &crowd->members[i]);
        crowd->piece[i] = 65536;
    }
}

// Moves all that the member may; returns how much it was.
static uint64_t
crowd_move(struct crowd *crowd, size_t i)
{
    uint64_t total = 0;
    uint64_t allowed;
    while ((allowed = fair_queue_ask(&crowd->queue, &crowd->members[i], crowd->piece[i],
                                     crowd->now_ns)) > 0) {
        CHECK(allowed <= crowd->piece[i]);
        fair_queue_note_moved(&crowd->queue, &crowd->members[i], allowed);
        total += allowed;
    }
    crowd->moved[i] += total;
    return total;
}

static void
crowd_start(struct crowd *crowd)
{
    for (size_t i = 0; i < crowd->count; i++) {
        crowd_move(crowd, i);
    }
}

// Waits for the next round and has it; false if that is after [end_ns].
static bool
crowd_next_round(struct crowd *crowd, uint64_t end_ns)
{
    uint64_t delay_ns = fair_queue_delay_ns(&crowd->queue, crowd->now_ns);
    REQUIRE(delay_ns < 3600 * SECOND_NS);
    if (delay_ns > 0) {
        // Rounded up, and sometimes later still.
        crowd->now_ns += delay_ns;
        crowd->now_ns += TICK_NS - crowd->now_ns % TICK_NS;
        crowd->now_ns += random_below(2) * random_below(TICK_NS);
    }
    if (crowd->now_ns > end_ns) {
        return false;
    }
    fair_queue_begin_round(&crowd->queue, crowd->now_ns);
    crowd->rounds++;
    // All that go on are named first, as if they were woken, and then move one by one.
    size_t woken[MAX_MEMBERS];
    size_t count = 0;
    struct fair_member *member;
    while ((member = fair_queue_take_turn(&crowd->queue)) != NULL) {
        woken[count++] = (size_t)(member - crowd->members);
    }
    CHECK(count > 0);
    for (size_t i = 0; i < count; i++) {
        CHECK(crowd_move(crowd, woken[i]) > 0);
    }
    return true;
}

static uint64_t
crowd_run(struct crowd *crowd, uint64_t seconds)
{
    uint64_t end_ns = crowd->now_ns + seconds * SECOND_NS;
    crowd_start(crowd);
    while (crowd_next_round(crowd, end_ns)) {
    }
    uint64_t total = 0;
    for (size_t i = 0; i < crowd->count; i++) {
        total += crowd->moved[i];
    }
    return total;
}

static void
check_within(uint64_t seen, uint64_t expected, uint64_t percent)
{
    CHECK(seen * 100 >= expected * (100 - percent));
    CHECK(seen * 100 <= expected * (100 + percent));
}

static void
test_queue_total_is_the_rate_and_one_burst(void)
{
    static const uint64_t rates[] = {10, 1000, 65537, 1000000, 100000000, 40000000000};
    static const size_t counts[] = {1, 2, 10};
    for (size_t i = 0; i < COUNT_OF(rates) * COUNT_OF(counts) * 3; i++) {
        uint64_t rate = rates[i / 9];
        uint64_t bursts[] = {rate / 1000 + 1, rate, rate * 10};
        uint64_t burst = bursts[i % 3];
        struct crowd crowd;
        crowd_init(&crowd, rate, burst, 64, counts[i / 3 % 3]);
        crowd_run(&crowd, 1); // what is above the burst at the start
        for (size_t k = 0; k < crowd.count; k++) {
            crowd.moved[k] = 0;
        }
        uint64_t seconds = rate > 1000000000 ? 3 : 600;
        uint64_t total = crowd_run(&crowd, seconds);
        // Of a rest that a round did not come to there is less than a round.
        uint64_t open = burst < rate / 50 + 64 ? burst : rate / 50 + 64;
        CHECK(total <= rate * seconds + open + rate / 50);
        CHECK((total + 2 * open + 2) * 1000 >= rate * seconds * 999);
    }
}

static void
test_queue_members_get_the_same_whatever_their_pieces(void)
{
    static const uint64_t pieces[MAX_MEMBERS] = {65536, 1,   100, 65536, 1460,
                                                 7,     512, 64,  4096,  1000000};
    static const uint64_t rates[] = {5000, 100000, 1000000};
    for (size_t i = 0; i < COUNT_OF(rates) * 3; i++) {
        struct crowd crowd;
        size_t counts[] = {2, 3, 10};
        crowd_init(&crowd, rates[i / 3], rates[i / 3] * 4, 64, counts[i % 3]);
        for (size_t k = 0; k < crowd.count; k++) {
            crowd.piece[k] = pieces[k];
        }
        uint64_t total = crowd_run(&crowd, 60);
        for (size_t k = 0; k < crowd.count; k++) {
            check_within(crowd.moved[k], total / crowd.count, 3);
        }
    }
}

static void
test_queue_first_to_come_does_not_empty_the_bucket(void)
{
    struct crowd crowd;
    crowd_init(&crowd, 1000, 100000, 64, 10);
    crowd_start(&crowd);
    for (size_t i = 0; i < crowd.count; i++) {
        CHECK_UINT(crowd.moved[i], 10000);
    }
    CHECK_UINT(crowd.queue.waiting_count, 10);
}

static void
test_queue_no_round_begins_while_others_may_still_come(void)
{
    struct crowd crowd;
    crowd_init(&crowd, 1000, 100000, 64, 10);
    CHECK_UINT(crowd_move(&crowd, 0), 10000);
    CHECK_UINT(fair_queue_delay_ns(&crowd.queue, crowd.now_ns), FAIR_QUEUE_GATHER_NS);
    crowd.now_ns += FAIR_QUEUE_GATHER_NS - 1;
    fair_queue_begin_round(&crowd.queue, crowd.now_ns);
    CHECK_POINTER(fair_queue_take_turn(&crowd.queue), NULL);
    CHECK_UINT(crowd_move(&crowd, 1), 10000);
    // Then who has come takes all that there is.
    while (fair_queue_delay_ns(&crowd.queue, crowd.now_ns) <= 1) {
        crowd_next_round(&crowd, UINT64_MAX);
    }
    check_within(crowd.moved[0] + crowd.moved[1], 100000, 1);
    check_within(crowd.moved[0], 50000, 1);
}

static void
test_queue_few_tokens_go_in_turns_of_min_share(void)
{
    struct crowd crowd;
    crowd_init(&crowd, 1000, 1000, 250, 10);
    crowd_start(&crowd);
    token_bucket_take(&crowd.queue.bucket, (uint64_t)crowd.queue.bucket.tokens);
    size_t before = crowd.queue.waiting_count;
    REQUIRE(before == 10);
    CHECK_UINT(fair_queue_delay_ns(&crowd.queue, crowd.now_ns), SECOND_NS / 4);
    // Enough for three of them, in the order in which they came.
    crowd.now_ns += SECOND_NS * 8 / 10;
    fair_queue_begin_round(&crowd.queue, crowd.now_ns);
    for (size_t i = 0; i < 3; i++) {
        struct fair_member *member = fair_queue_take_turn(&crowd.queue);
        CHECK_POINTER(member, &crowd.members[i]);
        CHECK_UINT(fair_queue_ask(&crowd.queue, member, 65536, crowd.now_ns), 250);
        fair_queue_note_moved(&crowd.queue, member, 250);
    }
    CHECK_POINTER(fair_queue_take_turn(&crowd.queue), NULL);
    CHECK_UINT(crowd.queue.waiting_count, 7);
}

static void
test_queue_min_share_above_the_burst_is_the_burst(void)
{
    struct crowd crowd;
    crowd_init(&crowd, 100, 10, 1000, 2);
    uint64_t total = crowd_run(&crowd, 100);
    check_within(total, 10000, 2);
    check_within(crowd.moved[0], total / 2, 2);
}

static void
test_queue_member_that_leaves_strands_nobody(void)
{
    struct crowd crowd;
    crowd_init(&crowd, 1000, 1000, 64, 3);
    crowd_run(&crowd, 1);
    REQUIRE(crowd.queue.waiting_count == 3);
    fair_queue_leave(&crowd.queue, &crowd.members[1]);
    CHECK_UINT(crowd.queue.waiting_count, 2);
    CHECK_UINT(crowd.queue.member_count, 2);
    uint64_t before[] = {crowd.moved[0], crowd.moved[1], crowd.moved[2]};
    uint64_t end_ns = crowd.now_ns + 100 * SECOND_NS;
    while (crowd_next_round(&crowd, end_ns)) {
    }
    check_within(crowd.moved[0] - before[0], 50000, 2);
    CHECK_UINT(crowd.moved[1], before[1]);
    check_within(crowd.moved[2] - before[2], 50000, 2);
    // The last one, while it waits and in the middle of a round.
    crowd.now_ns += 10 * SECOND_NS;
    fair_queue_begin_round(&crowd.queue, crowd.now_ns);
    fair_queue_leave(&crowd.queue, &crowd.members[0]);
    fair_queue_leave(&crowd.queue, &crowd.members[2]);
    CHECK_POINTER(fair_queue_take_turn(&crowd.queue), NULL);
    CHECK_UINT(fair_queue_delay_ns(&crowd.queue, crowd.now_ns), UINT64_MAX);
}

// A turn that was not used is no right to catch up on later.
static void
test_queue_old_turn_counts_no_more_than_a_new_one(void)
{
    struct crowd crowd;
    crowd_init(&crowd, 1000, 1000000, 64, 3);
    CHECK_UINT(fair_queue_ask(&crowd.queue, &crowd.members[0], 1, crowd.now_ns), 1);
    CHECK_UINT(crowd.members[0].turn, 333333);
    crowd_move(&crowd, 1);
    crowd_move(&crowd, 2);
    while (crowd.queue.bucket.tokens > 100) {
        crowd_next_round(&crowd, UINT64_MAX);
    }
    crowd_next_round(&crowd, UINT64_MAX);
    crowd.now_ns += SECOND_NS;
    CHECK(fair_queue_ask(&crowd.queue, &crowd.members[0], 65536, crowd.now_ns) <= 100);
}

// Who is slow to use its turn finds its tokens, for a while; then they are everybody's.
static void
test_queue_tokens_of_a_turn_are_kept_for_a_slice(void)
{
    struct crowd crowd;
    crowd_init(&crowd, 1000, 100000, 64, 2);
    CHECK_UINT(fair_queue_ask(&crowd.queue, &crowd.members[1], 1, crowd.now_ns), 1);
    CHECK_UINT(crowd_move(&crowd, 0), 50000);
    CHECK_UINT(fair_queue_delay_ns(&crowd.queue, crowd.now_ns), FAIR_QUEUE_SLICE_NS);
    fair_queue_begin_round(&crowd.queue, crowd.now_ns);
    CHECK_POINTER(fair_queue_take_turn(&crowd.queue), NULL);
    crowd.now_ns += FAIR_QUEUE_SLICE_NS - 1;
    fair_queue_note_moved(&crowd.queue, &crowd.members[1], 10000);
    CHECK_UINT(fair_queue_delay_ns(&crowd.queue, crowd.now_ns), 1);
    crowd.now_ns++;
    crowd_next_round(&crowd, UINT64_MAX);
    CHECK_UINT(crowd.moved[0], 50000 + 40020);
    CHECK_UINT(fair_queue_ask(&crowd.queue, &crowd.members[1], 1, crowd.now_ns), 0);
}

// A turn given up with its member holds nobody up.
static void
test_queue_turn_of_a_member_that_left_is_free(void)
{
    struct crowd crowd;
    crowd_init(&crowd, 1000, 90000, 64, 3);
    for (size_t i = 0; i < 2; i++) {
        CHECK_UINT(fair_queue_ask(&crowd.queue, &crowd.members[i], 1, crowd.now_ns), 1);
    }
    crowd_move(&crowd, 2);
    crowd.now_ns += FAIR_QUEUE_GATHER_NS;
    CHECK(fair_queue_delay_ns(&crowd.queue, crowd.now_ns) > 0);
    fair_queue_leave(&crowd.queue, &crowd.members[1]);
    CHECK_UINT(fair_queue_delay_ns(&crowd.queue, crowd.now_ns), 0);
    crowd_next_round(&crowd, UINT64_MAX);
    CHECK_UINT(crowd.moved[2], 60000 + 5); // those that came meanwhile
    CHECK_UINT(crowd_move(&crowd, 0), 30000);
}

static void
test_queue_one_that_wants_little_does_not_wait_for_a_round(void)
{
    struct crowd crowd;
    crowd_init(&crowd, 1000, 1000, 64, 1);
    fair_queue_note_moved(&crowd.queue, &crowd.members[0], 990);
    CHECK_UINT(fair_queue_ask(&crowd.queue, &crowd.members[0], 10, crowd.now_ns), 10);
    CHECK_UINT(fair_queue_ask(&crowd.queue, &crowd.members[0], 11, crowd.now_ns), 0);
    // In line it stays, also if it asks again.
    CHECK_UINT(fair_queue_ask(&crowd.queue, &crowd.members[0], 10, crowd.now_ns), 0);
    CHECK_UINT(crowd.queue.waiting_count, 1);
}

static void
test_queue_nothing_begins_before_its_time(void)
{
    struct crowd crowd;
    crowd_init(&crowd, 1000, 1000, 64, 2);
    crowd_start(&crowd);
    token_bucket_take(&crowd.queue.bucket, (uint64_t)crowd.queue.bucket.tokens + 36);
    uint64_t delay_ns = fair_queue_delay_ns(&crowd.queue, crowd.now_ns);
    CHECK_UINT(delay_ns, SECOND_NS / 10);
    fair_queue_begin_round(&crowd.queue, crowd.now_ns + delay_ns - 1);
    CHECK_POINTER(fair_queue_take_turn(&crowd.queue), NULL);
    fair_queue_begin_round(&crowd.queue, crowd.now_ns + delay_ns);
    CHECK_POINTER(fair_queue_take_turn(&crowd.queue), &crowd.members[0]);
    // Whoever took more than it was told pays it back.
    fair_queue_note_moved(&crowd.queue, &crowd.members[0], 1064);
    CHECK_INT(fair_queue_tokens(&crowd.queue, crowd.now_ns + delay_ns), -1000);
}

static void
test_queue_anything_goes_but_never_more_than_the_rate(void)
{
    for (int run = 0; run < 200; run++) {
        struct crowd crowd;
        uint64_t rate = 1 + random_magnitude(24);
        uint64_t burst = 1 + random_magnitude(24);
        uint64_t total = 0;
        bool is_member[MAX_MEMBERS] = {false};
        crowd_init(&crowd, rate, burst, 1 + random_magnitude(12), 0);
        uint64_t start_ns = crowd.now_ns;
        for (int i = 0; i < 2000; i++) {
            size_t k = random_below(MAX_MEMBERS);
            if (!is_member[k] || random_below(20) == 0) {
                is_member[k] ? fair_queue_leave(&crowd.queue, &crowd.members[k])
                             : fair_queue_join(&crowd.queue, &crowd.members[k]);
                is_member[k] = !is_member[k];
                continue;
            }
            if (random_below(3) == 0) {
                crowd.now_ns += random_magnitude(31);
                fair_queue_begin_round(&crowd.queue, crowd.now_ns);
                while (random_below(8) > 0 && fair_queue_take_turn(&crowd.queue)) {
                }
            }
            uint64_t wanted = 1 + random_magnitude(20);
            uint64_t allowed =
                fair_queue_ask(&crowd.queue, &crowd.members[k], wanted, crowd.now_ns);
            CHECK(allowed <= wanted);
            CHECK((allowed == 0) == list_is_linked(&crowd.members[k].link));
            allowed = random_below(allowed + 1);
            fair_queue_note_moved(&crowd.queue, &crowd.members[k], allowed);
            total += allowed;
            CHECK(crowd.queue.bucket.tokens >= 0);
        }
        uint64_t passed_ns = crowd.now_ns - start_ns;
        CHECK(total <= burst + rate / 50 + rate * (passed_ns / SECOND_NS + 1));
    }
}

int
main(void)
{
    RUN(test_queue_total_is_the_rate_and_one_burst);
    RUN(test_queue_members_get_the_same_whatever_their_pieces);
    RUN(test_queue_first_to_come_does_not_empty_the_bucket);
    RUN(test_queue_no_round_begins_while_others_may_still_come);
    RUN(test_queue_few_tokens_go_in_turns_of_min_share);
    RUN(test_queue_min_share_above_the_burst_is_the_burst);
    RUN(test_queue_member_that_leaves_strands_nobody);
    RUN(test_queue_old_turn_counts_no_more_than_a_new_one);
    RUN(test_queue_tokens_of_a_turn_are_kept_for_a_slice);
    RUN(test_queue_turn_of_a_member_that_left_is_free);
    RUN(test_queue_one_that_wants_little_does_not_wait_for_a_round);
    RUN(test_queue_nothing_begins_before_its_time);
    RUN(test_queue_anything_goes_but_never_more_than_the_rate);
    return harness_finish("fair_queue");
}
