// The main thread waits for a thread that waits for input which never comes.
// EXPECT culprit process=join_stuck thread=1 function=main
#include <pthread.h>
#include <unistd.h>
#include <sys/wait.h>

int ends[2];

static void *reader(void *arg) {
    char line[80];
    read(ends[0], line, sizeof line);
    return arg;
}

int main(void) {
    pthread_t thread;
    pipe(ends);
    if (fork() == 0) {
        for (;;)
            sleep(3600); // HANGS
    }
    close(ends[1]);
    pthread_create(&thread, NULL, reader, NULL);
    pthread_join(thread, NULL);
    return 0;
}
