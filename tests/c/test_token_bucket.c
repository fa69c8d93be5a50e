// test_token_bucket.c: how many tokens come, over a moment and over years, at every rate.

#include "harness.h"
#include "token_bucket.h"

#define SECOND_NS UINT64_C(1000000000)
#define YEAR_NS (UINT64_C(366) * 24 * 3600 * SECOND_NS)

static struct token_bucket
bucket_at(uint64_t rate, uint64_t burst, int64_t tokens)
{
    struct token_bucket bucket;
    token_bucket_init(&bucket, rate, burst, SECOND_NS);
    bucket.tokens = tokens;
    return bucket;
}

static void
test_bucket_begins_full_and_keeps_no_more_than_the_burst(void)
{
    struct token_bucket bucket;
    token_bucket_init(&bucket, 100, 50, 7);
    CHECK_INT(bucket.tokens, 50);
    token_bucket_refill(&bucket, 7 + 10 * SECOND_NS, 0);
    CHECK_INT(bucket.tokens, 50);
    token_bucket_take(&bucket, 30);
    token_bucket_refill(&bucket, 7 + 11 * SECOND_NS, 0);
    CHECK_INT(bucket.tokens, 50);
}

static void
test_bucket_full_again_has_nothing_on_its_way(void)
{
    struct token_bucket bucket = bucket_at(1, 1, 0);
    token_bucket_refill(&bucket, SECOND_NS * 2 + SECOND_NS * 9 / 10, 0);
    CHECK_INT(bucket.tokens, 1);
    token_bucket_take(&bucket, 1);
    token_bucket_refill(&bucket, SECOND_NS * 3, 0);
    CHECK_INT(bucket.tokens, 0);
}

static void
test_bucket_extra_is_kept_until_it_is_used(void)
{
    struct token_bucket bucket = bucket_at(1000, 10, 0);
    token_bucket_refill(&bucket, 2 * SECOND_NS, 25);
    CHECK_INT(bucket.tokens, 35);
    token_bucket_refill(&bucket, 3 * SECOND_NS, 0);
    CHECK_INT(bucket.tokens, 35);
    token_bucket_take(&bucket, 30);
    token_bucket_refill(&bucket, 4 * SECOND_NS, 0);
    CHECK_INT(bucket.tokens, 10);
}

static void
test_bucket_time_that_goes_back_changes_nothing(void)
{
    struct token_bucket bucket = bucket_at(100, 50, 0);
    token_bucket_refill(&bucket, SECOND_NS / 2, 0);
    token_bucket_refill(&bucket, SECOND_NS, 0);
    CHECK_INT(bucket.tokens, 0);
    token_bucket_refill(&bucket, SECOND_NS + SECOND_NS / 10, 0);
    CHECK_INT(bucket.tokens, 10);
}

// However it is looked at, a day brings exactly a day's worth.
static void
test_bucket_looked_at_often_does_not_drift(void)
{
    static const uint64_t rates[] = {1, 3, 7, 999, 1000, 65537, 12345678, 999999937};
    for (size_t i = 0; i < COUNT_OF(rates); i++) {
        struct token_bucket bucket = bucket_at(rates[i], TOKEN_BUCKET_MAX, 0);
        uint64_t now_ns = SECOND_NS;
        uint64_t end_ns = now_ns + 24 * 3600 * SECOND_NS;
        while (now_ns < end_ns) {
            now_ns += 1 + random_below(SECOND_NS);
            now_ns = now_ns < end_ns ? now_ns : end_ns;
            token_bucket_refill(&bucket, now_ns, 0);
        }
        CHECK_INT(bucket.tokens, (int64_t)(24 * 3600 * rates[i]));
    }
}

static void
test_bucket_debt_is_paid_before_anything_can_go(void)
{
    struct token_bucket bucket = bucket_at(100, 50, 50);
    token_bucket_take(&bucket, 250);
    CHECK_INT(bucket.tokens, -200);
    CHECK_UINT(token_bucket_delay_ns(&bucket, 1), 2 * SECOND_NS + SECOND_NS / 100);
    token_bucket_refill(&bucket, 3 * SECOND_NS, 0);
    CHECK_INT(bucket.tokens, 0);
}

static void
test_bucket_debt_has_a_bottom(void)
{
    struct token_bucket bucket = bucket_at(1, 1, 1);
    for (int i = 0; i < 3; i++) {
        token_bucket_take(&bucket, UINT64_MAX);
        CHECK_INT(bucket.tokens, -(int64_t)TOKEN_BUCKET_MAX);
    }
    CHECK_UINT(token_bucket_delay_ns(&bucket, 1), UINT64_MAX);
    token_bucket_refill(&bucket, UINT64_MAX, 0);
    CHECK(bucket.tokens < 0);
}

static void
test_bucket_give_stops_at_the_burst(void)
{
    struct token_bucket bucket = bucket_at(100, 50, -10);
    token_bucket_give(&bucket, 20);
    CHECK_INT(bucket.tokens, 10);
    token_bucket_give(&bucket, UINT64_MAX);
    CHECK_INT(bucket.tokens, 50);
    bucket.tokens = 60; // extra
    token_bucket_give(&bucket, 1);
    CHECK_INT(bucket.tokens, 60);
}

static void
test_bucket_changed_keeps_its_tokens_up_to_the_new_burst(void)
{
    struct token_bucket bucket = bucket_at(100, 50, 40);
    token_bucket_change(&bucket, 10, 200);
    CHECK_INT(bucket.tokens, 40);
    token_bucket_refill(&bucket, 2 * SECOND_NS, 0);
    CHECK_INT(bucket.tokens, 50);
    token_bucket_change(&bucket, 10, 20);
    CHECK_INT(bucket.tokens, 20);
}

