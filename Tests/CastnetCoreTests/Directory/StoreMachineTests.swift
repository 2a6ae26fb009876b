import CastnetCore
import CastnetTestKit
import NIOCore
import Testing

/// A machine with a store in memory and time of its own.
private struct StoreBench: ~Copyable {
    var machine: StoreMachine
    var now = Instant(nanoseconds: 0)
    /// Whether the store answers.
    var isUp = true
    var values: [String: ByteBuffer] = [:]
    var names: Set<String> = []
    var gone: [String] = []
    var counters = CounterSet()
    var events: [StoreEvent] = []
    var connects: [Instant] = []
    var puts: [Instant] = []
    let timeToLive: Duration

    init(timeToLive: Duration = .seconds(10), seed: UInt64 = 1, membersMax: Int = 1000) {
        var rules = StoreMachine.Rules()
        rules.timeToLive = timeToLive
        rules.membersMax = membersMax
        self.timeToLive = timeToLive
        machine = StoreMachine(name: "own", cluster: "default", rules: rules, seed: seed, now: now)
        machine.publish(Self.record("own"), now: now)
    }

    static func record(_ name: String, _ incarnation: UInt64 = 1, version: UInt64 = 1) -> NodeRecord {
        NodeRecord(
            identity: NodeIdentity(name: name, incarnation: Incarnation(incarnation)), version: version)
    }

    mutating func set(_ name: String, _ incarnation: UInt64 = 1, version: UInt64 = 1) {
        values[name] = StoredRecord.encode(Self.record(name, incarnation, version: version))
    }

    /// Runs what is due until `end`, the time in between skipped.
    mutating func run(_ duration: Duration) {
        let end = now + duration
        var steps = 0
        while steps < 100_000 {
            steps += 1
            let step = machine.next(now: now)
            if case .rest(let until) = step {
                guard until <= end else { break }
                now = max(now + .microseconds(1), until)
                continue
            }
            if step == .end { break }
            carryOut(step)
            take()
            // An exchange takes its time.
            now = now + .microseconds(100)
        }
        #expect(steps < 100_000, "it never rests")
        take()
        now = max(now, end)
    }

    private mutating func carryOut(_ step: StoreStep) {
        if case .connect = step { connects.append(now) }
        guard isUp else { return machine.failed(now: now) }
        switch step {
        case .connect: machine.connected(now: now)
        case .put(let record):
            puts.append(now)
            values[record.identity.name] = StoredRecord.encode(record)
            machine.stored(.taken, now: now)
        case .scan: machine.scanned(values.keys.sorted(), next: "0", now: now)
        case .fetch(let names):
            for name in names {
                machine.fetched(name, values[name].map { .bytes($0) } ?? .absent, now: now)
            }
        case .remove(let identity): values[identity.name] = nil
        case .rest, .end: break
        }
    }

    private mutating func take() {
        for event in machine.takeEvents() {
            switch event {
            case .found(let record): names.insert(record.identity.name)
            case .gone(let name):
                names.remove(name)
                gone.append(name)
            case .count(let counter): counters.add(counter)
            default: events.append(event)
            }
        }
    }
}

@Suite struct StoreMachineTests {
    @Test func `everything is read at the start, and changes at once`() {
        var bench = StoreBench()
        for number in 0..<100 { bench.set("n\(number)") }
        bench.run(.milliseconds(50))
        #expect(bench.names.count == 100 && bench.puts.count == 1)
        bench.set("late")
        bench.machine.notified("late")
        bench.run(.milliseconds(1))
        #expect(bench.names.contains("late"))
        bench.values["late"] = nil
        bench.machine.notified("late")
        bench.run(.milliseconds(1))
        #expect(bench.gone == ["late"])
    }

