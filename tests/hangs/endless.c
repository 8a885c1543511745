// A list whose end points to its beginning.
// EXPECT culprit process=endless thread=1 function=sum
struct node { struct node *next; volatile int value; };

static int sum(struct node *list) {
    int total = 0;
    for (; list; list = list->next)
        total += list->value;
    return total;
}

int main(void) {
    struct node b = {0, 2}, a = {&b, 1};
    b.next = &a;
    return sum(&a);
}
