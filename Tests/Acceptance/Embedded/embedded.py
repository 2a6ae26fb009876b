#!/usr/bin/env python3
"""Castnet inside a shared library that this program loads, by ctypes.

    embedded.py idle LIBRARY CONFIG --name h1 --nodes 5 --go FILE
        starts nodes that hear `idle`; when FILE exists each sends one fanout; ends with SIGTERM
    embedded.py talk LIBRARY CONFIG --name h1 --peers 1 --count 100 [--publish EP --collect EP --messages N]
        sends fanouts to `talk` and hears them, at the same time as sockets of libzmq in the same process
        publish and collect; prints what arrived, and ends with SIGTERM
"""

import argparse
import ctypes
import json
import os
import signal
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import epgm  # noqa: E402


class Library:
    def __init__(self, path):
        # Local symbols: as a plug-in is loaded.
        self.library = ctypes.CDLL(path, mode=os.RTLD_LOCAL | os.RTLD_NOW)
        self.library.embedded_report.restype = ctypes.c_void_p
        self.free = ctypes.CDLL(None).free
        self.free.argtypes = [ctypes.c_void_p]

    def start(self, config, name, pattern):
        node = self.library.embedded_start(config.encode(), name.encode(), pattern.encode())
        if node <= 0:
            raise SystemExit(f"{name} does not start")
        return node

    def fanout(self, node, topic, size, count, members):
        return self.library.embedded_fanout(node, topic.encode(), size, count, members)

    def report(self, node):
        text = self.library.embedded_report(node)
        report = json.loads(ctypes.string_at(text))
        self.free(text)
        return report

    def stop(self, node):
        self.library.embedded_stop(node)


def wait_for(ended):
    # A signal that came to one of Castnet's threads does not wake this one.
    while not ended.wait(0.1):
        pass


def idle(library, arguments, ended):
    nodes = [
        library.start(arguments.config, f"{arguments.name}-{number}", "idle")
        for number in range(arguments.nodes)
    ]
    epgm.show({"event": "ready", "nodes": len(nodes)})
    while not ended.wait(0.05):
        if arguments.go and os.path.exists(arguments.go):
            sent = [library.fanout(node, "idle", 100, 1, arguments.peers) for node in nodes]
            epgm.show({"event": "sent", "complete": sum(sent)})
            break
    wait_for(ended)
    reports = [library.report(node) for node in nodes]
    heard = [report["heard"]["messages"] for report in reports]
    epgm.show({
        "event": "summary", "heard_min": min(heard), "heard_max": max(heard),
        "absent": sum(report["counters"].get("seam.absent", 0) for report in reports)})
    for node in nodes:
        library.stop(node)


def talk(library, arguments, ended):
    results = {}

    def run(name, body, *parameters):
        def work():
            results[name] = body(*parameters)
        thread = threading.Thread(target=work)
        thread.start()
        return thread

    threads = []
    if arguments.collect:
        joined = threading.Event()
        threads.append(run("collected", lambda: epgm.collect(
            arguments.collect, "stock", arguments.messages, ready=joined.set)))
        joined.wait()
    node = library.start(arguments.config, arguments.name, "talk")
    # With the first fanout the others are known, and so their sockets have joined.
    first = library.fanout(node, "talk", 1000, 1, arguments.peers)
    if arguments.publish:
        threads.append(run("published", lambda: epgm.publish(
            arguments.publish, "stock", arguments.messages, 1000)))
    sent = first + library.fanout(node, "talk", arguments.size, arguments.count - 1, arguments.peers)
    expected = arguments.count * (arguments.peers + 1)
    deadline = time.monotonic() + 20
    while library.report(node)["heard"]["messages"] < expected and time.monotonic() < deadline:
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    epgm.show({"event": "talked", "complete": sent, **results, **library.report(node)})
    wait_for(ended)
    library.stop(node)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["idle", "talk"])
    parser.add_argument("library")
    parser.add_argument("config")
    parser.add_argument("--name", required=True)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--peers", type=int, default=0)
    parser.add_argument("--go")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--size", type=int, default=65536)
    parser.add_argument("--publish")
    parser.add_argument("--collect")
    parser.add_argument("--messages", type=int, default=1000)
    arguments = parser.parse_args()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    {"idle": idle, "talk": talk}[arguments.what](Library(arguments.library), arguments, ended)


if __name__ == "__main__":
    main()
