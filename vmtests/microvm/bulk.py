# SPDX-License-Identifier: Apache-2.0
"""Sends MEBIBYTES to an echo server while receiving them back, and compares hashes.

Usage: bulk.py 4|6 NAME PORT MEBIBYTES
"""

import hashlib
import os
import socket
import sys
import threading

family = {"4": socket.AF_INET, "6": socket.AF_INET6}[sys.argv[1]]
count = int(sys.argv[4]) << 20
address = socket.getaddrinfo(sys.argv[2], int(sys.argv[3]), family, socket.SOCK_STREAM)[0][4]
stream = socket.create_connection(address[:2], timeout=300)
block = os.urandom(1 << 20)
sent = hashlib.sha256(b"\0")


def send() -> None:
    stream.sendall(b"\0")  # the first byte of no TLS hello
    for _ in range(count >> 20):
        sent.update(block)
        stream.sendall(block)
    stream.shutdown(socket.SHUT_WR)


sender = threading.Thread(target=send)
sender.start()
received = hashlib.sha256()
total = 0
while piece := stream.recv(1 << 18):
    received.update(piece)
    total += len(piece)
sender.join()
if total != count + 1 or received.digest() != sent.digest():
    sys.exit(f"{total} bytes came back, and not those that were sent")
print(f"{total} bytes intact")