    @Test func `the own record is refreshed three times in its life, and written at every change`() {
        var bench = StoreBench()
        bench.run(.seconds(100))
        #expect((30...38).contains(bench.puts.count), "\(bench.puts.count)")
        let pauses = zip(bench.puts.dropFirst(), bench.puts).map { $0 - $1 }
        #expect((pauses.max() ?? .zero) <= bench.timeToLive / 3 + .milliseconds(1))
        let before = bench.puts.count
        for version in 2...100 as ClosedRange<UInt64> {
            bench.machine.publish(StoreBench.record("own", version: version), now: bench.now)
            bench.run(.milliseconds(1))
        }
        bench.run(.milliseconds(50))
        #expect((2...4).contains(bench.puts.count - before), "a burst is written a few times only")
        #expect(bench.values["own"] == StoredRecord.encode(StoreBench.record("own", version: 100)))
    }

    @Test func `a record that expires is noticed without a notification`() {
        var bench = StoreBench()
        for number in 0..<10 { bench.set("n\(number)") }
        bench.run(.seconds(15))
        bench.values["n3"] = nil
        bench.run(.seconds(5))
        #expect(bench.gone == ["n3"])
        bench.set("n3")
        bench.run(.seconds(5))
        #expect(bench.names.contains("n3"), "it comes back as it goes")
    }

    @Test func `a change whose notification was lost is found in time`() {
        var bench = StoreBench()
        for number in 0..<150 { bench.set("n\(number)") }
        bench.run(.seconds(1))
        let before = bench.counters[.redisRecordsRead]
        bench.run(.seconds(30))
        // 64 in turns with each look: 150 take three.
        #expect(bench.counters[.redisRecordsRead] - before >= 150)
    }

    @Test func `an unreachable store withdraws nobody, and is told once with its age`() throws {
        var bench = StoreBench()
        for number in 0..<10 { bench.set("n\(number)") }
        bench.run(.seconds(20))
        bench.isUp = false
        bench.run(.seconds(1000))
        #expect(bench.gone.isEmpty && bench.names.count == 10)
        guard case .down(let age?, known: 10) = try #require(bench.events.first), bench.events.count == 1
        else {
            Issue.record("\(bench.events)")
            return
        }
        #expect(age <= .seconds(10))
        let pauses = zip(bench.connects.dropFirst(3), bench.connects.dropFirst(2)).map { $0 - $1 }
        #expect((pauses.max() ?? .zero) <= .seconds(5) && (pauses.min() ?? .zero) >= .milliseconds(400))
        bench.isUp = true
        bench.run(.seconds(6))
        #expect(bench.events.last == .back(known: 10) && bench.names.count == 10)
    }

    @Test func `a store that comes back empty gives everybody the time of one life`() {
        var bench = StoreBench()
        for number in 0..<10 { bench.set("n\(number)") }
        bench.run(.seconds(20))
        bench.isUp = false
        bench.run(.seconds(2))
        bench.values = [:]
        bench.isUp = true
        bench.run(.seconds(5))
        #expect(bench.gone.isEmpty && bench.values["own"] != nil)
        for number in 0..<9 { bench.set("n\(number)") }
        bench.run(.seconds(4))
        #expect(bench.gone.isEmpty)
        bench.run(.seconds(8))
        #expect(bench.gone == ["n9"], "the one that never came back")
    }

    @Test func `records that live shorter than others need to come back wait for them all the same`() {
        var bench = StoreBench(timeToLive: .seconds(3))
        for number in 0..<10 { bench.set("n\(number)") }
        bench.run(.seconds(20))
        bench.isUp = false
        bench.run(.seconds(2))
        bench.values = ["n0": bench.values["n0"]!]
        bench.isUp = true
        bench.run(.seconds(2))
        // Who has been seen since the return is missed as soon as ever.
        bench.values["n0"] = nil
        bench.run(.milliseconds(3500))
        #expect(bench.gone == ["n0"])
        for number in 1..<9 { bench.set("n\(number)") }
        bench.run(.seconds(8))
        #expect(bench.gone == ["n0", "n9"], "the one that never came back")
    }

    @Test func `a store that is emptied while it is used does too`() {
        var bench = StoreBench()
        for number in 0..<10 { bench.set("n\(number)") }
        bench.run(.seconds(20))
        bench.values = [:]
        bench.run(.seconds(6))
        #expect(bench.gone.isEmpty)
        for number in 0..<9 { bench.set("n\(number)") }
        bench.run(.seconds(20))
        #expect(bench.gone == ["n9"])
    }

