# A queue is joined whose jobs nobody has marked as done.
# EXPECT deadlock process=python thread=1 function=main
import queue


def main():
    jobs = queue.Queue()
    jobs.put(1)
    jobs.get()
    jobs.join()  # HANGS


main()
