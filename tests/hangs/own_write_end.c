// A reader that has kept the pipe's write end waits for the end of its own output.
// EXPECT deadlock process=own_write_end thread=1 function=read_all
#include <unistd.h>

static void read_all(int fd) {
    char block[512];
    while (read(fd, block, sizeof block) > 0) {}  // HANGS
}

int main(void) {
    int ends[2];
    pipe(ends);
    write(ends[1], "x", 1);
    read_all(ends[0]);
    return 0;
}
