"""One end of traffic between two places: a datagram and a few bytes of TCP every 20 ms, each way.

    flow.py listen PORT | flow.py connect ADDRESS PORT

Answers each line of its input with a line of JSON about what came since the one before: the longest
time without a datagram, the same without bytes of the connection (both in ms), and how many bytes came. Ends
with 1 and says why when the connection ends.
"""

import json
import os
import socket
import sys
import threading
import time

EVERY_S = 0.02
PIECE = b"still here, and the rest of sixty-four bytes is only here as well"[:64]


class Gap:
    """The longest time in which nothing came."""

    def __init__(self):
        self.last = time.monotonic()
        self.longest = 0.0

    def came(self) -> None:
        now = time.monotonic()
        self.longest, self.last = max(self.longest, now - self.last), now

    def take(self) -> int:
        """How long it was, in ms, one that lasts still included; begins anew."""
        longest = max(self.longest, time.monotonic() - self.last)
        self.longest, self.last = 0.0, time.monotonic()
        return round(longest * 1000)


def main() -> None:
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    if sys.argv[1] == "listen":
        port = int(sys.argv[2])
        datagrams.bind(("::", port))
        listener = socket.create_server(("::", port), family=socket.AF_INET6)
        print("ready", flush=True)
        stream, peer = listener.accept()
        peer = (peer[0], port + 1)
    else:
        peer = (sys.argv[2], int(sys.argv[3]))
        datagrams.bind(("::", peer[1] + 1))
        stream = socket.create_connection(peer, timeout=30)
        stream.settimeout(None)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print("flowing", flush=True)
    gaps, came = (Gap(), Gap()), [0]

    def end(why: str) -> None:
        print(json.dumps({"ended": why}), flush=True)
        os._exit(1)

    def send_datagrams() -> None:
        while True:
            try:
                datagrams.sendto(PIECE, peer)
            except OSError:
                pass  # no way now
            time.sleep(EVERY_S)

    def send_bytes() -> None:
        while True:
            try:
                stream.sendall(PIECE)
            except OSError as fault:
                end(str(fault))
            time.sleep(EVERY_S)

    def take_datagrams() -> None:
        while True:
            try:
                datagrams.recv(2048)
                gaps[0].came()
            except OSError:
                pass  # an ICMP error

    def take_bytes() -> None:
        while True:
            try:
                piece = stream.recv(65536)
            except OSError as fault:
                end(str(fault))
            if not piece:
                end("closed by the other end")
            came[0] += len(piece)
            gaps[1].came()

    for work in (send_datagrams, send_bytes, take_datagrams, take_bytes):
        threading.Thread(target=work, daemon=True).start()
    for _ in sys.stdin:
        bytes_came, came[0] = came[0], 0
        print(json.dumps({"datagrams_ms": gaps[0].take(), "stream_ms": gaps[1].take(), "bytes": bytes_came}), flush=True)


main()
