// Processes share a semaphore; who took it is not recorded.
// EXPECT not_known
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void take(sem_t *permits) {
    sem_wait(permits); // HANGS
}

int main(void) {
    sem_t *permits = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sem_init(permits, 1, 0);
    if (fork() == 0) {
        take(permits);
        _exit(0);
    }
    wait(NULL);
    return 0;
}
