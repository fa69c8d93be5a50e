// token_bucket.h: how many bytes may pass now, at so many a second and so many at once.
//
// A token is the right to move one byte. They come at [rate] a second, and no more than
// [burst] are kept. Nothing runs while time passes: a bucket is refilled when it is looked
// at, from nanoseconds, and what is less than a token is carried over. So over a long run
// exactly [rate] tokens a second have come, however often or seldom it was looked at.
// It holds less than none after more was taken than it had.
//
// Not here: who may take them (fair_queue.h), reading a clock.

#ifndef CORONET_TOKEN_BUCKET_H
#define CORONET_TOKEN_BUCKET_H

#include <stdint.h>

// The most that a rate and a burst may be, so that no sum of them overflows.
#define TOKEN_BUCKET_MAX (UINT64_C(1) << 60)

struct token_bucket {
    uint64_t rate;        // tokens a second, 1 to TOKEN_BUCKET_MAX
    uint64_t burst;       // the most that are kept, 1 to TOKEN_BUCKET_MAX
    int64_t tokens;       // no less than -TOKEN_BUCKET_MAX
    uint64_t part;        // of the next token, in billionths
    uint64_t refilled_ns; // up to when tokens have come
};

// A full bucket at [now_ns].
void token_bucket_init(struct token_bucket *bucket, uint64_t rate, uint64_t burst,
                       uint64_t now_ns);

// Adds what has come until [now_ns] (a time before the last is taken as the last), as long
// as no more than the burst and [extra] are there. Takes nothing away.
void token_bucket_refill(struct token_bucket *bucket, uint64_t now_ns, uint64_t extra);

// Nanoseconds from the last refill until [wanted] tokens are there, if none is taken:
// rounded up, UINT64_MAX for longer than that says. It does not ask whether the bucket
// keeps as many.
uint64_t token_bucket_delay_ns(const struct token_bucket *bucket, uint64_t wanted);

// Takes tokens, also more than are there.
void token_bucket_take(struct token_bucket *bucket, uint64_t count);

// Puts tokens back, up to the burst.
void token_bucket_give(struct token_bucket *bucket, uint64_t count);

// From the last refill on other numbers hold. What is more than the burst goes.
void token_bucket_change(struct token_bucket *bucket, uint64_t rate, uint64_t burst);

#endif
