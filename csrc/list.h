// list.h: intrusive doubly linked lists. The node is part of the object that is
// listed, so linking and unlinking never allocate and cost a few stores.
//
// A list is a `struct list_node` used as a head that points at itself when empty.
// A node that is on no list has `next == NULL`; list_is_linked() tells.
// Whoever walks a list while foreign code may change it takes the first node off
// before it calls out (list_take_first), and never keeps a saved `next`.

#ifndef CORONET_LIST_H
#define CORONET_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_node {
    struct list_node *next; // NULL while the node is on no list
    struct list_node *previous;
};

// The object of `type` whose member `member` is `*pointer`.
#define CONTAINER_OF(pointer, type, member)                                              \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline void
list_init(struct list_node *head)
{
    head->next = head->previous = head;
}

static inline bool
list_is_empty(const struct list_node *head)
{
    return head->next == head;
}

static inline bool
list_is_linked(const struct list_node *node)
{
    return node->next != NULL;
}

// Puts [node], which is on no list, in front of [position]; in front of the head is
// the end of the list.
static inline void
list_insert_before(struct list_node *position, struct list_node *node)
{
    node->next = position;
    node->previous = position->previous;
    position->previous->next = node;
    position->previous = node;
}

static inline void
list_append(struct list_node *head, struct list_node *node)
{
    list_insert_before(head, node);
}

static inline void
list_prepend(struct list_node *head, struct list_node *node)
{
    list_insert_before(head->next, node);
}

// Takes [node] off whatever list it is on; does nothing if it is on none.
static inline void
list_remove(struct list_node *node)
{
    if (node->next == NULL) {
        return;
    }
    node->next->previous = node->previous;
    node->previous->next = node->next;
    node->next = node->previous = NULL;
}

// Takes the first node off the list; NULL if the list is empty.
static inline struct list_node *
list_take_first(struct list_node *head)
{
    struct list_node *first = head->next;
    if (first == head) {
        return NULL;
    }
    list_remove(first);
    return first;
}

// Moves every node of [from] to the end of [to].
static inline void
list_move_all(struct list_node *from, struct list_node *to)
{
    if (list_is_empty(from)) {
        return;
    }
    from->next->previous = to->previous;
    to->previous->next = from->next;
    from->previous->next = to;
    to->previous = from->previous;
    list_init(from);
}

#endif
