#!/usr/bin/env python3
"""Random schedules of servers, senders and faults, each judged by what its lines say.

    outcomes.py schedules --seed 1 --count 200 --cells 5 --work DIR [--only NUMBER]
    outcomes.py stalls FILE

A schedule is a function of the seed and its number: up to three servers and two senders with random options,
and random things that happen to them. CELLS schedules go on at a time, each in a lab of its own. A line of
JSON for each that broke a rule, with everything in it, then the sum:

    {"seed","schedules","failed","messages","by_outcome","executed","repeated","events","latest_s",
     "stalled_s","servers_hung","seconds"}

`latest_s` is the longest that a message took past its deadline, `stalled_s` the longest that this process
itself waited for the processor, which `stalls` alone keeps in a file. CASTNET names the executable; the files
of a schedule that broke a rule stay in DIR/NUMBER. Standard library only.
"""

import argparse
import collections
import hashlib
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

CASTNET = os.environ.get("CASTNET", "castnet")
OUTCOMES = ("accepted", "rejected", "released", "expired", "unroutable", "lost")
# What a handler does to a message, by `--reply`.
EXECUTES = ("echo", "sha256", "none", "exec:cat")
REJECTS = ("reject", "exec:exit 65")
RELEASES = ("release", "exec:exit 75")
# How long a message may take past its deadline.
TOLERANCE = 0.2


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Plan:
    """What one schedule is made of."""

    def __init__(self, seed, number):
        self.number = number
        self.random = random.Random("%d/%d" % (seed, number))
        self.interval = self.random.choice(("200ms", "1s"))
        self.servers = [self.server(index) for index in range(self.random.randint(1, 3))]
        self.senders = [self.sender(index) for index in range(self.random.randint(1, 2))]
        self.events = self.happenings()

    def chance(self, share):
        return self.random.random() < share

    def server(self, index):
        pick = self.random.choice
        reply = pick(("echo",) * 8 + ("sha256", "none", "exec:cat") + REJECTS + RELEASES)
        return {
            "name": "s%d" % (index + 1),
            # Sometimes where the first sender is: then they have a Unix-domain socket.
            "host": "h1" if self.chance(0.15) else "h%d" % (index + 3),
            "reply": reply,
            "work": pick(("0s", "0s", "10ms", "50ms", "200ms", "1s")),
            "concurrency": pick((1, 4, 16, 64)),
            "delay_s": round(self.random.uniform(0.2, 1.2), 2) if self.chance(0.2) else 0,
        }

    def sender(self, index):
        pick = self.random.choice
        count = self.random.randint(20, 200)
        size = self.random.randint(16, 1024)
        if self.chance(0.1):
            count, size = self.random.randint(20, 60), self.random.randint(65536, 300000)
        seconds = self.random.uniform(0.5, 3.5)
        return {
            "name": "c%d" % (index + 1),
            "host": "h%d" % (index + 1),
            "kind": pick(("call", "call", "cast")),
            "receipt": pick(("received", "processed")),
            "deadline_ms": self.random.randint(300, 3000),
            "count": count,
            "size": size,
            "rate": round(count / seconds, 1),
            # At most three times the deadline behind the last.
            "in_flight": self.random.randint(-(-count // 3), count),
            "mandatory": self.chance(0.1),
            "server": "s1" if self.chance(0.1) else None,
            "seed": self.random.getrandbits(31),
            "policy": self.policy(),
            "pending_calls": 20 if self.chance(0.1) else None,
        }

    def policy(self):
        pick = self.random.choice
        policy = {
            "carrier": pick(("persistent", "ephemeral")),
            "balance": pick(("round-robin", "round-robin", "least-outstanding", "capacity")),
            "settle": pick(("received", "processed")),
            "retry": pick(("none", "none", "same", "other-member")),
            "idempotent": self.chance(0.35),
            "attempts": pick((1, 2, 2, 2, 3)),
        }
        if policy["carrier"] == "persistent":
            policy["heartbeat"] = pick(("100ms", "500ms", "2s"))
        else:
            policy["linger"] = pick(("0s", "500ms", "5s"))
            policy["share"] = self.chance(0.7)
        if self.chance(0.1):
            policy["backlog"] = 20
        return policy

    def happenings(self):
        """(when, what, who, how) in order; what lasts has its end among them."""
        events, faulty = [], set()
        for _ in range(self.random.randint(0, 4)):
            at = self.random.uniform(0.2, 3.5)
            lasts = self.random.uniform(0.2, 1.5)
            what = self.random.choice(("kill", "kill", "term", "stop", "stop-sender", "fault", "fault"))
            if what == "fault":
                host = self.random.choice(self.servers + self.senders)["host"]
                if host not in faulty:
                    events.append((at, "fault", host, self.fault() + ["%dms" % (lasts * 1000)]))
                faulty.add(host)
                continue
            who = self.random.randrange(len(self.senders if what == "stop-sender" else self.servers))
            events.append((at, what, who, None))
            if what in ("stop", "stop-sender"):
                events.append((at + lasts, what.replace("stop", "continue"), who, None))
            elif self.chance(0.7):
                events.append((at + lasts, "start", who, None))
        return sorted(events, key=lambda event: event[0])

    def fault(self):
        share = "%d%%" % self.random.randint(5, 40)
        faults = (["blackout"], ["blackout"], ["drop", share, "all", "both"], ["drop", "100%", "tcp", "in"])
        return list(self.random.choice(faults + (["link", "down"], ["dup", share])))

    def told(self):
        return {
            "interval": self.interval,
            "servers": self.servers,
            "senders": self.senders,
            "events": [[round(event[0], 2)] + list(event[1:]) for event in self.events],
        }


class Process:
    """A castnet on a host, with its lines in a file."""

    def __init__(self, netns, path, arguments):
        self.path = path
        self.stopped_at = None
        self.stopped_s = 0.0
        self.was_killed = self.was_asked = False
        with open(path, "wb") as out, open(path + ".log", "wb") as log:
            # `ip netns exec` becomes the command: it is the one that signals go to.
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", netns, CASTNET] + arguments, stdout=out, stderr=log,
                stdin=subprocess.DEVNULL)

    @property
    def lives(self):
        return self.process.poll() is None

    def signal(self, number):
        if self.lives:
            self.process.send_signal(number)

    def kill(self):
        self.was_killed = self.was_killed or self.lives
        self.signal(signal.SIGKILL)
        self.process.wait()

    def ask(self):
        self.was_asked = True
        self.signal(signal.SIGTERM)

    def stop(self):
        if self.lives and self.stopped_at is None:
            self.signal(signal.SIGSTOP)
            self.stopped_at = time.monotonic()

    def resume(self):
        if self.stopped_at is not None:
            self.signal(signal.SIGCONT)
            self.stopped_s += time.monotonic() - self.stopped_at
            self.stopped_at = None

    def ends(self, seconds):
        try:
            self.process.wait(max(0, seconds))
            return True
        except subprocess.TimeoutExpired:
            return False

    def lines(self):
        """Its lines; the last may be cut where it was killed."""
        with open(self.path, "rb") as file:
            for line in file:
                try:
                    yield json.loads(line)
                except ValueError:
                    pass

    def is_ready(self):
        with open(self.path, "rb") as file:
            return b'"ready"' in file.read()


class Cell:
    """A lab of five hosts: two for senders, three for servers."""

    def __init__(self, number):
        self.prefix = "cell%d" % number
        up = [CASTNET, "lab", "up", "--prefix", self.prefix, "--hosts", "5", "--json"]
        rows = subprocess.run(up, check=True, capture_output=True, text=True).stdout
        self.netns = {row["host"]: row["netns"] for row in map(json.loads, rows.splitlines())}

    def fault(self, host, words, log):
        """Puts a fault on for as long as its last word says."""
        command = [CASTNET, "lab", "fault", "--prefix", self.prefix, "--for", words[-1], host]
        return subprocess.Popen(command + words[:-1], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def down(self):
        subprocess.run([CASTNET, "lab", "down", "--prefix", self.prefix], check=False)


class Schedule:
    """One plan carried out in a cell."""

    def __init__(self, plan, cell, folder):
        self.plan, self.cell, self.folder = plan, cell, folder
        # Every start of every server.
        self.starts = [[] for _ in plan.servers]
        self.senders = []
        self.faults = []
        self.done = collections.Counter()
        self.hung = 0
        os.makedirs(folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def configure(self, name, policy="carrier: ephemeral", limits=""):
        with open(self.path(name + ".yaml"), "w") as file:
            file.write(
                "node:      {interface: eth0, cluster: n%d, name: %s}\n"
                "directory: {beacon: {interval: %s}}\n"
                "policies:  [{match: \"**\", %s}]\n%s"
                % (self.plan.number, name, self.plan.interval, policy, limits))
        return self.path(name + ".yaml")

    def serve(self, index):
        server = self.plan.servers[index]
        arguments = ["serve", self.configure(server["name"]), "work", "--reply", server["reply"]]
        arguments += ["--work", server["work"], "--concurrency", str(server["concurrency"])]
        arguments += ["--drain", "1s", "--json", "--log-level", "error"]
        path = self.path("%s.%d" % (server["name"], len(self.starts[index]) + 1))
        self.starts[index].append(Process(self.cell.netns[server["host"]], path, arguments))

    def send(self, sender):
        words = ["%s: %s" % (key, str(value).lower()) for key, value in sender["policy"].items()]
        limits = ""
        if sender["pending_calls"]:
            limits = "limits:    {pending-calls: %d}\n" % sender["pending_calls"]
        config = self.configure(sender["name"], ", ".join(words), limits)
        arguments = ["send", config, "work", "--kind", sender["kind"], "--list", "--json"]
        arguments += ["--deadline", "%dms" % sender["deadline_ms"], "--log-level", "error"]
        for option in ("count", "size", "rate", "in_flight", "seed"):
            arguments += ["--" + option.replace("_", "-"), str(sender[option])]
        if sender["kind"] == "cast":
            arguments += ["--receipt", sender["receipt"]]
        if sender["mandatory"]:
            arguments.append("--mandatory")
        if sender["server"]:
            arguments += ["--server", sender["server"]]
        netns = self.cell.netns[sender["host"]]
        self.senders.append(Process(netns, self.path(sender["name"]), arguments))

    def run(self):
        early = [index for index, server in enumerate(self.plan.servers) if not server["delay_s"]]
        for index in early:
            self.serve(index)
        self.wait_ready(early)
        for sender in self.plan.senders:
            self.send(sender)
        late = [
            (server["delay_s"], "start", index, None)
            for index, server in enumerate(self.plan.servers)
            if server["delay_s"]
        ]
        self.happen(sorted(self.plan.events + late, key=lambda event: event[0]))
        ended = [self.wait_for(*pair) for pair in zip(self.plan.senders, self.senders)]
        self.end()
        return ended

    def wait_ready(self, indices):
        end = time.monotonic() + 10
        while not all(self.starts[index][0].is_ready() for index in indices):
            if time.monotonic() > end:
                raise RuntimeError("a server is not up")
            time.sleep(0.02)

    def happen(self, events):
        begun, events = time.monotonic(), collections.deque(events)
        while events:
            at, what, who, how = events.popleft()
            time.sleep(max(0, begun + at - time.monotonic()))
            if what == "start" and self.starts[who] and self.starts[who][-1].lives:
                # It was asked to stop and has not yet, or nobody ended it.
                if self.starts[who][-1].was_asked and at < 12:
                    events.append((time.monotonic() - begun + 0.1, what, who, how))
                    events = collections.deque(sorted(events, key=lambda event: event[0]))
                continue
            self.do(what, who, how)

    def do(self, what, who, how):
        self.done[what] += 1
        if what == "start":
            return self.serve(who)
        if what == "fault":
            with open(self.path("faults.log"), "ab") as log:
                return self.faults.append(self.cell.fault(who, how, log))
        if what.endswith("sender"):
            process = self.senders[who]
        elif self.starts[who]:
            process = self.starts[who][-1]
        else:
            return None
        act = {"kill": process.kill, "term": process.ask, "stop": process.stop, "continue": process.resume}
        return act[what.split("-")[0]]()

    def wait_for(self, sender, process):
        """Whether it ends by itself, in the time that its deadlines give it."""
        process.resume()
        rounds = -(-sender["count"] // sender["in_flight"])
        most = sender["count"] / sender["rate"] + rounds * (sender["deadline_ms"] / 1000 + TOLERANCE) + 5
        if process.ends(most):
            return True
        process.kill()
        return False

    def end(self):
        for fault in self.faults:
            if fault.wait() != 0:
                self.done["fault-failed"] += 1
        servers = [process for starts in self.starts for process in starts]
        for process in servers:
            process.resume()
            process.ask()
        end = time.monotonic() + 8
        for process in servers:
            if not process.ends(end - time.monotonic()):
                self.hung += 1
                process.kill()

    def abandon(self):
        """Leaves no process behind, whatever went wrong."""
        for process in self.senders + [process for starts in self.starts for process in starts]:
            process.kill()
        for fault in self.faults:
            fault.terminate()
            fault.wait()


class Judge:
    """What is wrong with what a schedule's processes said."""

    def __init__(self, schedule, ended):
        self.schedule, self.plan = schedule, schedule.plan
        self.wrong = collections.Counter()
        self.examples = {}
        self.by_outcome = collections.Counter()
        self.messages = self.executed = self.repeated = 0
        self.latest = -999.0
        # By payload, which nobody sends twice: who looked at it, as (how it replies, id).
        self.handled = collections.defaultdict(list)
        self.leaving = sum(event[1] == "term" for event in self.plan.events)
        self.read_servers()
        for sender, process, has_ended in zip(self.plan.senders, schedule.senders, ended):
            self.judge(sender, process, has_ended)

    def complain(self, what, example=None):
        self.wrong[what] += 1
        self.examples.setdefault(what, example)

    def expect(self, right, what, example=None):
        if not right:
            self.complain(what, example)

    def read_servers(self):
        for server, starts in zip(self.plan.servers, self.schedule.starts):
            for process in starts:
                code = process.process.returncode
                # Before it is ready the signal may find nobody who listens for it.
                ended_well = code in (0, 1) or code == -signal.SIGTERM and not process.is_ready()
                if not process.was_killed:
                    self.expect(process.was_asked and ended_well, "a server ended by itself", code)
                for line in process.lines():
                    if line.get("event") == "message":
                        self.handled[line["sha256"]].append((server["reply"], line["id"]))
        self.executed = sum(
            any(reply in EXECUTES for reply, _ in looks) for looks in self.handled.values())
        self.repeated = sum(len(looks) > 1 for looks in self.handled.values())

    def judge(self, sender, process, has_ended):
        name = sender["name"]
        sent, ends, summary = {}, {}, None
        sent_lines = 0
        for line in process.lines():
            if line["event"] == "sent":
                sent_lines += 1
                sent[line["id"]] = line
            elif line["event"] == "outcome":
                self.expect(line["id"] not in ends, "two outcomes of one message", line["id"])
                ends[line["id"]] = line
            elif line["event"] == "summary":
                summary = line
        self.messages += len(ends)
        counts = collections.Counter(end["outcome"] for end in ends.values())
        self.by_outcome += counts
        self.expect(has_ended, "a sender does not end", name)
        if has_ended:
            self.judge_sum(sender, process.process.returncode, sent_lines, sent, ends, counts, summary)
        for number, end in ends.items():
            # A sender that stands still can tell nobody.
            late = end["latency_s"] - sender["deadline_ms"] / 1000 - process.stopped_s
            self.latest = max(self.latest, late)
            self.expect(late <= TOLERANCE, "later than its deadline", end)
            if number in sent:
                self.judge_message(sender, sent[number], end)

    def judge_sum(self, sender, code, sent_lines, sent, ends, counts, summary):
        all_sent = sent_lines == len(sent) == sender["count"]
        self.expect(all_sent, "a message is not told", [sent_lines, len(sent), sender["count"]])
        self.expect(sent.keys() == ends.keys(), "a message without an outcome", len(sent) - len(ends))
        self.expect(set(counts) <= set(OUTCOMES), "an outcome of another name", dict(counts))
        all_accepted = counts["accepted"] == sender["count"]
        self.expect(code == (0 if all_accepted else 1), "the exit code", [code, dict(counts)])
        if summary is None:
            return self.complain("no summary", sender["name"])
        agree = summary["by_outcome"] == dict(counts) and summary["sent"] == sum(counts.values())
        self.expect(agree, "the summary says otherwise", [summary["by_outcome"], dict(counts)])

    def judge_message(self, sender, sent, end):
        outcome, policy = end["outcome"], sender["policy"]
        looks = self.handled.get(sent["sha256"], [])
        executed = [look for look in looks if look[0] in EXECUTES]
        ended = [look for look in looks if look[0] not in RELEASES]
        example = {"end": end, "looks": looks, "policy": policy}
        may_repeat = policy["idempotent"] and policy["retry"] != "none"
        # A handler that releases has not executed.
        self.expect(
            len(ended) <= (policy["attempts"] if may_repeat else 1), "executed more often than allowed",
            example)
        # What a leaving server gives back goes on, however often it was tried.
        tries = policy["attempts"] if policy["retry"] != "none" else 1
        self.expect(len(looks) <= tries + self.leaving, "tried more often than allowed", example)
        is_handled = sender["kind"] == "call" or sender["receipt"] == "processed"
        if outcome == "accepted" and is_handled:
            self.expect(executed, "accepted, not executed", example)
            self.expect(not executed or end["id"] in [look[1] for look in executed], "another id", example)
            if sender["kind"] == "call" and executed:
                replies = [self.reply(look[0], sent["sha256"]) for look in executed]
                self.expect(end["reply_sha256"] in replies, "another call's reply", example)
        elif outcome == "rejected":
            self.expect(len(ended) > len(executed), "rejected, but by no handler", example)
            # With leave to repeat it may have been executed before, by another server.
            self.expect(not executed or may_repeat, "rejected, but executed", example)
        elif outcome in ("released", "unroutable"):
            self.expect(not executed, "%s, but begun by a handler" % outcome, example)
            self.expect(outcome == "released" or sender["mandatory"], "unroutable, but it may wait", example)

    @staticmethod
    def reply(mode, payload):
        return {"sha256": sha256(payload.encode()), "none": sha256(b"")}.get(mode, payload)


class Stalls(threading.Thread):
    """How long this process waits for the processor: a busy machine, not the product, is late then."""

    def __init__(self, path=None):
        super().__init__(daemon=True)
        self.longest, self.path = 0.0, path

    def run(self):
        while True:
            before = time.monotonic()
            time.sleep(0.02)
            stall = time.monotonic() - before - 0.02
            if stall > self.longest:
                self.longest = stall
                self.tell()

    def tell(self):
        if self.path:
            with open(self.path, "w") as file:
                file.write("%.3f\n" % self.longest)


class Sum:
    """What all schedules together came to."""

    def __init__(self, seed):
        self.seed, self.begun = seed, time.monotonic()
        self.lock = threading.Lock()
        self.schedules = self.failed = self.messages = self.executed = self.repeated = self.hung = 0
        self.by_outcome, self.events = collections.Counter(), collections.Counter()
        self.latest = -999.0

    def add(self, schedule, judge):
        with self.lock:
            self.schedules += 1
            self.messages += judge.messages
            self.executed += judge.executed
            self.repeated += judge.repeated
            self.hung += schedule.hung
            self.by_outcome += judge.by_outcome
            self.events += schedule.done
            self.latest = max(self.latest, judge.latest)
            if judge.wrong:
                self.complain(schedule.plan, dict(judge.wrong), judge.examples)

    def fell(self, plan, error):
        with self.lock:
            self.schedules += 1
            self.complain(plan, {"the schedule itself": 1}, repr(error))

    def complain(self, plan, wrong, examples):
        self.failed += 1
        line = {"schedule": plan.number, "seed": self.seed, "wrong": wrong, "examples": examples}
        print(json.dumps({**line, "plan": plan.told()}), flush=True)

    def tell(self, stalls):
        line = {
            "seed": self.seed,
            "schedules": self.schedules,
            "failed": self.failed,
            "messages": self.messages,
            "by_outcome": self.by_outcome,
            "executed": self.executed,
            "repeated": self.repeated,
            "events": self.events,
            "latest_s": round(self.latest, 3),
            "stalled_s": round(stalls.longest, 3),
            "servers_hung": self.hung,
            "seconds": round(time.monotonic() - self.begun, 1),
        }
        print(json.dumps(line), flush=True)


def work(arguments, cell, numbers, total):
    """Schedules one behind the other, until none is left."""
    while True:
        try:
            number = numbers.get_nowait()
        except queue.Empty:
            return
        plan = Plan(arguments.seed, number)
        folder = os.path.join(arguments.work, str(number))
        schedule = Schedule(plan, cell, folder)
        try:
            judge = Judge(schedule, schedule.run())
            total.add(schedule, judge)
            if not judge.wrong:
                shutil.rmtree(folder)
        except Exception as error:  # of the schedule, which is then the one that failed
            total.fell(plan, error)
        finally:
            schedule.abandon()


def schedules(arguments):
    numbers = queue.Queue()
    for number in range(arguments.count) if arguments.only is None else [arguments.only]:
        numbers.put(number)
    cells = [Cell(number + 1) for number in range(min(arguments.cells, numbers.qsize()))]
    total, stalls = Sum(arguments.seed), Stalls()
    stalls.start()
    workers = [threading.Thread(target=work, args=(arguments, cell, numbers, total)) for cell in cells]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for cell in cells:
        cell.down()
    total.tell(stalls)
    sys.exit(total.failed > 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("schedules")
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--count", type=int, default=200)
    command.add_argument("--cells", type=int, default=5, help="schedules at a time")
    command.add_argument("--work", required=True, help="where the files of the schedules are")
    command.add_argument("--only", type=int, help="this schedule and no other")
    command.set_defaults(run=schedules)
    command = commands.add_parser("stalls")
    command.add_argument("file")
    command.set_defaults(run=lambda arguments: Stalls(arguments.file).run())
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
