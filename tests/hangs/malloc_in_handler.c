// A signal handler takes the lock of a library whose function it interrupted.
// A semaphore has no owner, and a handler may give one: from outside that is all there is to know.
// EXPECT not_known
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <unistd.h>

sem_t arena;

static void on_alarm(int number) {
    sem_wait(&arena); // HANGS
    sem_post(&arena);
}

int main(void) {
    sem_init(&arena, 0, 1);
    signal(SIGALRM, on_alarm);
    sem_wait(&arena);
    alarm(1);
    pause();
    sem_post(&arena);
    return 0;
}
