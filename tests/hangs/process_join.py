# A process is joined that waits for its queue to be read.
# EXPECT deadlock process=python
import multiprocessing


def produce(results):
    for _ in range(100):
        results.put("x" * 100000)


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    results = multiprocessing.Queue()
    child = multiprocessing.Process(target=produce, args=(results,))
    child.start()
    child.join()  # HANGS
    print(results.get())
