// A thread locks stdout and sleeps; the others cannot print.
// EXPECT culprit process=stdio_lock thread=2 function=report
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

pthread_barrier_t held;

static void *report(void *arg) {
    flockfile(stdout);
    pthread_barrier_wait(&held);
    sleep(100000); // HANGS
    funlockfile(stdout);
    return arg;
}

int main(void) {
    pthread_t thread;
    pthread_barrier_init(&held, NULL, 2);
    pthread_create(&thread, NULL, report, NULL);
    pthread_barrier_wait(&held);
    puts("hello");
    return 0;
}
