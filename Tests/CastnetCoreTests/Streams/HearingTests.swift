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
        let late = hearing.toldByLink(now: at(300))
        let again = hearing.toldByLink(now: at(350))
        #expect(!soon && late && !again && hearing.isDeaf)
        var changes: [Int64] = []
        for time in stride(from: 400 as Int64, through: 2000, by: 100)
        where hearing.heardGroup(now: at(time)) { changes.append(time) }
        #expect(changes == [1400] && !hearing.isDeaf)
    }

    @Test("what the group brings now and then is no proof while the sender has to tell")
    func told() {
        var hearing = Hearing(now: at(0))
        _ = hearing.toldByLink(now: at(500))
        var changes: [Int64] = []
        for time in stride(from: 1000 as Int64, through: 9000, by: 1000) {
            if hearing.heardGroup(now: at(time)) { changes.append(time) }
            if time < 5000 { _ = hearing.toldByLink(now: at(time + 400)) }
        }
        #expect(changes == [6000])
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
