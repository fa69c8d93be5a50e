// fair_queue.c: who goes on, and who waits; see fair_queue.h.
//
// Invariants: waiting_count is the length of the line, and only members stand in it. Turns of
// a round that is over count no more than a turn of this one, so nobody saves them up.

#include "fair_queue.h"

#include <assert.h>

#define NS_PER_SECOND UINT64_C(1000000000)

void
fair_queue_init(struct fair_queue *queue, uint64_t rate, uint64_t burst,
                uint64_t min_share, uint64_t now_ns)
{
    *queue = (struct fair_queue){.min_share = min_share, .round = 1};
    list_init(&queue->waiting);
    token_bucket_init(&queue->bucket, rate, burst, now_ns);
}

void
fair_queue_join(struct fair_queue *queue, struct fair_member *member)
{
    *member = (struct fair_member){.turn = 0};
    queue->member_count++;
}

static void
leave_line(struct fair_queue *queue, struct fair_member *member)
{
    if (list_is_linked(&member->link)) {
        list_remove(&member->link);
        queue->waiting_count--;
    }
}

// [count] bytes of its turn are used, or given up.
static void
shorten_turn(struct fair_queue *queue, struct fair_member *member, uint64_t count)
{
    uint64_t used = count < member->turn ? count : member->turn;
    member->turn -= used;
    if (member->round == queue->round) {
        queue->promised -= used;
    }
}

static void
give_turn(struct fair_queue *queue, struct fair_member *member, uint64_t share)
{
    member->turn = share;
    member->round = queue->round;
    queue->promised += share;
}

void
fair_queue_leave(struct fair_queue *queue, struct fair_member *member)
{
    assert(queue->member_count > 0);
    leave_line(queue, member);
    shorten_turn(queue, member, member->turn);
    queue->member_count--;
}

// What comes in a slice of time.
static uint64_t
slice(const struct fair_queue *queue)
{
    return queue->bucket.rate / (NS_PER_SECOND / FAIR_QUEUE_SLICE_NS);
}

// The tokens that a round needs.
static uint64_t
round_size(const struct fair_queue *queue)
{
    uint64_t size = slice(queue);
    if (size < queue->min_share) {
        size = queue->min_share;
    }
    return size < queue->bucket.burst ? size : queue->bucket.burst;
}

static void
refill(struct fair_queue *queue, uint64_t now_ns)
{
    token_bucket_refill(&queue->bucket, now_ns,
                        queue->waiting_count > 0 ? slice(queue) + 1 : 0);
}

int64_t
fair_queue_tokens(struct fair_queue *queue, uint64_t now_ns)
{
    refill(queue, now_ns);
    return queue->bucket.tokens;
}

// The tokens that are kept for those who have turns.
static uint64_t
kept_tokens(const struct fair_queue *queue, uint64_t now_ns)
{
    return now_ns < queue->kept_until_ns ? queue->promised : 0;
}

// The size of a turn when [tokens] are shared by [count] members.
static uint64_t
share_of(const struct fair_queue *queue, uint64_t tokens, size_t count)
{
    uint64_t share = tokens / count;
    if (share < queue->min_share) {
        share = queue->min_share;
    }
    return share < tokens ? share : tokens;
}

// Of [tokens] what [member], who has no turn, may have at once; 0: it has to wait for a turn.
static uint64_t
take_early_turn(struct fair_queue *queue, struct fair_member *member, uint64_t tokens,
                uint64_t wanted, uint64_t now_ns)
{
    uint64_t kept = kept_tokens(queue, now_ns);
    uint64_t unkept = tokens > kept ? tokens - kept : 0;
    // Not for every token that comes: with few of them it waits for a round.
    if (unkept == 0 || (unkept < wanted && unkept < round_size(queue))) {
        return 0;
    }
    if (queue->member_count == 1) {
        return unkept;
    }
    if (queue->early_share == 0 && queue->waiting_count == 0) {
        queue->early_share = share_of(queue, unkept, queue->member_count);
        queue->kept_until_ns = now_ns + FAIR_QUEUE_SLICE_NS;
        queue->gather_ends_ns = now_ns + FAIR_QUEUE_GATHER_NS;
    }
    if (queue->early_share == 0 || member->round == queue->round) {
        return 0;
    }
    give_turn(queue, member, queue->early_share);
    return member->turn;
}

