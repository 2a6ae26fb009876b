#!/usr/bin/env python3
"""A stock OpenPGM sender or receiver: ZeroMQ's epgm, from Debian's libzmq, by ctypes.

    epgm.py has
    epgm.py receive 'epgm://10.77.0.11;239.192.7.30:7500' --tag stock --count 1000
    epgm.py send    'epgm://10.77.0.12;239.192.7.30:7500' --tag stock --count 1000 --size 1000

A receiver prints {"event": "ready"} and, with its last message or when none came for a while, its counts.
"""

import argparse
import ctypes
import json
import struct
import sys
import time

PUB, SUB = 1, 2
SUBSCRIBE, RATE, RECOVERY_IVL, SNDBUF, RCVBUF, LINGER = 6, 8, 9, 11, 12, 17
SNDHWM, RCVHWM, MULTICAST_HOPS, RCVTIMEO, XPUB_NODROP = 23, 24, 25, 27, 69


def load():
    zmq = ctypes.CDLL("libzmq.so.5", use_errno=True)
    zmq.zmq_ctx_new.restype = zmq.zmq_socket.restype = ctypes.c_void_p
    zmq.zmq_strerror.restype = ctypes.c_char_p
    zmq.zmq_has.argtypes = [ctypes.c_char_p]
    zmq.zmq_socket.argtypes = [ctypes.c_void_p, ctypes.c_int]
    zmq.zmq_setsockopt.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    zmq.zmq_connect.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    zmq.zmq_send.argtypes = zmq.zmq_recv.argtypes = [
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    zmq.zmq_close.argtypes = zmq.zmq_ctx_term.argtypes = [ctypes.c_void_p]
    return zmq


class Socket:
    """A PUB or SUB socket of its own context. Belongs to the thread that made it."""

    def __init__(self, kind, endpoint, rate_kbit=80_000):
        self.zmq = load()
        self.context = self.zmq.zmq_ctx_new()
        self.socket = self.zmq.zmq_socket(self.context, kind)
        self.set(LINGER, 0)
        self.set(RATE, rate_kbit)
        self.set(RECOVERY_IVL, 1000)
        self.set(MULTICAST_HOPS, 1)
        self.set(RCVBUF, 4 << 20)
        self.set(SNDBUF, 1 << 20)
        if kind == PUB:
            # Waiting where the rate is reached, not dropping.
            self.set(XPUB_NODROP, 1)
        else:
            self.set(RCVHWM, 0)
            self.set(RCVTIMEO, 100)
            self.check(self.zmq.zmq_setsockopt(self.socket, SUBSCRIBE, b"", 0))
        self.check(self.zmq.zmq_connect(self.socket, endpoint.encode()))

    def check(self, result):
        if result < 0:
            raise OSError(ctypes.get_errno(), self.zmq.zmq_strerror(ctypes.get_errno()).decode())
        return result

    def set(self, option, value):
        number = ctypes.c_int(value)
        self.check(self.zmq.zmq_setsockopt(self.socket, option, ctypes.byref(number), 4))

    def send(self, data):
        self.check(self.zmq.zmq_send(self.socket, data, len(data), 0))

    def receive(self):
        """The next message (up to 64 KiB of it), or None when there is none within 100 ms."""
        buffer = ctypes.create_string_buffer(65536)
        length = self.zmq.zmq_recv(self.socket, buffer, len(buffer), 0)
        return None if length < 0 else buffer.raw[: min(length, len(buffer))]

    def close(self):
        self.zmq.zmq_close(self.socket)
        self.zmq.zmq_ctx_term(self.context)


def publish(endpoint, tag, count, size, settle=1.0, stay=2.0):
    """Sends `count` numbered messages; stays for repairs."""
    socket = Socket(PUB, endpoint)
    time.sleep(settle)
    head = tag.encode().ljust(8)[:8]
    filler = b"." * max(0, size - 16)
    for number in range(count):
        socket.send(head + struct.pack(">Q", number) + filler)
    time.sleep(stay)
    socket.close()
    return {"event": "sent", "tag": tag, "sent": count}


def collect(endpoint, tag, count, quiet=5.0, limit=40.0, ready=lambda: None):
    """Receives until `count` messages of `tag` are there, or none came for `quiet` seconds."""
    socket = Socket(SUB, endpoint)
    ready()
    head = tag.encode().ljust(8)[:8]
    seen, duplicates, disordered, foreign, last = set(), 0, 0, 0, -1
    begun = time.monotonic()
    heard = None
    while len(seen) < count and time.monotonic() - begun < limit:
        message = socket.receive()
        if message is None:
            if heard is not None and time.monotonic() - heard > quiet:
                break
            continue
        if message[:8] != head or len(message) < 16:
            foreign += 1
            continue
        heard = time.monotonic()
        number = struct.unpack(">Q", message[8:16])[0]
        duplicates += number in seen
        disordered += number < last
        seen.add(number)
        last = number
    socket.close()
    return {
        "event": "received", "tag": tag, "received": len(seen), "missing": count - len(seen),
        "duplicates": duplicates, "disordered": disordered, "foreign": foreign}


def show(line):
    print(json.dumps(line), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["has", "send", "receive"])
    parser.add_argument("endpoint", nargs="?")
    parser.add_argument("--tag", default="stock")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--size", type=int, default=1000)
    arguments = parser.parse_args()
    if arguments.what == "has":
        try:
            return 0 if load().zmq_has(b"pgm") == 1 else "libzmq.so.5 was built without pgm"
        except OSError as error:
            return str(error)
    if arguments.what == "send":
        show(publish(arguments.endpoint, arguments.tag, arguments.count, arguments.size))
    else:
        show(collect(
            arguments.endpoint, arguments.tag, arguments.count, ready=lambda: show({"event": "ready"})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
