// A reader waits for a writer that sleeps with the lock.
// EXPECT culprit process=rwlock thread=2 function=reload
#include <pthread.h>
#include <unistd.h>

pthread_rwlock_t config = PTHREAD_RWLOCK_INITIALIZER;
pthread_barrier_t held;

static void *reload(void *arg) {
    pthread_rwlock_wrlock(&config);
    pthread_barrier_wait(&held);
    sleep(100000);  // HANGS
    pthread_rwlock_unlock(&config);
    return arg;
}

static void lookup(void) {
    pthread_rwlock_rdlock(&config);
    pthread_rwlock_unlock(&config);
}

int main(void) {
    pthread_t writer;
    pthread_barrier_init(&held, NULL, 2);
    pthread_create(&writer, NULL, reload, NULL);
    pthread_barrier_wait(&held);
    lookup();
    return 0;
}
