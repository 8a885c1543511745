# A worker waits in a managed queue that nobody fills.
# EXPECT not_known
import multiprocessing


def worker(jobs):
    jobs.get()  # HANGS


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    with multiprocessing.Manager() as manager:
        jobs = manager.Queue()
        child = multiprocessing.Process(target=worker, args=(jobs,))
        child.start()
        child.join()
