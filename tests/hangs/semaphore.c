// A semaphore that nobody posts.
// EXPECT deadlock process=semaphore thread=1 function=take
#include <semaphore.h>

sem_t permits;

static void take(void) {
    sem_wait(&permits); // HANGS
}

int main(void) {
    sem_init(&permits, 0, 1);
    take();
    take();
    return 0;
}