// What is left of the turn that [member] has.
static uint64_t
turn_of(const struct fair_queue *queue, struct fair_member *member)
{
    if (member->round != queue->round && member->turn > queue->share) {
        member->turn = queue->share;
    }
    return member->turn;
}

uint64_t
fair_queue_ask(struct fair_queue *queue, struct fair_member *member, uint64_t wanted,
               uint64_t now_ns)
{
    assert(wanted >= 1);
    if (list_is_linked(&member->link)) {
        return 0;
    }
    refill(queue, now_ns);
    if (queue->bucket.tokens > 0) {
        uint64_t tokens = (uint64_t)queue->bucket.tokens;
        uint64_t allowed = member->turn > 0
                               ? turn_of(queue, member)
                               : take_early_turn(queue, member, tokens, wanted, now_ns);
        allowed = allowed < tokens ? allowed : tokens;
        if (allowed > 0) {
            return allowed < wanted ? allowed : wanted;
        }
    }
    list_append(&queue->waiting, &member->link);
    queue->waiting_count++;
    return 0;
}

void
fair_queue_note_moved(struct fair_queue *queue, struct fair_member *member,
                      uint64_t count)
{
    token_bucket_take(&queue->bucket, count);
    shorten_turn(queue, member, count);
}

// Nanoseconds until there are the tokens for a round, besides those that are kept.
static uint64_t
tokens_delay_ns(const struct fair_queue *queue, uint64_t now_ns)
{
    const struct token_bucket *bucket = &queue->bucket;
    uint64_t needed = round_size(queue);
    uint64_t delay_ns = token_bucket_delay_ns(bucket, needed);
    uint64_t kept = kept_tokens(queue, now_ns);
    if (kept == 0) {
        return delay_ns;
    }
    uint64_t left_ns = queue->kept_until_ns - now_ns;
    uint64_t unkept_ns = delay_ns > left_ns ? delay_ns : left_ns;
    if (kept > bucket->burst - needed) {
        return unkept_ns; // the bucket does not hold as much
    }
    delay_ns = token_bucket_delay_ns(bucket, needed + kept);
    return delay_ns < unkept_ns ? delay_ns : unkept_ns;
}

uint64_t
fair_queue_delay_ns(struct fair_queue *queue, uint64_t now_ns)
{
    if (queue->waiting_count == 0) {
        return UINT64_MAX;
    }
    refill(queue, now_ns);
    uint64_t gather_ns =
        now_ns < queue->gather_ends_ns ? queue->gather_ends_ns - now_ns : 0;
    uint64_t delay_ns = tokens_delay_ns(queue, now_ns);
    return delay_ns > gather_ns ? delay_ns : gather_ns;
}

void
fair_queue_begin_round(struct fair_queue *queue, uint64_t now_ns)
{
    queue->turns_to_give = 0;
    if (fair_queue_delay_ns(queue, now_ns) > 0) {
        return;
    }
    uint64_t tokens = (uint64_t)queue->bucket.tokens - kept_tokens(queue, now_ns);
    queue->round++;
    queue->early_share = 0;
    queue->promised = 0;
    queue->kept_until_ns = now_ns + FAIR_QUEUE_SLICE_NS;
    queue->share = share_of(queue, tokens, queue->waiting_count);
    uint64_t turns = tokens / queue->share;
    queue->turns_to_give =
        turns < queue->waiting_count ? (size_t)turns : queue->waiting_count;
}

struct fair_member *
fair_queue_take_waiting(struct fair_queue *queue)
{
    struct list_node *first = list_take_first(&queue->waiting);
    if (first == NULL) {
        return NULL;
    }
    queue->waiting_count--;
    return CONTAINER_OF(first, struct fair_member, link);
}

struct fair_member *
fair_queue_take_turn(struct fair_queue *queue)
{
    struct fair_member *member =
        queue->turns_to_give > 0 ? fair_queue_take_waiting(queue) : NULL;
    if (member == NULL) {
        queue->turns_to_give = 0;
        return NULL;
    }
    queue->turns_to_give--;
    if (queue->member_count > 1) {
        give_turn(queue, member, queue->share);
    }
    return member;
}
