# A loader of data: the main process waits for a batch, and a worker hangs in reading an item.
# EXPECT culprit process=python thread=1 function=__getitem__
import multiprocessing
import time


class Images:
    def __getitem__(self, index):
        if index == 3:
            time.sleep(100000)  # HANGS
        return index


def serve(images, wanted, batches):
    while True:
        batches.send(images[wanted.recv()])


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    (ours, theirs), (take, give) = multiprocessing.Pipe(), multiprocessing.Pipe()
    worker = multiprocessing.Process(target=serve, args=(Images(), theirs, give), daemon=True)
    worker.start()
    theirs.close()
    give.close()
    for index in range(10):
        ours.send(index)
        take.recv()
