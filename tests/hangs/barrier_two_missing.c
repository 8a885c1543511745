// Four are to meet at a barrier; two of them compute something without end.
// EXPECT several process=barrier_two_missing thread=3,4 function=search
#include <pthread.h>

pthread_barrier_t meeting;
volatile unsigned long tried;

static void search(void) {
    for (;;)
        tried++; // HANGS
}

static void *prompt(void *arg) {
    pthread_barrier_wait(&meeting);
    return arg;
}

static void *late(void *arg) {
    search();
    return arg;
}

int main(void) {
    pthread_t threads[3];
    pthread_barrier_init(&meeting, NULL, 4);
    pthread_create(&threads[0], NULL, prompt, NULL);
    pthread_create(&threads[1], NULL, late, NULL);
    pthread_create(&threads[2], NULL, late, NULL);
    pthread_barrier_wait(&meeting);
    return 0;
}
