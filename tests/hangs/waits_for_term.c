// A daemon that only waits to be told to end. It is well: only its handler gives the semaphore.
// EXPECT not_known
#include <semaphore.h>
#include <signal.h>

static sem_t end;

static void told(int number) {
    (void)number;
    sem_post(&end);
}

int main(void) {
    sem_init(&end, 0, 0);
    signal(SIGTERM, told);
    while (sem_wait(&end)) {
    }
    return 0;
}
