// Three are to meet at a barrier; one does not come.
// EXPECT culprit process=barrier_missing thread=3 function=think
#include <pthread.h>
#include <unistd.h>

pthread_barrier_t meeting;

static void think(void) {
    sleep(100000); // HANGS
}

static void *prompt(void *arg) {
    pthread_barrier_wait(&meeting);
    return arg;
}

static void *late(void *arg) {
    think();
    pthread_barrier_wait(&meeting);
    return arg;
}

int main(void) {
    pthread_t a, b;
    pthread_barrier_init(&meeting, NULL, 3);
    pthread_create(&a, NULL, prompt, NULL);
    pthread_create(&b, NULL, late, NULL);
    pthread_barrier_wait(&meeting);
    return 0;
}
