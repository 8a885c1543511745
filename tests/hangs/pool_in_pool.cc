// An async task waits for one that waits for it.
// EXPECT deadlock process=pool_in_pool
#include <future>

std::promise<int> one, other;

int wait_for(std::promise<int> &theirs, std::promise<int> &ours) {
    int value = theirs.get_future().get(); // HANGS
    ours.set_value(value);
    return value;
}

int main() {
    auto a = std::async(std::launch::async, wait_for, std::ref(one), std::ref(other));
    auto b = std::async(std::launch::async, wait_for, std::ref(other), std::ref(one));
    return a.get() + b.get();
}
