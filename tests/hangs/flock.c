// The holder of a lock file sleeps; the other waits for it.
// EXPECT culprit process=flock thread=1 function=main
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

static void locked(int fd) {
    flock(fd, LOCK_EX);
}

int main(void) {
    char name[] = "/tmp/hangs-flock-XXXXXX";
    int fd = mkstemp(name);
    int ready[2];
    pipe(ready);
    if (fork() == 0) {
        int own = open(name, O_RDWR);
        locked(own);
        write(ready[1], "x", 1);
        sleep(100000);  // HANGS
    }
    char x;
    read(ready[0], &x, 1);
    unlink(name);
    locked(fd);
    return 0;
}
