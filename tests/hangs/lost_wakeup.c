// The signal comes before the wait, and nobody looks whether it has come.
// EXPECT deadlock process=lost_wakeup thread=1 function=consume
#include <pthread.h>

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t ready = PTHREAD_COND_INITIALIZER;

static void *produce(void *arg) {
    pthread_cond_signal(&ready);
    return arg;
}

static void consume(void) {
    pthread_mutex_lock(&lock);
    pthread_cond_wait(&ready, &lock);  // HANGS
    pthread_mutex_unlock(&lock);
}

int main(void) {
    pthread_t producer;
    pthread_create(&producer, NULL, produce, NULL);
    pthread_join(producer, NULL);
    consume();
    return 0;
}
