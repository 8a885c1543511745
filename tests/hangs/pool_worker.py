# A worker of a process pool hangs in its job.
# EXPECT culprit process=python function=job
import multiprocessing
import time


def job(number):
    if number == 2:
        time.sleep(100000)  # HANGS
    return number


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    with multiprocessing.Pool(2) as pool:
        print(pool.map(job, range(4), chunksize=1))
