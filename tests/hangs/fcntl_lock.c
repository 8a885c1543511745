// As flock.c, with a lock of POSIX.
// EXPECT culprit process=fcntl_lock thread=1 function=main
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static void locked(int fd) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    fcntl(fd, F_SETLKW, &whole);
}

int main(void) {
    char name[] = "/tmp/hangs-fcntl-XXXXXX";
    int fd = mkstemp(name);
    int ready[2];
    pipe(ready);
    if (fork() == 0) {
        locked(fd);
        write(ready[1], "x", 1);
        for (;;)
            pause();  // HANGS
    }
    char x;
    read(ready[0], &x, 1);
    unlink(name);
    locked(fd);
    return 0;
}
