// A System V semaphore: nobody records who has it.
// EXPECT not_known
#include <errno.h>
#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/sem.h>

static int id;

static void take(void) {
    struct sembuf down = {0, -1, 0};
    while (semop(id, &down, 1) < 0 && errno == EINTR) {}
}

int main(void) {
    id = semget(IPC_PRIVATE, 1, 0600);
    take();
    semctl(id, 0, IPC_RMID);
    return 0;
}