    @Test func `a withdrawal counts at once, also right after a return`() {
        var bench = StoreBench()
        for number in 0..<10 { bench.set("n\(number)") }
        bench.run(.seconds(20))
        bench.machine.failed(now: bench.now)
        bench.run(.seconds(1))
        bench.values["n4"] = nil
        bench.machine.notified("n4")
        bench.run(.milliseconds(10))
        #expect(bench.gone == ["n4"])
    }

    @Test func `a spoilt value is told once and its node is gone when it stays spoilt`() {
        var bench = StoreBench()
        for number in 0..<10 { bench.set("n\(number)") }
        bench.run(.seconds(20))
        bench.values["n1"] = ByteBuffer(string: "x")
        bench.values["stranger"] = ByteBuffer(string: "y")
        bench.machine.notified("n1")
        bench.run(.seconds(6))
        #expect(bench.gone.isEmpty)
        bench.run(.seconds(12))
        #expect(bench.gone == ["n1"] && bench.counters[.redisRecordsRejected] >= 3)
        #expect(bench.events.count == 1)
        let before = bench.counters[.redisRecordsRejected]
        bench.run(.seconds(30))
        #expect(bench.counters[.redisRecordsRejected] - before <= 4, "it is not read with every look")
    }

    @Test func `the own name is nobody's, and a newer start of it is told once`() {
        var bench = StoreBench()
        bench.run(.seconds(1))
        bench.machine.notified("own")
        bench.run(.seconds(1))
        #expect(bench.names.isEmpty && bench.counters[.redisRecordsRead] == 0)
        for _ in 0..<3 { bench.machine.stored(.superseded, now: bench.now) }
        bench.run(.milliseconds(1))
        #expect(bench.events == [.superseded] && bench.counters[.redisRecordsRefused] == 3)
    }

    @Test func `stopping takes the record back where there is a connection, and ends in any case`() {
        var up = StoreBench()
        up.run(.seconds(1))
        #expect(up.values["own"] != nil)
        up.machine.stop()
        up.run(.seconds(1))
        let after = up.machine.next(now: up.now)
        #expect(up.values["own"] == nil && after == .end)
        var down = StoreBench()
        down.isUp = false
        down.run(.seconds(1))
        down.machine.stop()
        let ended = down.machine.next(now: down.now)
        #expect(ended == .end)
    }

    @Test func `any order of events leaves it bounded and alive`() {
        let seed = UInt64.random(in: 1...1 << 40)
        for round in 0..<50 {
            var random = SeededGenerator(seed: seed + UInt64(round))
            var bench = StoreBench(seed: seed + UInt64(round), membersMax: 20)
            for _ in 0..<300 {
                let name = "n\(Int.random(in: 0..<40, using: &random))"
                switch Int.random(in: 0..<9, using: &random) {
                case 0: bench.values[name] = nil
                case 1: bench.values[name] = ByteBuffer(string: "garbage")
                case 2...3: bench.set(name, .random(in: 1...5, using: &random))
                case 4: bench.machine.notified(Bool.random(using: &random) ? name : "no name")
                case 5: bench.isUp.toggle()
                case 6: bench.machine.failed(now: bench.now)
                case 7: bench.machine.fetched(name, .foreign, now: bench.now)
                default: bench.machine.scanned([name, ""], next: "7", now: bench.now)
                }
                bench.run(.milliseconds(.random(in: 0...3000, using: &random)))
                #expect(bench.names.count <= 20, "seed \(seed + UInt64(round))")
            }
            bench.isUp = true
            bench.values = bench.values.filter { $0.key == "own" }
            bench.run(.seconds(120))
            #expect(bench.names.isEmpty, "seed \(seed + UInt64(round))")
            for number in 0..<15 { bench.set("n\(number)", 9) }
            bench.run(.seconds(60))
            #expect(bench.names.count == 15, "seed \(seed + UInt64(round))")
        }
    }
}
