// Two transfers in opposite directions lock two accounts in opposite order.
// EXPECT deadlock process=bank thread=2,3 function=move_money
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

pthread_mutex_t accounts[2] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
long balance[2] = {100, 100};
pthread_barrier_t both;

static void move_money(int from, int to) {
    pthread_mutex_lock(&accounts[from]);
    pthread_barrier_wait(&both);
    pthread_mutex_lock(&accounts[to]);  // HANGS
    balance[from] -= 1;
    balance[to] += 1;
    pthread_mutex_unlock(&accounts[to]);
    pthread_mutex_unlock(&accounts[from]);
}

static void *forth(void *arg) {
    move_money(0, 1);
    return arg;
}

static void *back(void *arg) {
    move_money(1, 0);
    return arg;
}

int main(void) {
    pthread_t a, b;
    pthread_barrier_init(&both, NULL, 2);
    pthread_create(&a, NULL, forth, NULL);
    pthread_create(&b, NULL, back, NULL);
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    puts("done");
    return 0;
}
