# Two threads take two locks in opposite order.
# EXPECT deadlock process=python thread=1,2,3
import threading

a, b = threading.Lock(), threading.Lock()
both = threading.Barrier(2)


def forth():
    with a:
        both.wait()
        with b:  # HANGS
            pass


def back():
    with b:
        both.wait()
        with a:
            pass


threads = [threading.Thread(target=forth), threading.Thread(target=back)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
