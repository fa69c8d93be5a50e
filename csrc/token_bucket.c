// token_bucket.c: the arithmetic of token_bucket.h, in 64 bits.
//
// Tokens are counted as whole ones and billionths of one, for a rate of one a second is a
// billionth in a nanosecond. Products that could pass 64 bits are taken apart.

#include "token_bucket.h"

#include <assert.h>

#define NS_PER_SECOND UINT64_C(1000000000)

// Rates from here on are divided with less precision, which is still below a nanosecond.
#define PRECISE_RATE (UINT64_C(1) << 34)

void
token_bucket_init(struct token_bucket *bucket, uint64_t rate, uint64_t burst,
                  uint64_t now_ns)
{
    assert(rate >= 1 && rate <= TOKEN_BUCKET_MAX);
    assert(burst >= 1 && burst <= TOKEN_BUCKET_MAX);
    *bucket = (struct token_bucket){
        .rate = rate, .burst = burst, .tokens = (int64_t)burst, .refilled_ns = now_ns};
}

// What comes in less than a second, with the part carried over: whole tokens; the rest
// replaces the part.
static uint64_t
tokens_within_second(struct token_bucket *bucket, uint64_t elapsed_ns)
{
    uint64_t billions = bucket->rate / NS_PER_SECOND;
    uint64_t parts = elapsed_ns * (bucket->rate % NS_PER_SECOND) + bucket->part;
    bucket->part = parts % NS_PER_SECOND;
    return elapsed_ns * billions + parts / NS_PER_SECOND;
}

void
token_bucket_refill(struct token_bucket *bucket, uint64_t now_ns, uint64_t extra)
{
    if (now_ns <= bucket->refilled_ns) {
        return;
    }
    uint64_t elapsed_ns = now_ns - bucket->refilled_ns;
    bucket->refilled_ns = now_ns;
    uint64_t most = bucket->burst + (extra < TOKEN_BUCKET_MAX ? extra : TOKEN_BUCKET_MAX);
    if (bucket->tokens >= (int64_t)most) {
        bucket->part = 0;
        return;
    }
    uint64_t room = (uint64_t)((int64_t)most - bucket->tokens);
    uint64_t seconds = elapsed_ns / NS_PER_SECOND;
    uint64_t added = room;
    if (seconds <= room / bucket->rate) {
        added = seconds * bucket->rate +
                tokens_within_second(bucket, elapsed_ns % NS_PER_SECOND);
    }
    if (added >= room) {
        added = room;
        bucket->part = 0; // it is full: nothing is on its way
    }
    bucket->tokens += (int64_t)added;
}

uint64_t
token_bucket_delay_ns(const struct token_bucket *bucket, uint64_t wanted)
{
    assert(wanted <= 2 * TOKEN_BUCKET_MAX);
    if (bucket->tokens >= (int64_t)wanted) {
        return 0;
    }
    uint64_t missing = (uint64_t)((int64_t)wanted - bucket->tokens);
    uint64_t seconds = missing / bucket->rate;
    uint64_t rest = missing % bucket->rate;
    uint64_t rate = bucket->rate;
    if (seconds > UINT64_MAX / NS_PER_SECOND - 1) {
        return UINT64_MAX;
    }
    if (rate >= PRECISE_RATE) {
        while (rate >= PRECISE_RATE) {
            rate >>= 1;
            rest = (rest + 1) >> 1;
        }
        return seconds * NS_PER_SECOND + (rest * NS_PER_SECOND + rate - 1) / rate;
    }
    uint64_t parts = rest * NS_PER_SECOND;
    uint64_t total_ns = seconds * NS_PER_SECOND + parts / rate;
    // The part that is there already saves less than one token's time.
    uint64_t left = parts % rate;
    if (bucket->part <= left) {
        left -= bucket->part;
        return total_ns + (left > 0);
    }
    return total_ns - (bucket->part - left) / rate;
}

void
token_bucket_take(struct token_bucket *bucket, uint64_t count)
{
    const int64_t least = -(int64_t)TOKEN_BUCKET_MAX;
    if (count > (uint64_t)(bucket->tokens - least)) {
        bucket->tokens = least;
        return;
    }
    bucket->tokens -= (int64_t)count;
}

void
token_bucket_give(struct token_bucket *bucket, uint64_t count)
{
    int64_t most = (int64_t)bucket->burst;
    if (bucket->tokens >= most) {
        return;
    }
    uint64_t room = (uint64_t)(most - bucket->tokens);
    bucket->tokens += (int64_t)(count < room ? count : room);
}

void
token_bucket_change(struct token_bucket *bucket, uint64_t rate, uint64_t burst)
{
    assert(rate >= 1 && rate <= TOKEN_BUCKET_MAX);
    assert(burst >= 1 && burst <= TOKEN_BUCKET_MAX);
    bucket->rate = rate;
    bucket->burst = burst;
    if (bucket->tokens > (int64_t)burst) {
        bucket->tokens = (int64_t)burst;
    }
}
