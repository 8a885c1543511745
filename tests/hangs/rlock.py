# Two threads with two re-entrant locks in opposite order.
# EXPECT deadlock process=python
import threading

a, b = threading.RLock(), threading.RLock()
both = threading.Barrier(2)


def hold(one, other):
    with one:
        both.wait()
        with other:  # HANGS
            pass


threading.Thread(target=hold, args=(a, b)).start()
hold(b, a)
