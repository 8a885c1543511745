# A thread keeps a re-entrant lock while it computes.
# EXPECT culprit process=python thread=2 function=compute
import threading

cache = threading.RLock()
held = threading.Event()


def compute():
    n = 0
    while True:
        n += 1


def refresh():
    with cache:
        held.set()
        compute()


threading.Thread(target=refresh).start()
held.wait()
with cache:
    pass
