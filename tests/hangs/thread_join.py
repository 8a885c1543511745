# The main thread joins a thread that sleeps in its job.
# EXPECT culprit process=python thread=2 function=fetch
import threading
import time


def fetch():
    time.sleep(100000)  # HANGS


worker = threading.Thread(target=fetch)
worker.start()
worker.join()
