#!/usr/bin/env python3
"""A storm of TCP connections at a node's listener, and a watch on the process that bears it.

    storm.py flood HOST:PORT --count 5000 --rate 2000 --hold 10 --seed 1
    storm.py watch --pid PID --port PORT

`flood` opens COUNT connections at RATE a second, each with one of six behaviours, and ends each when the
server does, or HOLD seconds after it was begun. It prints one line of JSON:

    {"attempted","connected","failed","closed_by_server","left","greeted","seconds","connect_seconds","rate",
     "begun_at","connects_ended_at","ended_at","by":{BEHAVIOUR:{"attempted","connected","refused","timed_out",
     "failed","closed","reset","left","finished","greeted","lives_p50_s","lives_max_s"}}}

Of the attempts `connected` stood; the others were `refused`, `timed_out` within HOLD, or `failed` in another
way. Of those that stood the server ended some (`closed`, `reset`), some were `left` hanging until HOLD was
over, and some ended themselves on purpose (`finished`: the RST). `greeted` are those to which the server sent
anything, which is its hello: the kernel completes connections by itself, so only these are known to have been
accepted by the process.

`watch` prints a line every 50 ms until the process is gone or the watch is told to end:

    {"at","cpu_s","descriptors","threads","rss_bytes","rss_max_bytes"[,"connections","waiting"]}

every fifth with how many connections stand at the port, and how many of them no process has accepted yet.
Standard library only.
"""

import argparse
import collections
import errno
import heapq
import json
import os
import random
import resource
import select
import signal
import socket
import struct
import sys
import time

BEHAVIOURS = ("silent", "drip", "huge", "garbage", "half-close", "rst")
# What the protocol takes of one packet, and what a caller of the storm says of itself.
LENGTH_MAX = 98304
HELLO, MESSAGE, CRITICAL = 0x01, 0x10, 0x80


def short(text):
    return bytes([len(text)]) + text


def packet(kind, flags, body):
    return struct.pack(">IBB", 2 + len(body), kind, flags) + body


def hello(cluster, name, incarnation, purpose, expected, heartbeat=2000):
    """docs/wire-links.md 2.1."""
    return packet(
        HELLO,
        CRITICAL,
        b"CAST\1\1"
        + struct.pack(">BI", purpose, 0)
        + short(cluster)
        + short(name)
        + struct.pack(">Q", incarnation)
        + short(expected)
        + struct.pack(">QIIQI", 0, heartbeat, LENGTH_MAX, 64 << 20, 0)
        + bytes(16),
    )


def call(topic, number, total, first=b""):
    """docs/wire-links.md 3.1: a call with five seconds left."""
    return packet(
        MESSAGE,
        0,
        struct.pack(">BBQ", 0, 0, number)
        + short(topic)
        + b"\0\0"
        + struct.pack(">QQQ", number, int(time.time() * 1e6), 5_000_000)
        + b"\0"
        + struct.pack(">Q", total)
        + first,
    )


