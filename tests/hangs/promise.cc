// A future whose promise nobody keeps.
// EXPECT deadlock process=promise thread=1 function=answer
#include <future>

int answer(std::promise<int> &promise) {
    return promise.get_future().get(); // HANGS
}

int main() {
    std::promise<int> promise;
    return answer(promise);
}
