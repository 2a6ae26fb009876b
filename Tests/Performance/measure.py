#!/usr/bin/env python3
"""Runs every cell's systems in turns, in a lab of its own, and keeps what they say."""

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date

import cells
import report
from options import Options

CASTNET = os.environ["CASTNET"]
PEERS = os.environ["CASTNET_PEERS"]
SENDER, BROKER, RECEIVERS = "h1", "h2", [f"h{number}" for number in range(3, 11)]
# Everybody gets the processor before whatever else this machine does.
NICE = ["nice", "-n", "-10"]


class Lab:
    """Ten hosts on a bridge: a sender, a broker, and eight that share the members."""

    def __init__(self, work):
        self.work = work
        self.errors = open(os.path.join(work, "errors"), "ab")
        self.port = 20000
        lines = self.out([CASTNET, "lab", "up", "--hosts", "10", "--json"]).splitlines()
        self.address = {host["host"]: host["address"] for host in map(json.loads, lines)}
        # A bridge that snoops floods every port until its querier has been up for ten seconds.
        time.sleep(11)

    def out(self, command, seconds=60, env=None):
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=self.errors, timeout=seconds, env=env)
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout.decode()

    def on(self, host, *command):
        return [CASTNET, "lab", "exec", host, "--", *NICE, *map(str, command)]

    def start(self, host, *command, env=None):
        return subprocess.Popen(self.on(host, *command), stdout=subprocess.DEVNULL, stderr=self.errors, env=env)

    def next_port(self):
        self.port = 20000 if self.port > 55000 else self.port + 200
        return self.port


def stop(processes, seconds=5):
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def last_json(text):
    try:
        return json.loads(text.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {}


def receiver(number, members):
    hosts = members if members <= 4 else 4 if members <= 16 else 8
    return RECEIVERS[number % hosts]


def configuration(lab, rule, interface):
    path = os.path.join(lab.work, f"{abs(hash((rule, interface)))}.yaml")
    with open(path, "w") as file:
        file.write(
            f"node: {{interface: {interface}, cluster: performance}}\n"
            "channels: {wide: {group: 239.192.9.9, port: 7700}}\n"
            f"policies:\n  - {rule}\n" + ('  - {match: "**", carrier: persistent}\n' if "kinds" in rule else ""))
    return path


def our_fanout(lab, cell, system, seconds):
    config = configuration(lab, system.rule, "eth0")
    quiet = ["--json", "--log-level", "error"]
    listeners = [
        lab.start(receiver(number, cell.count), CASTNET, "bench", "listen", config, "bench", "--name", f"l{number}", *quiet)
        for number in range(cell.count)]
    result = last_json(lab.out(lab.on(
        SENDER, CASTNET, "bench", "fanout", config, "bench", "--size", cell.size, "--seconds", seconds,
        "--members", cell.count, *system.arguments, *quiet)))
    stop(listeners)
    if not result:
        return None
    return {"rate": result["bytes_per_s"] / 1e6, "lost": result["lost"], "cpu_s_per_gb": result.get("cpu_s_per_gb")}


def their_fanout(lab, cell, system, seconds):
    port = lab.next_port()
    shared = tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="castnet-performance-")
    shared.write(b"\xff" * 8)
    shared.truncate(128 + 128 * 256)
    shared.flush()
    program = os.path.join(PEERS, f"fan_{system.kind}")
    common = ["--n", cell.count, "--size", cell.size, "--mode", system.mode, "--shm", shared.name, "--port", port,
              "--secs", seconds, *system.options]
    if system.needs_broker:
        common += ["--host", lab.address[BROKER]]
    members = [receiver(number, cell.count) for number in range(cell.count)]
    receivers = [
        lab.start(host, program, "recv", "--ip", lab.address[host], "--id", number, "--peer", lab.address[SENDER], *common)
        for number, host in enumerate(members)]
    result = last_json(lab.out(lab.on(
        SENDER, program, "send", "--ip", lab.address[SENDER], "--id", 0,
        "--peer", ",".join(lab.address[host] for host in members), *common)))
    # Those that end by themselves have a moment for it.
    time.sleep(0.2)
    stop(receivers)
    shared.close()
    if "MBps" not in result:
        return None
    return {"rate": result["MBps"], "lost": result["lost"], "cpu_s_per_gb": result["cpu_per_GB"]}


