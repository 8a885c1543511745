# A parent waits for its child, whose output it does not read.
# EXPECT deadlock process=python
import subprocess
import sys


def run(command):
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    child.wait()  # HANGS
    return child.stdout.read()


run([sys.executable, "-c", "print('x' * 1000000)"])