class Client:
    """One connection. What it does is a list of steps, made when it is begun: ("wait", seconds),
    ("send", bytes), ("drip", bytes), ("shut",), ("rst",). Behind the last it waits for the end.
    """

    __slots__ = "behaviour socket steps begun connected greeted".split()

    def __init__(self, behaviour, steps, now):
        self.behaviour, self.steps, self.begun = behaviour, collections.deque(steps), now
        self.connected, self.greeted = None, False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Script:
    """Steps for each behaviour, out of one seed."""

    def __init__(self, arguments):
        self.random = random.Random(arguments.seed)
        self.cluster, self.expected = arguments.cluster.encode(), arguments.expected.encode()
        self.topic = arguments.topic.encode()
        self.prefix = b"storm-%d-" % arguments.seed
        self.number = 0

    def hello(self):
        self.number += 1
        return hello(
            self.cluster,
            self.prefix + b"%d" % self.number,
            self.random.getrandbits(64) | 1,
            self.random.randrange(3),
            self.random.choice((self.expected, b"")),
        )

    def pause(self, longest=0.25):
        # Short on purpose: who said a good hello is a peer like any other as far as the server can tell, and
        # only peers are to fill its places, not this storm's.
        return ("wait", self.random.random() * longest)

    def noise(self, most=4096):
        return self.random.randbytes(self.random.randrange(1, most))

    def length(self):
        """A length that is too large."""
        return struct.pack(">I", self.random.choice((LENGTH_MAX + 1, 1 << 31, 0xFFFFFFFF, 1 << 24)))

    def steps(self, behaviour):
        return getattr(self, behaviour.replace("-", "_"))()

    def silent(self):
        return []

    def drip(self):
        """A byte a second: of a hello, of a packet that claims all it may, rarely of a call after a hello."""
        choice = self.random.randrange(16)
        if choice == 0:
            return [("send", self.hello()), ("drip", call(self.topic, 1, 1 << 20, bytes(1000)))]
        if choice < 8:
            return [("drip", struct.pack(">IBB", LENGTH_MAX, HELLO, CRITICAL) + bytes(1000))]
        return [("drip", self.hello())]

    def huge(self):
        choice = self.random.randrange(4)
        claim = self.length() + self.noise(2048)
        if choice == 0:
            return [("send", claim)]
        if choice == 1:
            return [("send", self.length()), self.pause(), ("send", self.noise(2048))]
        if choice == 2:
            return [("send", self.hello()), self.pause(), ("send", claim)]
        # A call of nearly all that a message may have, of which nothing comes; then a broken rule.
        return [("send", self.hello() + call(self.topic, 1, 60 << 20)), self.pause(), ("send", claim)]

    def garbage(self):
        choice = self.random.randrange(4)
        if choice == 0:
            return [("send", self.noise())]
        if choice == 1:
            kind, flags = self.random.randbytes(2)
            return [("send", packet(kind, flags, self.noise()))]
        if choice == 2:
            return [("send", self.hello()), self.pause(), ("send", self.noise())]
        # A hello with some bytes changed may still be a good one, so that what follows ends it.
        changed = bytearray(self.hello())
        for _ in range(self.random.randrange(1, 5)):
            changed[self.random.randrange(len(changed))] = self.random.randrange(256)
        return [("send", bytes(changed)), self.pause(), ("send", self.length() + self.noise())]

    def half_close(self):
        choice, good = self.random.randrange(4), self.hello()
        sent = (b"", good[: self.random.randrange(1, len(good))], good, good + call(self.topic, 1, 0))[choice]
        return ([("send", sent)] if sent else []) + [self.pause(), ("shut",)]

    def rst(self):
        """Somewhere before, in or behind a hello, or in or behind a call that follows it."""
        good = self.hello()
        if self.random.randrange(2):
            good += call(self.topic, 1, 64, bytes(64))
        cut = self.random.randrange(len(good) + 1)
        return ([("send", good[:cut])] if cut else []) + [self.pause(), ("rst",)]