def our_calls(lab, cell, system, seconds):
    config = configuration(lab, system.rule, "lo")
    common = ["--interface", "lo", "--listen", "127.0.0.1:0", "--json", "--log-level", "error"]
    others = [argument for argument in system.arguments]
    listener = lab.start(SENDER, CASTNET, "bench", "listen", config, "bench", "--name", "far", *common, *others)
    result = last_json(lab.out(lab.on(
        SENDER, CASTNET, "bench", "call", config, "bench", "--size", cell.size, "--seconds", seconds,
        "--in-flight", cell.count, *common, *others)))
    stop([listener])
    if not result.get("calls"):
        return None
    latency = result["latency_s"]
    return {"rate": result["calls_per_s"], "p50": latency["p50"] * 1e6, "p99": latency["p99"] * 1e6}


def their_calls(lab, cell, system, seconds):
    port = lab.next_port()
    program = os.path.join(PEERS, "rr")
    env = dict(os.environ, BIGBUF="1") if cell.count > 1 and system.kind == "tcp" else None
    common = ["--port", 4222 if system.needs_broker else port, "--size", cell.size]
    server = lab.start(SENDER, program, system.kind, "server", *common, env=env)
    time.sleep(0.3)
    result = last_json(lab.out(lab.on(
        SENDER, program, system.kind, "client", *common, "--secs", seconds, "--inflight", cell.count), env=env))
    stop([server])
    if "rps" not in result:
        return None
    return {"rate": result["rps"], "p50": result["p50"], "p99": result["p99"]}


RUNS = {("fanout", True): our_fanout, ("fanout", False): their_fanout,
        ("call", True): our_calls, ("call", False): their_calls}


def measured(lab, cell, repetitions, seconds):
    """The figures of each system, one for each repetition; None where a run had no result."""
    figures = {system.name: [] for system in cell.systems}
    for _ in range(repetitions):
        for system in cell.systems:
            figures[system.name].append(RUNS[cell.what, system.is_ours](lab, cell, system, seconds))
    return figures


def processor():
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.machine()


def arguments():
    parser = Options(prog="run.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repetition of the smaller cells: five minutes")
    parser.add_argument("--repetitions", type=int, help="of each cell: 5, with --quick 1")
    parser.add_argument("--json", required=True, help="where the figures go")
    parser.add_argument("--only", default="", help="only cells whose name has this text in it")
    return parser.parse_args()


def main():
    options = arguments()
    repetitions = options.repetitions or (1 if options.quick else 5)
    limit = time.monotonic() + (290 if options.quick else 3500)
    # Children end with this, whatever ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    done = {"date": date.today().isoformat(), "kernel": platform.release(), "processor": processor(),
            "repetitions": repetitions, "seconds": 1, "cells": []}
    with tempfile.TemporaryDirectory(prefix="castnet-performance-") as work:
        lab = Lab(work)
        brokers = [lab.start(host, "nats-server", "-a", "0.0.0.0", "-p", 4222) for host in (BROKER, SENDER)]
        try:
            for cell in cells.cells(options.quick):
                if options.only not in cell.name:
                    continue
                if time.monotonic() > limit:
                    print(f"out of time before {cell.name}", flush=True)
                    done["is_cut"] = True
                    break
                figures = measured(lab, cell, repetitions, done["seconds"])
                done["cells"].append(report.summary(cell, figures))
                print(json.dumps(done["cells"][-1]), flush=True)
        finally:
            stop(brokers)
            subprocess.run([CASTNET, "lab", "down"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(options.json, "w") as file:
        json.dump(done, file, indent=1)
    print(report.table(done))
    targets = [target for cell in done["cells"] for target in cell["targets"]]
    met = sum(target["met"] for target in targets)
    print(f"{met} passed, {len(targets) - met} failed, 0 skipped")
    sys.exit(0 if met == len(targets) and targets and not done.get("is_cut") else 1)


if __name__ == "__main__":
    main()
