// Two C++ threads with two mutexes in opposite order.
// EXPECT deadlock process=mutex_order thread=2,3 function=transfer
#include <latch>
#include <mutex>
#include <thread>

std::mutex left, right;
std::latch both{2};

void transfer(std::mutex &from, std::mutex &to) {
    std::lock_guard<std::mutex> one(from);
    both.arrive_and_wait();
    std::lock_guard<std::mutex> other(to); // HANGS
}

int main() {
    std::thread a([] { transfer(left, right); });
    std::thread b([] { transfer(right, left); });
    a.join();
    b.join();
}
