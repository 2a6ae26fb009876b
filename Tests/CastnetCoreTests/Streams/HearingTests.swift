import Testing

@testable import CastnetCore

@Suite struct HearingTests {
    private func at(_ milliseconds: Int64) -> Instant {
        Instant(nanoseconds: 1_000_000_000) + .milliseconds(milliseconds)
    }

    @Test("only silence of the group makes a member deaf, and only a second of it makes it hear again")
    func deaf() {
        var hearing = Hearing(now: at(0))
        let soon = hearing.toldByLink(now: at(299))
        let once = hearing.toldByLink(now: at(300))
        let atOnce = hearing.toldByLink(now: at(350))
        let late = hearing.toldByLink(now: at(400))
        let again = hearing.toldByLink(now: at(450))
        #expect(!soon && !once && !atOnce && late && !again && hearing.isDeaf)
        var changes: [Int64] = []
        for time in stride(from: 500 as Int64, through: 2000, by: 100)
        where hearing.heardGroup(now: at(time)) { changes.append(time) }
        #expect(changes == [1500] && !hearing.isDeaf)
    }

    @Test("what the group brings now and then is no proof while the sender has to tell")
    func told() {
        var hearing = Hearing(now: at(0))
        for time in [500, 900] as [Int64] { _ = hearing.toldByLink(now: at(time)) }
        var changes: [Int64] = []
        for time in stride(from: 1000 as Int64, through: 9000, by: 1000) {
            if hearing.heardGroup(now: at(time)) { changes.append(time) }
            if time < 5000 { _ = hearing.toldByLink(now: at(time + 400)) }
        }
        #expect(changes == [6000])
    }

    @Test("what is told at once after an outage of everything makes nobody deaf")
    func outage() {
        var hearing = Hearing(now: at(0))
        for time in 5000..<(5090 as Int64) { _ = hearing.toldByLink(now: at(time)) }
        _ = hearing.heardGroup(now: at(5090))
        let isDeaf = hearing.toldByLink(now: at(5200))
        #expect(!isDeaf)
    }

    @Test("a member that hears something in time stays as it is")
    func lossy() {
        var hearing = Hearing(now: at(0))
        for time in stride(from: 0 as Int64, through: 5000, by: 250) {
            _ = hearing.heardGroup(now: at(time))
            let isDeaf = hearing.toldByLink(now: at(time + 200))
            #expect(!isDeaf)
        }
    }
}
