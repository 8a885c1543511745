// A server with epoll serves one client for ever, and another waits for its answer.
// EXPECT culprit process=unix_server thread=1 function=answer
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void answer(int client) {
    sleep(100000); // HANGS
    write(client, "x", 1);
}

int main(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path + 1, 90, "hangs-unix-%d", getpid());
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(listener, (void *)&address, sizeof address);
    listen(listener, 8);
    if (fork() == 0) {
        int epoll = epoll_create1(0);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
        epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
        while (epoll_wait(epoll, &event, 1, -1) == 1)
            answer(accept(listener, NULL, NULL));
    }
    close(listener);
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    connect(client, (void *)&address, sizeof address);
    char x;
    read(client, &x, 1);
    return 0;
}
