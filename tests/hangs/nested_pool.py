# A job of a pool of one waits for another job of the same pool.
# EXPECT deadlock process=python
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(max_workers=1)


def inner():
    return 1


def outer():
    return pool.submit(inner).result()  # HANGS


print(pool.submit(outer).result())
