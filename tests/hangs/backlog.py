# A client waits for a server that never accepts.
# EXPECT culprit process=python thread=1 function=prepare
import os
import socket
import time

listener = socket.create_server(("127.0.0.1", 0))


def prepare():
    time.sleep(100000)  # HANGS


if os.fork() == 0:
    prepare()

client = socket.create_connection(listener.getsockname())
listener.close()
client.sendall(b"query")
client.recv(100)
