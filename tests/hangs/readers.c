// Readers of a pipe wait for a writer that waits for one of them to end.
// EXPECT deadlock process=readers
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    int ends[2];
    char x;
    pipe(ends);
    if (fork() == 0) {
        close(ends[1]);
        while (read(ends[0], &x, 1) > 0) {} // HANGS
        _exit(0);
    }
    write(ends[1], "x", 1);
    wait(NULL);
    return 0;
}
