# Client and server both send before they read.
# EXPECT deadlock process=python
import os
import socket

listener = socket.create_server(("127.0.0.1", 0))


def send(connection):
    connection.sendall(b"x" * 50_000_000)  # HANGS


if os.fork() == 0:
    connection, _ = listener.accept()
    listener.close()
    send(connection)
    os._exit(0)

client = socket.create_connection(listener.getsockname())
listener.close()
send(client)
