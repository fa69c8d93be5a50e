// test_list.c: the intrusive list of list.h.

#include "harness.h"
#include "list.h"

struct item {
    int number;
    struct list_node link;
};

static void
prepare(struct list_node *head, struct item *items, int count)
{
    list_init(head);
    for (int i = 0; i < count; i++) {
        items[i].number = i;
        items[i].link.next = items[i].link.previous = NULL;
    }
}

// Whether the list holds exactly the items of these digits, seen from both ends.
static bool
holds(const struct list_node *head, const char *digits)
{
    const struct list_node *node = head->next;
    const char *digit = digits;
    for (; *digit != '\0'; digit++, node = node->next) {
        if (node == head || node->previous->next != node ||
            CONTAINER_OF(node, struct item, link)->number != *digit - '0') {
            return false;
        }
    }
    return node == head && node->previous->next == node;
}

static void
test_list_new_is_empty(void)
{
    struct list_node head;
    list_init(&head);
    CHECK(list_is_empty(&head));
    CHECK(list_is_linked(&head));
    CHECK_POINTER(list_take_first(&head), NULL);
}

static void
test_list_append_and_prepend_order(void)
{
    struct list_node head;
    struct item items[4];
    prepare(&head, items, 4);
    CHECK(!list_is_linked(&items[0].link));
    list_append(&head, &items[1].link);
    list_append(&head, &items[2].link);
    list_prepend(&head, &items[0].link);
    CHECK(list_is_linked(&items[0].link));
    CHECK(!list_is_empty(&head));
    CHECK(holds(&head, "012"));
    list_insert_before(&items[1].link, &items[3].link);
    CHECK(holds(&head, "0312"));
}

static void
test_list_remove_first_middle_last_and_twice(void)
{
    struct list_node head;
    struct item items[4];
    prepare(&head, items, 4);
    for (int i = 0; i < 4; i++) {
        list_append(&head, &items[i].link);
    }
    list_remove(&items[1].link);
    CHECK(!list_is_linked(&items[1].link));
    CHECK_POINTER(items[1].link.previous, NULL);
    CHECK(holds(&head, "023"));
    list_remove(&items[1].link);
    CHECK(holds(&head, "023"));
    list_remove(&items[0].link);
    list_remove(&items[3].link);
    CHECK(holds(&head, "2"));
    list_remove(&items[2].link);
    CHECK(list_is_empty(&head));
}

static void
test_list_take_first_unlinks_in_order(void)
{
    struct list_node head;
    struct item items[2];
    prepare(&head, items, 2);
    list_append(&head, &items[0].link);
    list_append(&head, &items[1].link);
    CHECK_POINTER(list_take_first(&head), &items[0].link);
    CHECK(!list_is_linked(&items[0].link));
    CHECK(holds(&head, "1"));
    CHECK_POINTER(list_take_first(&head), &items[1].link);
    CHECK_POINTER(list_take_first(&head), NULL);
    CHECK(list_is_empty(&head));
}

static void
test_list_move_all_appends_and_empties(void)
{
    struct list_node from, to;
    struct item items[4];
    prepare(&from, items, 4);
    list_init(&to);
    list_move_all(&from, &to);
    CHECK(list_is_empty(&from) && list_is_empty(&to));

    list_append(&from, &items[0].link);
    list_append(&from, &items[1].link);
    list_move_all(&from, &to);
    CHECK(list_is_empty(&from));
    CHECK(holds(&to, "01"));

    list_append(&from, &items[2].link);
    list_append(&from, &items[3].link);
    list_move_all(&from, &to);
    CHECK(list_is_empty(&from));
    CHECK(holds(&to, "0123"));
    list_move_all(&from, &to);
    CHECK(holds(&to, "0123"));
}

int
main(void)
{
    RUN(test_list_new_is_empty);
    RUN(test_list_append_and_prepend_order);
    RUN(test_list_remove_first_middle_last_and_twice);
    RUN(test_list_take_first_unlinks_in_order);
    RUN(test_list_move_all_appends_and_empties);
    return harness_finish("list");
}
