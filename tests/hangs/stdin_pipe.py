# A filter waits for the end of its input, whose writer forgot to close it.
# EXPECT culprit process=python thread=1 function=feed
import subprocess
import time


def feed():
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    child.stdin.write(b"x")
    time.sleep(100000)  # HANGS


feed()
