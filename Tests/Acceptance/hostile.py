#!/usr/bin/env python3
"""Hostile PGM packets, kind after kind, and what became of them.

Learns the live stream of a group by joining it, sends COUNT packets of every kind of one mode and reads from the
victims' own statistics (`--stats` of serve and send) how many they refused. Prints a line of JSON a kind:

    {"kind","mode","sent","seconds","rate","victims":{NAME:{"admits","rejected","kernel","by","cpu_s","engine_s",
     "engine_us_per_packet","elapsed_s","lives","accounted"}}}

`admits` is how many packets of the kind may rightly pass: 0 means that every single one must be refused or dropped
by the kernel, null that the kind holds packets which are as good as anybody's. Standard library only; needs root,
to listen without a port of its own and to forge source addresses.
"""

import argparse
import glob
import json
import os
import random
import socket
import struct
import sys
import time

SPM, POLL, POLR, ODATA, RDATA, NAK, NNAK, NCF, SPMR, ACK = 0, 1, 2, 4, 5, 8, 9, 10, 12, 13
UPSTREAM = (POLR, NAK, NNAK, SPMR, ACK)
# What is refused before libpgm; other counters of the same prefix are about frames, behind it.
REASONS = (
    "length type options family checksum port tsi own alias source streams destination magic numbers behind "
    "jump far resync unknown quiet holdoff rate"
).split()
# A stream's numbers far from any that are in use.
FAR = 1 << 26


def address(text):
    return struct.unpack(">I", socket.inet_aton(text))[0]


