// A robust, priority-inheriting mutex, held by a thread that computes.
// EXPECT culprit process=robust thread=2 function=crunch
#include <pthread.h>

pthread_mutex_t queue;
pthread_barrier_t held;
volatile long work;

static void crunch(void) {
    for (;;)
        work++;  // HANGS
}

static void *worker(void *arg) {
    pthread_mutex_lock(&queue);
    pthread_barrier_wait(&held);
    crunch();
    return arg;
}

int main(void) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&queue, &attributes);
    pthread_barrier_init(&held, NULL, 2);
    pthread_t thread;
    pthread_create(&thread, NULL, worker, NULL);
    pthread_barrier_wait(&held);
    pthread_mutex_lock(&queue);
    return 0;
}
