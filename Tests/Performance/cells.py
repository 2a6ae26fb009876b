"""What is measured, and what it is to reach."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class System:
    """One way to do the work of a cell: ours, a peer's, or the raw socket's."""
    name: str
    # Peers: the program's kind, its mode and further options, as `fan_KIND --mode MODE`, `rr KIND`.
    kind: str = ""
    mode: str = ""
    options: tuple = ()
    # Ours: arguments of `castnet bench`, and lines of its configuration.
    arguments: tuple = ()
    rule: str = ""
    is_ours: bool = False
    needs_broker: bool = False


@dataclass(frozen=True)
class Target:
    """`ours` is at least (or, with `at_most`, at most) `factor` times `other`'s figure."""
    ours: str
    other: str
    factor: float
    at_most: bool = False
    figure: str = "rate"

    def __str__(self):
        sign = "≤" if self.at_most else "≥"
        what = "" if self.figure == "rate" else f"{self.figure} "
        return f"{what}{sign} {self.factor:g} × {self.other}"


@dataclass(frozen=True)
class Cell:
    """One line of the table: the same work, done by several systems in turns."""
    what: str
    size: int
    # Of fanouts: members; of calls: in flight.
    count: int
    systems: tuple
    targets: tuple = ()
    unit: str = "MB/s"

    @property
    def name(self):
        count = f"×{self.count}" if self.what == "fanout" else f"{self.count} in flight"
        size = f"{self.size >> 10} KiB" if self.size >= 1024 else f"{self.size} B"
        return f"{self.what} {size} {count}"


MULTICAST = '{match: "**", kinds: [fanout], carrier: multicast, channel: wide}'
PERSISTENT = '{match: "**", carrier: persistent}'
EPHEMERAL = '{match: "**", carrier: ephemeral, linger: 0s, share: false}'


def ours(name, rule, *arguments):
    return System(name, rule=rule, arguments=arguments, is_ours=True)


def fanout(size, members):
    large = size >= 65536
    pgm = ("--window", "1024" if members >= 16 else "2048")
    systems = [
        ours("castnet", MULTICAST, *(() if large else ("--batch", "256"))),
        System("raw GSO", "raw", "gso", ("--window", "4096")),
        System("raw sendmmsg", "raw", "mmsg", ("--window", "8192")),
        System("OpenPGM", "pgm", "raw" if large else "pack", pgm),
        System("ZeroMQ epgm", "zmq", "epgm", ("--window", "43" if large else "32768")),
        System("ZeroMQ TCP", "zmq", "tcp"),
        System("TCP copies", "tcp", "batch"),
        System("NATS", "nats", "tcp", ("--window", "64" if large else "8192"), needs_broker=True),
    ]
    if not large:
        systems.insert(1, ours("castnet single", MULTICAST))
    at = {1: 0, 4: 1, 16: 2, 64: 3}[members]
    if large:
        wanted = [("OpenPGM", (8, 8, 8, 8)), ("ZeroMQ TCP", (0.6, 1.3, 2.5, 2)), ("TCP copies", (None, 0.75, 1.2, 1))]
    else:
        wanted = [("ZeroMQ epgm", (5, 8, 8, 8)), ("NATS", (5, 6, 9, 8))]
    targets = tuple(Target("castnet", other, row[at]) for other, row in wanted if row[at])
    return Cell("fanout", size, members, tuple(systems), targets)


def calls(size, in_flight):
    systems = [
        ours("castnet", PERSISTENT, "--set", "node.unix=off"),
        System("raw TCP", "tcp"),
        System("ZeroMQ", "zreq" if in_flight == 1 else "zdr"),
        System("NATS", "nats", needs_broker=True),
    ]
    if in_flight == 1:
        systems += [
            ours("castnet unix", PERSISTENT),
            ours("castnet ephemeral", EPHEMERAL, "--set", "node.unix=off"),
            System("raw UDS", "uds"),
            System("raw TCP, a connection each", "conn"),
        ]
        targets = (
            Target("castnet", "raw TCP", 1.5, True, "p50"), Target("castnet", "ZeroMQ", 1, True, "p50"),
            Target("castnet", "raw TCP", 3, True, "p99"),
            Target("castnet ephemeral", "raw TCP", 2.5, True, "p50"),
            Target("castnet unix", "castnet", 1, True, "p50"),
        )
    else:
        targets = (Target("castnet", "ZeroMQ", 1.1 if in_flight == 64 else 0.6),)
    return Cell("call", size, in_flight, tuple(systems), targets, unit="calls/s")


def cells(quick):
    members = (1, 4) if quick else (1, 4, 16, 64)
    sizes = (64,) if quick else (64, 1024)
    return [fanout(size, count) for size in (65536, 64) for count in members] + [
        calls(size, count) for size in sizes for count in (1, 64, 1024)]
