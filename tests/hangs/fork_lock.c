// A process forks while another of its threads holds a lock; the child wants it.
// EXPECT culprit process=fork_lock thread=1 function=write_log
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_barrier_t held;

static void *writer(void *arg) {
    pthread_mutex_lock(&log_lock);
    pthread_barrier_wait(&held);
    pause();
    return arg;
}

static void write_log(void) {
    pthread_mutex_lock(&log_lock);  // HANGS
    pthread_mutex_unlock(&log_lock);
}

int main(void) {
    pthread_t thread;
    pthread_barrier_init(&held, NULL, 2);
    pthread_create(&thread, NULL, writer, NULL);
    pthread_barrier_wait(&held);
    pid_t child = fork();
    if (child == 0) {
        write_log();
        _exit(0);
    }
    waitpid(child, NULL, 0);
    return 0;
}
