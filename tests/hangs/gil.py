# A C function sleeps with the interpreter's lock.
# EXPECT culprit process=python thread=2 function=call
import ctypes
import threading

libc = ctypes.PyDLL(None)


def call():
    libc.sleep(100000)  # HANGS


threading.Thread(target=call).start()
while True:
    pass
