// Parent and child write to each other, and neither reads before it has written all.
// EXPECT deadlock process=full_pipe thread=1 function=send_all
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>

static char block[1 << 20];

static void send_all(int fd) {
    size_t done = 0;
    while (done < sizeof block)
        done += write(fd, block + done, sizeof block - done);  // HANGS
}

int main(void) {
    int down[2], up[2];
    pipe(down);
    pipe(up);
    if (fork() == 0) {
        close(down[1]);
        close(up[0]);
        send_all(up[1]);
        read(down[0], block, sizeof block);
        _exit(0);
    }
    close(down[0]);
    close(up[1]);
    send_all(down[1]);
    read(up[0], block, sizeof block);
    wait(NULL);
    return 0;
}
