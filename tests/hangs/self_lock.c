// A function that locks calls one that locks, too.
// EXPECT deadlock process=self_lock thread=1 function=count
#include <pthread.h>

pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;

static int count(void) {
    pthread_mutex_lock(&table);  // HANGS
    int n = 1;
    pthread_mutex_unlock(&table);
    return n;
}

static int insert(void) {
    pthread_mutex_lock(&table);
    int n = count();
    pthread_mutex_unlock(&table);
    return n;
}

int main(void) { return insert(); }