def checksum(packet):
    words = packet + b"\0" if len(packet) & 1 else packet
    total = sum(struct.unpack(">%dH" % (len(words) // 2), words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF if total == 0xFFFF else total ^ 0xFFFF


def seal(packet):
    """The packet with its right checksum."""
    if len(packet) < 16:
        return packet
    packet = packet[:6] + b"\0\0" + packet[8:]
    return packet[:6] + struct.pack(">H", checksum(packet)) + packet[8:]


class Live:
    """What can be overheard of the live stream, kept up to date."""

    def __init__(self, group, port, interface, source):
        self.group, self.port, self.source = group, port, source
        # Raw, so that it shares nobody's port.
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.setsockopt(
            socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton(interface)
        )
        self.tsi = self.send_port = None
        self.lead = self.trail = 0
        self.payload = b""
        end = time.monotonic() + 10
        self.socket.settimeout(0.2)
        while self.tsi is None and time.monotonic() < end:
            try:
                self.take(self.socket.recv(65536))
            except socket.timeout:
                pass
        if self.tsi is None:
            sys.exit("no live stream on %s:%d" % (group, port))
        self.socket.setblocking(False)

    def take(self, datagram):
        start = 4 * (datagram[0] & 15)
        source, group = socket.inet_ntoa(datagram[12:16]), socket.inet_ntoa(datagram[16:20])
        ports, packet = struct.unpack(">HH", datagram[start : start + 4]), datagram[start + 8 :]
        if (source, group, ports[1]) != (self.source, self.group, self.port):
            return
        if len(packet) < 26 or packet[4] != ODATA or self.send_port not in (None, ports[0]):
            return
        self.send_port = ports[0]
        self.tsi = packet[8:14] + packet[0:2]
        self.lead, self.trail = struct.unpack(">II", packet[16:24])
        self.payload = packet[24:]

    def refresh(self):
        try:
            while True:
                self.take(self.socket.recv(65536))
        except BlockingIOError:
            pass


class Maker:
    """Makes packets; `path` is the address that they come from."""

    def __init__(self, live, group, port, path, seed):
        self.live, self.group, self.port, self.path = live, address(group), port, address(path)
        self.random = random.Random(seed)
        self.magic = live.payload[:4]
        self.number = 0
        self.stream = self.fresh()
        self.sequence = 1000
        self.steps = 0

    def fresh(self):
        return self.random.randbytes(7) + bytes([1 + self.random.randrange(255)])

    def header(self, kind, tsi, options=0, length=0, port=None):
        port = struct.pack(">H", self.port if port is None else port)
        ports = port + tsi[6:8] if kind in UPSTREAM else tsi[6:8] + port
        return ports + bytes([kind, options, 0, 0]) + tsi[0:6] + struct.pack(">H", length)

    def data(self, tsi, sequence, trail=None, payload=None, kind=ODATA, options=0, port=None):
        payload = self.magic + self.random.randbytes(30) if payload is None else payload
        trail = sequence if trail is None else trail
        return seal(
            self.header(kind, tsi, options, len(payload), port)
            + struct.pack(">II", sequence & 0xFFFFFFFF, trail & 0xFFFFFFFF)
            + payload
        )

    def spm(self, tsi, sequence, trail, lead, path=None, family=1, options=0, rest=b"", port=None):
        return seal(
            self.header(SPM, tsi, options, 0, port)
            + struct.pack(
                ">IIIHHI",
                sequence & 0xFFFFFFFF,
                trail & 0xFFFFFFFF,
                lead & 0xFFFFFFFF,
                family,
                0,
                self.path if path is None else path,
            )
            + rest
        )

    def request(
        self, kind, tsi, numbers, source, group=None, families=(1, 1), options=None, rest=None, port=None
    ):
        """A NAK or NCF of one number or a list."""
        if rest is None:
            rest = b""
            if len(numbers) > 1:
                size = 4 * (len(numbers) - 1)
                rest = struct.pack(">BBHBBBB", 0, 4, 8 + size, 0x82, 4 + size, 0, 0)
                rest += b"".join(struct.pack(">I", number & 0xFFFFFFFF) for number in numbers[1:])
        if options is None:
            options = 3 if rest else 0
        return seal(
            self.header(kind, tsi, options, 0, port)
            + struct.pack(
                ">IHHIHHI",
                numbers[0] & 0xFFFFFFFF,
                families[0],
                0,
                source,
                families[1],
                0,
                self.group if group is None else group,
            )
            + rest
        )

    def any(self, tsi, port=None):
        """A well-formed packet of any kind in use."""
        lead = self.live.lead
        kind = self.random.choice((SPM, ODATA, RDATA, NAK, NCF, SPMR))
        if kind in (ODATA, RDATA):
            return self.data(tsi, lead, kind=kind, port=port)
        if kind == SPM:
            return self.spm(tsi, lead, lead, lead, port=port)
        if kind == SPMR:
            return seal(self.header(SPMR, tsi, port=port))
        numbers = [lead + index for index in range(self.random.choice((1, 1, 2, 5, 63)))]
        return self.request(kind, tsi, numbers, address(self.live.source), port=port)

    # ---- Kinds: each makes one packet ----

    def target(self):
        """A stream identifier the mode is about: the live one where the source is its own, or a new one."""
        return self.live.tsi if self.forges else self.fresh()

    forges = False

    def empty(self):
        return b""

    def noise(self):
        return self.random.randbytes(self.random.randrange(1, 1400))

    def types(self):
        self.number += 1
        body = self.random.randbytes(self.random.choice((0, 8, 20, 28, 60)))
        # Behind the body, data says how long it is: nothing but the frame is wrong with it.
        payload = b"XX" + self.random.randbytes(18) if self.number & 1 else b""
        return seal(self.header(self.number >> 1 & 0xFF, self.fresh(), 0, len(payload)) + body[:8] + payload)

    def unused(self):
        kind = self.random.choice(
            (POLL, POLR, NNAK, ACK, 0x03, 0x06, 0x07, 0x0B, 0x0E, 0x10, 0x44, 0x84, 0xFF)
        )
        return seal(self.header(kind, self.target()) + self.random.randbytes(self.random.choice((0, 20, 48))))

    def lengths(self):
        packet = self.any(self.target())
        choice = self.random.randrange(3)
        if choice == 0:
            return seal(packet[: self.random.randrange(len(packet))])
        if choice == 1:
            return seal(packet + bytes(self.random.randrange(1, 40)))
        claimed = struct.unpack(">H", packet[14:16])[0] ^ (1 << self.random.randrange(16))
        return seal(packet[:14] + struct.pack(">H", claimed) + packet[16:])

    def options(self):
        tsi, lead = self.target(), self.live.lead
        flags = self.random.choice((1, 2, 3, 0x40, 0x80, 0x81, 0xC1, 0xFF))
        option = self.random.choice(
            (0x00, 0x01, 0x02, 0x03, 0x07, 0x08, 0x0D, 0x0E, 0x0F, 0x10, 0x12, 0x13, 0x7F)
        )
        option |= self.random.choice((0, 0x80))
        size = self.random.choice((0, 1, 3, 4, 8, 20, 255))
        total = self.random.choice((0, 1, 4, 9, 4 + size, 0xFFFF))
        rest = struct.pack(">BBHBBBB", 0, 4, total, option, size, 0, 0) + self.random.randbytes(
            4 * (size % 5)
        )
        kind = self.random.choice((SPM, ODATA, RDATA, NAK, NCF, SPMR))
        if kind in (ODATA, RDATA):
            return self.data(tsi, lead, kind=kind, options=flags, payload=rest + self.live.payload[:40])
        if kind == SPM:
            return self.spm(tsi, lead, lead, lead, options=flags, rest=rest if option != 0x8E else b"")
        if kind == SPMR:
            return seal(self.header(SPMR, tsi, flags) + rest)
        if option == 0x82:
            size = 0
        return self.request(
            kind,
            tsi,
            [lead],
            address(self.live.source),
            options=flags,
            rest=rest[:4] + bytes([option, size]) + rest[6:],
        )

    def lists(self):
        """Lists of a NAK and of an NCF that lie about themselves: libpgm loops for ever over an empty option."""
        lead, kind = self.live.lead, self.random.choice((NAK, NCF))
        count = self.random.choice((0, 1, 2, 62, 63, 64, 300))
        honest = 4 + 4 * count
        size = self.random.choice((0, 1, 3, 4, 255, honest & 0xFF))
        total = self.random.choice((0, 8, 0xFFFF, 4 + honest))
        if 1 <= count <= 62 and size == honest & 0xFF and total == 4 + honest:
            total += 4
        rest = struct.pack(">BBHBBBB", 0, 4, total & 0xFFFF, 0x82, size, 0, 0)
        rest += b"".join(struct.pack(">I", lead + index & 0xFFFFFFFF) for index in range(count))
        return self.request(kind, self.target(), [lead], address(self.live.source), options=3, rest=rest)

    def families(self):
        tsi, lead = self.target(), self.live.lead
        family = self.random.choice((0, 2, 3, 10, 25, 0x0100, 0xFFFF))
        kind = self.random.choice((SPM, NAK, NCF))
        if kind == SPM:
            return self.spm(tsi, lead, lead, lead, family=family)
        pair = self.random.choice(((family, 1), (1, family), (family, family)))
        return self.request(kind, tsi, [lead], address(self.live.source), families=pair)

    def checksums(self):
        packet = self.any(self.target())
        if self.random.randrange(4) == 0:
            return packet[:6] + b"\0\0" + packet[8:]
        wrong = struct.unpack(">H", packet[6:8])[0] ^ (1 << self.random.randrange(16))
        return packet[:6] + struct.pack(">H", wrong) + packet[8:]

    def sessions(self):
        return self.any(self.target(), port=self.port ^ (1 << self.random.randrange(16)))

    def nulls(self):
        return self.any(bytes(8))

    def aliases(self):
        """Streams that libpgm takes for the live one: all it compares is the two halves, one xor the other."""
        mask = self.random.randrange(1, 1 << 32)
        halves = struct.unpack(">II", self.live.tsi)
        tsi = struct.pack(">II", halves[0] ^ mask, halves[1] ^ mask)
        kind = self.random.choice((ODATA, ODATA, RDATA, SPM, NCF))
        if kind == SPM:
            return self.spm(tsi, 1 << 20, self.live.lead + FAR, self.live.lead + FAR)
        if kind == NCF:
            return self.request(NCF, tsi, [self.live.lead], self.path)
        return self.data(tsi, self.live.lead + FAR, kind=kind)

    def stolen(self):
        """The live stream from another address than its own."""
        lead = self.live.lead + self.random.choice((1, 2, 100, FAR))
        kind = self.random.choice((ODATA, RDATA, SPM, NCF))
        if kind == SPM:
            return self.spm(self.live.tsi, 1 << 20, lead, lead)
        if kind == NCF:
            return self.request(NCF, self.live.tsi, [lead], self.path)
        return self.data(self.live.tsi, lead, kind=kind)

    def strangers(self):
        """Data without a frame; repairs, confirmations and path messages of streams that nobody knows."""
        tsi, kind = self.fresh(), self.random.choice((ODATA, RDATA, NCF, SPM))
        number = self.random.randrange(1 << 32)
        if kind == SPM:
            path = self.random.choice((self.path, self.random.randrange(1 << 32)))
            final = self.random.choice(((0, b""), (1, bytes([0, 4, 0, 8, 0x8E, 4, 0, 0]))))
            return self.spm(tsi, number, number, number + 5, path=path, options=final[0], rest=final[1])
        if kind == NCF:
            return self.request(
                NCF, tsi, [number + index for index in range(self.random.randrange(1, 63))], self.path
            )
        return self.data(tsi, number, kind=kind, payload=b"ZZ" + bytes(20) if kind == ODATA else None)

    def oversize(self):
        return self.random.randbytes(self.random.randrange(1501, 4000))

    def trails(self):
        number = self.random.randrange(1 << 32)
        behind = self.random.randrange(1 << 24, (1 << 32) - 2)
        if self.forges and self.random.randrange(2):
            return self.spm(self.live.tsi, 1, number - behind, number)
        return self.data(self.target(), number, number - behind)

    def reflectors(self):
        """Path messages of the live stream that would send everybody's NAKs to somebody else."""
        path = self.path ^ (1 << self.random.randrange(32))
        return self.spm(self.live.tsi, 1 << 20, self.live.lead, self.live.lead, path=path)

    def leaps(self):
        """Numbers behind the window and beyond it, no two of them near each other: each alone is refused."""
        self.steps = (self.steps + 0x61C88647) & 0x3FFFFFFF
        number = self.live.lead + FAR + self.steps * 31 % (0x7FFFFFFF - 2 * FAR)
        if self.random.randrange(2):
            number = self.live.lead - FAR - self.random.randrange(0x7FFFFFFF - 2 * FAR)
        kind = self.random.choice((ODATA, RDATA, SPM, NCF))
        if kind == SPM:
            return self.spm(self.live.tsi, 1 << 20, number, number)
        if kind == NCF:
            return self.request(NCF, self.live.tsi, [number, number + 1], self.path)
        return self.data(self.live.tsi, number, kind=kind)

    # Towards a sender.

    def pleas(self):
        """Requests to the sender that are not for it, not about its group, or about numbers it never had."""
        lead, source = self.live.lead, address(self.live.source)
        far = lead + FAR + self.random.randrange(1 << 30)
        numbers = [far + index for index in range(self.random.choice((1, 1, 2, 30, 63)))]
        wrong = self.random.randrange(4)
        if wrong == 0:
            return self.request(NAK, self.fresh(), [lead], source)
        if wrong == 1:
            return self.request(NAK, self.live.tsi, [lead], source ^ (1 << self.random.randrange(32)))
        if wrong == 2:
            return self.request(NAK, self.live.tsi, [lead], source, group=self.group ^ 1)
        return self.request(NAK, self.live.tsi, numbers, source)

    def astray(self):
        """What only the group may be sent, to one node."""
        kind, tsi = self.random.choice((ODATA, RDATA, SPM, NCF)), self.fresh()
        if kind == SPM:
            return self.spm(tsi, 1, 1, 1)
        if kind == NCF:
            return self.request(NCF, tsi, [1], self.path)
        return self.data(tsi, 5, kind=kind)

    # As good as anybody's, as far as one packet tells.

    def flood(self):
        """Requests for what the sender has: 63 numbers a packet."""
        first = max(self.live.trail, self.live.lead - self.random.randrange(4096))
        return self.request(
            NAK, self.live.tsi, [first + index for index in range(63)], address(self.live.source)
        )

    def queries(self):
        return seal(self.header(SPMR, self.live.tsi))

    def streams(self):
        return self.data(self.fresh(), self.random.randrange(1 << 32))

    def jumps(self):
        """One stream that jumps by every power of two, and back."""
        self.number += 1
        step = 1 << self.number % 32
        self.sequence = self.sequence + (step if self.random.randrange(4) else -step) & 0xFFFFFFFF
        return self.data(self.stream, self.sequence, self.sequence - self.random.randrange(1 << 23))

    def windows(self):
        """One stream that skips nearly a window with every packet: libpgm makes a placeholder for each number."""
        self.sequence = self.sequence + self.random.choice((255, 1000, 4095)) & 0xFFFFFFFF
        kind = self.random.randrange(4)
        if kind == 0:
            return self.spm(self.stream, self.sequence, self.sequence - 100, self.sequence)
        return self.data(self.stream, self.sequence, self.sequence - 5000)

    def outages(self):
        """One stream that is taken up again farther on, over and over."""
        self.number += 1
        if self.number % 4 == 0:
            self.sequence = self.sequence + self.random.randrange(1 << 20, 1 << 30) & 0xFFFFFFFF
        self.sequence = self.sequence + 1 & 0xFFFFFFFF
        return self.data(self.stream, self.sequence)

    def mutants(self):
        """A stream's good packets with some bytes changed, and the right checksum."""
        self.sequence = self.sequence + 1 & 0xFFFFFFFF
        kind = self.random.randrange(6)
        if kind < 3:
            # What frames say is not libpgm's affair: these decode to nothing.
            packet = self.data(self.stream, self.sequence, payload=self.magic + self.random.randbytes(900))
        elif kind == 3:
            packet = self.spm(self.stream, self.sequence, self.sequence - 10, self.sequence)
        elif kind == 4:
            packet = self.request(NCF, self.stream, [self.sequence - 2, self.sequence - 1], self.path)
        else:
            packet = self.any(self.live.tsi)
        changed = bytearray(packet)
        for _ in range(self.random.randrange(4)):
            changed[self.random.randrange(len(changed))] = self.random.randrange(256)
        if self.random.randrange(8) == 0:
            changed = changed[: self.random.randrange(len(changed))]
        return seal(bytes(changed))


class Wire:
    """How packets leave: to the group or to one address, from this host or in another one's name."""

    def __init__(self, arguments, live):
        self.forged = arguments.mode == "forged"
        if self.forged:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        else:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind((arguments.interface, 0))
        self.socket.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(arguments.interface)
        )
        # A neighbour on the sender's host is heard by the sender too.
        self.socket.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(arguments.mode == "neighbour")
        )
        self.source, self.source_port = live.source, live.send_port
        self.identification = 0

    def send(self, packet, destination, source=None):
        if self.forged:
            self.identification = self.identification + 1 & 0xFFFF
            datagram = struct.pack(">HHHH", self.source_port, destination[1], 8 + len(packet), 0) + packet
            packet = (
                struct.pack(
                    ">BBHHHBBH4s4s",
                    0x45,
                    0,
                    20 + len(datagram),
                    self.identification,
                    0,
                    1,
                    17,
                    0,
                    socket.inet_aton(source or self.source),
                    socket.inet_aton(destination[0]),
                )
                + datagram
            )
            destination = (destination[0], 0)
        self.socket.sendto(packet, destination)


class Victim:
    """A process under attack: NAME:ROLE:PID:ADDRESS:FILE, the file being its standard output."""

    ticks = os.sysconf("SC_CLK_TCK")

    def __init__(self, text):
        self.name, self.role, pid, self.address, self.file = text.split(":", 4)
        self.pid = int(pid)

    def statistics(self):
        """The last complete line of statistics: (when, counters)."""
        with open(self.file, "rb") as lines:
            lines.seek(0, os.SEEK_END)
            lines.seek(max(0, lines.tell() - (1 << 19)))
            for line in reversed(lines.read().split(b"\n")[:-1]):
                if line.startswith(b'{"') and b'"event":"stats"' in line:
                    values = json.loads(line)
                    return values["at_s"], values["counters"]
        return 0, {}

    def after(self, moment, seconds=3):
        end = time.time() + seconds
        while True:
            at, counters = self.statistics()
            if at > moment or time.time() > end or not self.lives():
                return counters
            time.sleep(0.02)

    def lives(self):
        return os.path.exists("/proc/%d/stat" % self.pid)

    def processor(self):
        """Seconds of processor time: of the process, and of the engine's thread."""

        def seconds(path):
            try:
                with open(path) as file:
                    name, fields = file.read().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                return "", 0.0
            fields = fields.split()
            return name, (int(fields[11]) + int(fields[12])) / self.ticks

        engine = [seconds(path) for path in glob.glob("/proc/%d/task/*/stat" % self.pid)]
        return seconds("/proc/%d/stat" % self.pid)[1], sum(
            used for name, used in engine if name == "castnet-pgm"
        )


# Streams that one address may have.
STREAMS_MAX = 64
# Every kind of a mode, with how many packets may rightly pass at a receiver and at a sender; None: any number, or not
# to be told. A stream is made by its first packet. A sender does not count its own stream as one that others may be
# mistaken for; and the filter of its socket takes what bears the identifier of its own stream without counting.
SHAPES = ("unused", "lengths", "options", "lists", "families", "checksums", "nulls")
RANDOM = [(name, 0, 0) for name in ("empty", "noise", "types", *SHAPES, "oversize")]
FORGED = [(name, 0, None) for name in (*SHAPES, "aliases", "trails", "reflectors", "leaps")]
MODES = {
    "group": [
        ("jumps", None, None),
        ("windows", None, None),
        ("outages", None, None),
        ("mutants", None, None),
        *RANDOM,
        ("sessions", 0, 0),
        ("aliases", 0, STREAMS_MAX),
        ("stolen", 0, None),
        ("strangers", 0, 0),
        ("trails", 0, 0),
        ("streams", STREAMS_MAX, STREAMS_MAX),
    ],
    "unicast": [*RANDOM, ("pleas", 0, 0), ("astray", 0, 0), ("queries", 0, None), ("flood", 0, None)],
    "neighbour": FORGED,
    "forged": [*FORGED, ("crowds", None, None)],
}


def attack(kind, maker, wire, destinations, count, rate):
    """Sends `count` packets to every destination; how long it took."""
    make = maker.streams if kind == "crowds" else getattr(maker, kind)
    started = time.monotonic()
    sent = 0
    while sent < count:
        if sent % 20 == 0:
            maker.live.refresh()
            pause = started + sent * len(destinations) / rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
        packet = make()
        source = None
        if kind == "crowds":
            source = socket.inet_ntoa(
                struct.pack(">I", address(wire.source) ^ maker.random.randrange(1, 1 << 15))
            )
        for destination in destinations:
            wire.send(packet, destination, source)
        sent += 1
    return time.monotonic() - started


def refused(before, after):
    by = {
        reason: after.get("pgm.rejected." + reason, 0) - before.get("pgm.rejected." + reason, 0)
        for reason in REASONS
    }
    by = {reason: number for reason, number in by.items() if number}
    return sum(by.values()), after.get("kernel.dropped", 0) - before.get("kernel.dropped", 0), by


def settle(victim, before, expected, exact):
    """What a victim refused, once it has nothing left to do about it: kernel.dropped is looked at once a second
    only, and given up numbers are told one by one."""
    end = time.time() + 30
    at, last, quiet = time.time(), None, 0
    while True:
        after = victim.after(at)
        at = time.time()
        rejected, kernel, by = refused(before, after)
        if exact and rejected + kernel >= expected:
            return rejected, kernel, by
        now = (rejected, kernel, after.get("pgm.in.reset", 0))
        quiet = quiet + 1 if now == last else 0
        last = now
        if quiet >= (12 if exact else 4) or at > end or not victim.lives():
            return rejected, kernel, by


def run(arguments):
    live = Live(arguments.group, arguments.port, arguments.interface, arguments.source)
    forges = arguments.mode in ("forged", "neighbour")
    maker = Maker(
        live, arguments.group, arguments.port, live.source if forges else arguments.interface, arguments.seed
    )
    maker.forges = forges
    wire = Wire(arguments, live)
    victims = [Victim(text) for text in arguments.victim]
    # Where each victim's packets go; to the group all at once.
    ways = {None: [(arguments.group, arguments.port)]}
    if arguments.mode == "unicast":
        ways = {victim: [(victim.address, arguments.port)] for victim in victims}
        for victim in victims:
            if victim.role == "sender":
                ways[victim].append((victim.address, live.send_port))
    for kind, at_receiver, at_sender in MODES[arguments.mode]:
        if arguments.kind and kind not in arguments.kind:
            continue
        for only, destinations in ways.items():
            attacked = [only] if only else victims
            count = arguments.count // len(destinations)
            maker.stream, maker.sequence = maker.fresh(), 1 << 20
            before = {victim: (victim.after(time.time()), victim.processor()) for victim in attacked}
            seconds = attack(kind, maker, wire, destinations, count, arguments.rate)
            started, sent, told = time.monotonic() - seconds, count * len(destinations), {}
            for victim in attacked:
                admits = at_sender if victim.role == "sender" else at_receiver
                counters, used = before[victim]
                rejected, kernel, by = settle(victim, counters, sent - (admits or 0), admits is not None)
                processor, elapsed = victim.processor(), time.monotonic() - started
                engine = processor[1] - used[1]
                told[victim.name] = {
                    "admits": admits,
                    "rejected": rejected,
                    "kernel": kernel,
                    "by": by,
                    "cpu_s": round(processor[0] - used[0], 2),
                    "engine_s": round(engine, 2),
                    "engine_us_per_packet": round(engine * 1e6 / sent, 1),
                    "elapsed_s": round(elapsed, 2),
                    "lives": victim.lives(),
                    "accounted": admits is None or 0 <= sent - rejected - kernel <= admits,
                }
            print(
                json.dumps(
                    {
                        "kind": kind,
                        "mode": arguments.mode,
                        "sent": sent,
                        "seconds": round(seconds, 2),
                        "rate": round(sent / seconds),
                        "victims": told,
                    }
                ),
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--group", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--interface", required=True, help="this host's address")
    parser.add_argument("--source", required=True, help="the address of the live stream's sender")
    parser.add_argument("--victim", action="append", default=[], help="NAME:receiver|sender:PID:ADDRESS:FILE")
    parser.add_argument("--kind", action="append", help="only these")
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
