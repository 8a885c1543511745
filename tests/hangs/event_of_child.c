// A process waits for an event that its child sends much later.
// EXPECT culprit process=event_of_child
#include <sys/eventfd.h>
#include <poll.h>
#include <unistd.h>

int main(void) {
    int event = eventfd(0, 0);
    if (fork() == 0) {
        sleep(100000);  // HANGS
        eventfd_write(event, 1);
        _exit(0);
    }
    struct pollfd awaited = {.fd = event, .events = POLLIN};
    poll(&awaited, 1, -1);
    return 0;
}
