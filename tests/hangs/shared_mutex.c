// Two processes share a mutex in memory; one computes with it.
// EXPECT culprit process=shared_mutex thread=1 function=crunch
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

volatile long work;

static void crunch(void) {
    for (;;)
        work++; // HANGS
}

int main(void) {
    pthread_mutex_t *lock =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(lock, &attributes);
    int held[2];
    pipe(held);
    if (fork() == 0) {
        pthread_mutex_lock(lock);
        write(held[1], "x", 1);
        crunch();
    }
    char x;
    read(held[0], &x, 1);
    pthread_mutex_lock(lock);
    return 0;
}
