// A signal handler locks what the interrupted code holds.
// EXPECT deadlock process=signal_handler thread=1 function=on_signal
#include <pthread.h>
#include <signal.h>

pthread_mutex_t state = PTHREAD_MUTEX_INITIALIZER;

static void on_signal(int number) {
    pthread_mutex_lock(&state);  // HANGS
    pthread_mutex_unlock(&state);
}

int main(void) {
    signal(SIGUSR1, on_signal);
    pthread_mutex_lock(&state);
    raise(SIGUSR1);
    pthread_mutex_unlock(&state);
    return 0;
}
