# A client waits for the answer of a server that has accepted it and sleeps.
# EXPECT culprit process=python thread=1 function=serve
import os
import socket
import time

listener = socket.create_server(("127.0.0.1", 0))


def serve():
    connection, _ = listener.accept()
    connection.recv(100)
    time.sleep(100000)  # HANGS


if os.fork() == 0:
    serve()

client = socket.create_connection(listener.getsockname())
listener.close()
client.sendall(b"query")
client.recv(100)
