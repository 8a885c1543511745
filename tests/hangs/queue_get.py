# A queue that nobody fills any more.
# EXPECT deadlock process=python thread=1 function=consume
import queue
import threading

jobs = queue.Queue()


def consume():
    while True:
        jobs.get()  # HANGS


producer = threading.Thread(target=lambda: jobs.put(1))
producer.start()
producer.join()
consume()
