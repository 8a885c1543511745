// A parent waits in vfork until its child executes a program; the child sleeps before.
// EXPECT culprit process=vfork thread=1 function=main
#include <unistd.h>

int main(void) {
    pid_t child = vfork();
    if (child == 0) {
        sleep(100000); // HANGS
        _exit(0);
    }
    return 0;
}
