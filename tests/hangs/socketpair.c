// Two processes that each wait for the other to begin.
// EXPECT deadlock process=socketpair thread=1 function=greet
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void greet(int fd) {
    char word[8];
    read(fd, word, sizeof word);  // HANGS
    write(fd, "hello", 5);
}

int main(void) {
    int ends[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    if (fork() == 0) {
        close(ends[0]);
        greet(ends[1]);
        _exit(0);
    }
    close(ends[1]);
    greet(ends[0]);
    wait(NULL);
    return 0;
}