// After the delay they are there, and a nanosecond earlier they are not.
static void
check_delay(struct token_bucket bucket, uint64_t wanted)
{
    uint64_t delay_ns = token_bucket_delay_ns(&bucket, wanted);
    uint64_t start_ns = bucket.refilled_ns;
    if (delay_ns == 0) {
        CHECK(bucket.tokens >= (int64_t)wanted);
        return;
    }
    if (delay_ns > UINT64_MAX - start_ns) {
        token_bucket_refill(&bucket, UINT64_MAX, TOKEN_BUCKET_MAX);
        CHECK(bucket.tokens < (int64_t)wanted);
        return;
    }
    struct token_bucket early = bucket;
    token_bucket_refill(&bucket, start_ns + delay_ns, TOKEN_BUCKET_MAX);
    CHECK(bucket.tokens >= (int64_t)wanted);
    // Rates beyond 16 GiB a second may be a few nanoseconds late.
    uint64_t slack_ns = bucket.rate < UINT64_C(1) << 34 ? 1 : 8;
    if (delay_ns >= slack_ns) {
        token_bucket_refill(&early, start_ns + delay_ns - slack_ns, TOKEN_BUCKET_MAX);
        CHECK(early.tokens < (int64_t)wanted);
    }
}

static void
test_bucket_delay_is_exact_at_every_magnitude(void)
{
    for (int i = 0; i < 200000; i++) {
        uint64_t rate = 1 + random_magnitude(60) % TOKEN_BUCKET_MAX;
        uint64_t burst = 1 + random_magnitude(60) % TOKEN_BUCKET_MAX;
        int64_t tokens = (int64_t)(random_magnitude(60) % (burst + 1));
        if (random_below(2) == 0) {
            tokens = -(int64_t)random_magnitude(60);
        }
        struct token_bucket bucket = bucket_at(rate, burst, tokens);
        bucket.part = tokens < (int64_t)burst ? random_below(SECOND_NS) : 0;
        check_delay(bucket, 1 + random_below(burst));
    }
}

#ifdef __SIZEOF_INT128__
__extension__ typedef __int128 wide;

static void
test_bucket_refill_like_the_model_in_128_bits(void)
{
    for (int i = 0; i < 200000; i++) {
        uint64_t rate = 1 + random_magnitude(60) % TOKEN_BUCKET_MAX;
        uint64_t burst = 1 + random_magnitude(60) % TOKEN_BUCKET_MAX;
        uint64_t extra = random_magnitude(64);
        struct token_bucket bucket =
            bucket_at(rate, burst, (int64_t)burst - (int64_t)random_magnitude(60));
        bucket.part = random_below(SECOND_NS);
        wide most =
            (wide)burst + (wide)(extra < TOKEN_BUCKET_MAX ? extra : TOKEN_BUCKET_MAX);
        wide billionths = (wide)bucket.tokens * SECOND_NS + bucket.part;
        uint64_t now_ns = SECOND_NS + random_magnitude(63);
        billionths += (wide)(now_ns - SECOND_NS) * rate;
        if (billionths / SECOND_NS >= most && (wide)bucket.tokens < most) {
            billionths = most * SECOND_NS;
        }
        bool was_full = (wide)bucket.tokens >= most || now_ns == SECOND_NS;
        int64_t before = bucket.tokens;
        token_bucket_refill(&bucket, now_ns, extra);
        if (was_full) {
            CHECK_INT(bucket.tokens, before);
            continue;
        }
        CHECK(((wide)bucket.tokens * SECOND_NS + bucket.part) == billionths);
    }
}
#endif

static void
test_bucket_extreme_rates_and_times(void)
{
    struct token_bucket fast = bucket_at(TOKEN_BUCKET_MAX, TOKEN_BUCKET_MAX, 0);
    token_bucket_refill(&fast, SECOND_NS + 1, 0);
    CHECK_INT(fast.tokens, (int64_t)(TOKEN_BUCKET_MAX / SECOND_NS));
    token_bucket_refill(&fast, UINT64_MAX, UINT64_MAX);
    CHECK_INT(fast.tokens, (int64_t)(2 * TOKEN_BUCKET_MAX));
    struct token_bucket slow = bucket_at(1, TOKEN_BUCKET_MAX, 0);
    token_bucket_refill(&slow, SECOND_NS + 500 * YEAR_NS, 0);
    CHECK_INT(slow.tokens, (int64_t)(500 * (YEAR_NS / SECOND_NS)));
    CHECK_UINT(token_bucket_delay_ns(&slow, TOKEN_BUCKET_MAX), UINT64_MAX);
}

int
main(void)
{
    RUN(test_bucket_begins_full_and_keeps_no_more_than_the_burst);
    RUN(test_bucket_full_again_has_nothing_on_its_way);
    RUN(test_bucket_extra_is_kept_until_it_is_used);
    RUN(test_bucket_time_that_goes_back_changes_nothing);
    RUN(test_bucket_looked_at_often_does_not_drift);
    RUN(test_bucket_debt_is_paid_before_anything_can_go);
    RUN(test_bucket_debt_has_a_bottom);
    RUN(test_bucket_give_stops_at_the_burst);
    RUN(test_bucket_changed_keeps_its_tokens_up_to_the_new_burst);
    RUN(test_bucket_delay_is_exact_at_every_magnitude);
#ifdef __SIZEOF_INT128__
    RUN(test_bucket_refill_like_the_model_in_128_bits);
#endif
    RUN(test_bucket_extreme_rates_and_times);
    return harness_finish("token_bucket");
}