class Flood:
    def __init__(self, arguments):
        self.arguments = arguments
        host, port = arguments.target.rsplit(":", 1)
        self.address = (host, int(port))
        self.script = Script(arguments)
        self.random = random.Random(arguments.seed + 1_000_003)
        self.epoll = select.epoll()
        self.clients = {}
        self.timers = []
        self.serial = 0
        self.by = {name: collections.Counter() for name in arguments.only}
        self.lives = {name: [] for name in arguments.only}

    def after(self, seconds, client, what):
        self.serial += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self.serial, client, what))

    def begin(self):
        behaviour = self.random.choice(self.arguments.only)
        client = Client(behaviour, self.script.steps(behaviour), time.monotonic())
        self.by[behaviour]["attempted"] += 1
        error = client.socket.connect_ex(self.address)
        if error not in (0, errno.EINPROGRESS):
            return self.end(client, "refused" if error == errno.ECONNREFUSED else "failed")
        self.clients[client.socket.fileno()] = client
        self.epoll.register(client.socket, select.EPOLLIN | select.EPOLLOUT)
        self.after(self.arguments.hold, client, "over")

    def end(self, client, how):
        """Every client comes here once."""
        by = self.by[client.behaviour]
        by[how] += 1
        if client.connected is not None:
            by["connected"] += 1
            by["greeted"] += client.greeted
            if how in ("closed", "reset"):
                self.lives[client.behaviour].append(time.monotonic() - client.connected)
        self.clients.pop(client.socket.fileno(), None)
        client.socket.close()

    def broken(self, client, error):
        if client.connected is not None:
            how = "reset"
        elif error.errno == errno.ECONNREFUSED:
            how = "refused"
        elif error.errno == errno.ETIMEDOUT:
            how = "timed_out"
        else:
            how = "failed"
        self.end(client, how)

    def advance(self, client):
        """Takes steps until one has to wait."""
        try:
            while client.steps:
                step = client.steps.popleft()
                if step[0] == "wait":
                    return self.after(step[1], client, "step")
                if step[0] == "drip":
                    client.socket.send(step[1][:1])
                    if step[1][1:]:
                        client.steps.appendleft(("drip", step[1][1:]))
                    return self.after(1, client, "step")
                if step[0] == "send":
                    # A few kilobytes: the socket has room for them, and what a full one does not take is no
                    # matter in garbage.
                    client.socket.send(step[1])
                elif step[0] == "shut":
                    client.socket.shutdown(socket.SHUT_WR)
                elif step[0] == "rst":
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return self.end(client, "finished")
        except BlockingIOError:
            pass
        except OSError as error:
            self.broken(client, error)

    def happen(self, client, events):
        if client.connected is None:
            error = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                return self.broken(client, OSError(error, ""))
            client.connected = time.monotonic()
            self.epoll.modify(client.socket, select.EPOLLIN)
            self.advance(client)
            if client.socket.fileno() < 0:
                return
        if not events & ~select.EPOLLOUT:
            return
        try:
            while True:
                heard = client.socket.recv(65536)
                if not heard:
                    return self.end(client, "closed")
                client.greeted = True
        except BlockingIOError:
            pass
        except OSError as error:
            self.broken(client, error)

    def run(self):
        arguments = self.arguments
        begun_at, begun = time.time(), time.monotonic()
        attempted, connects = 0, None
        while attempted < arguments.count or self.clients:
            now = time.monotonic()
            due = min(arguments.count, int((now - begun) * arguments.rate) + 1)
            # After a hold-up it is not made up for: the rate is a ceiling.
            if due - attempted > 20:
                begun += (due - attempted - 20) / arguments.rate
                due = attempted + 20
            while attempted < due:
                self.begin()
                attempted += 1
            if attempted == arguments.count and connects is None:
                connects, connects_ended_at = time.time() - begun_at, time.time()
            pause = self.timers[0][0] - now if self.timers else 1
            if attempted < arguments.count:
                pause = min(pause, begun + attempted / arguments.rate - now)
            for number, events in self.epoll.poll(max(0, pause), 256):
                client = self.clients.get(number)
                if client:
                    self.happen(client, events)
            now = time.monotonic()
            while self.timers and self.timers[0][0] <= now:
                _, _, client, what = heapq.heappop(self.timers)
                if client.socket.fileno() < 0:
                    continue
                if what == "step":
                    self.advance(client)
                else:
                    self.end(client, "left" if client.connected is not None else "timed_out")
        total = sum(self.by.values(), collections.Counter())
        for name, by in self.by.items():
            lives = sorted(self.lives[name])
            outcomes = "attempted connected refused timed_out failed closed reset left finished greeted"
            self.by[name] = {outcome: by[outcome] for outcome in outcomes.split()}
            self.by[name]["lives_p50_s"] = round(lives[len(lives) // 2], 3) if lives else None
            self.by[name]["lives_max_s"] = round(lives[-1], 3) if lives else None
        line = {
            "attempted": attempted,
            "connected": total["connected"],
            "failed": total["refused"] + total["timed_out"] + total["failed"],
            "closed_by_server": total["closed"] + total["reset"],
            "left": total["left"],
            "greeted": total["greeted"],
            "seconds": round(time.time() - begun_at, 3),
            "connect_seconds": round(connects, 3),
            "rate": round(attempted / connects, 1),
            "begun_at": begun_at,
            "connects_ended_at": connects_ended_at,
            "ended_at": time.time(),
            "by": self.by,
        }
        print(json.dumps(line), flush=True)


def flood(arguments):
    needed = arguments.count + 64
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        sys.exit("needs %d descriptors, may have %d" % (needed, hard))
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    Flood(arguments).run()


def connections(pid, port):
    """Connections that stand at the port: all, and those that no process has accepted: their inode is 0."""
    total = waiting = 0
    for name in ("tcp", "tcp6"):
        try:
            with open("/proc/%d/net/%s" % (pid, name)) as table:
                next(table)
                for line in table:
                    fields = line.split(None, 10)
                    # 01 is ESTABLISHED, 08 CLOSE_WAIT: the client has shut its side.
                    if fields[3] in ("01", "08") and int(fields[1].rsplit(":", 1)[1], 16) == port:
                        total += 1
                        waiting += fields[9] == "0"
        except FileNotFoundError:
            pass
    return total, waiting


def watch(arguments):
    pid, ticks = arguments.pid, os.sysconf("SC_CLK_TCK")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    number, due = 0, time.monotonic()
    while True:
        try:
            with open("/proc/%d/stat" % pid) as file:
                fields = file.read().rsplit(")", 1)[1].split()
            with open("/proc/%d/status" % pid) as file:
                status = dict(line.split(":", 1) for line in file if ":" in line)
            if "VmHWM" not in status:
                return
            sample = {
                "at": time.time(),
                "cpu_s": (int(fields[11]) + int(fields[12])) / ticks,
                "descriptors": len(os.listdir("/proc/%d/fd" % pid)),
                "threads": int(status["Threads"]),
                "rss_bytes": int(status["VmRSS"].split()[0]) * 1024,
                "rss_max_bytes": int(status["VmHWM"].split()[0]) * 1024,
            }
            if number % 5 == 0:
                sample["connections"], sample["waiting"] = connections(pid, arguments.port)
        except (FileNotFoundError, ProcessLookupError):
            return
        print(json.dumps(sample), flush=True)
        number += 1
        due = max(due + 0.05, time.monotonic())
        time.sleep(max(0, due - time.monotonic()))


def behaviours(text):
    names = text.split(",")
    if not set(names) <= set(BEHAVIOURS):
        raise argparse.ArgumentTypeError("of " + ", ".join(BEHAVIOURS))
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("flood")
    command.add_argument("target", metavar="HOST:PORT")
    command.add_argument("--count", type=int, default=5000)
    command.add_argument("--rate", type=float, default=2000, help="connections a second, at most")
    command.add_argument("--hold", type=float, default=10, help="seconds until a connection is given up")
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--cluster", default="storm", help="of the server")
    command.add_argument("--expected", default="server", help="the server's name")
    command.add_argument("--topic", default="hot", help="what calls go to")
    command.add_argument("--only", type=behaviours, default=list(BEHAVIOURS), help="behaviours, by commas")
    command.set_defaults(run=flood)
    command = commands.add_parser("watch")
    command.add_argument("--pid", type=int, required=True)
    command.add_argument("--port", type=int, required=True)
    command.set_defaults(run=watch)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
