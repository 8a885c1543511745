// Workers wait for jobs, and the one that makes them waits for the workers.
// EXPECT deadlock process=queue
#include <condition_variable>
#include <mutex>
#include <queue>
#include <thread>
#include <vector>

std::mutex guard;
std::condition_variable filled;
std::queue<int> jobs;

void work() {
    std::unique_lock<std::mutex> lock(guard);
    filled.wait(lock, [] { return !jobs.empty(); }); // HANGS
}

int main() {
    std::vector<std::thread> workers;
    for (int n = 0; n < 3; n++)
        workers.emplace_back(work);
    for (auto &worker : workers)
        worker.join();
}
