# A process forks while another of its threads holds the lock of its log; the child logs.
# EXPECT deadlock process=python thread=1 function=child
import os
import threading

log_lock = threading.Lock()
held = threading.Event()


def writer():
    with log_lock:
        held.set()
        threading.Event().wait()


def child():
    with log_lock:  # HANGS
        pass


threading.Thread(target=writer, daemon=True).start()
held.wait()
pid = os.fork()
if pid == 0:
    child()
os.waitpid(pid, 0)
