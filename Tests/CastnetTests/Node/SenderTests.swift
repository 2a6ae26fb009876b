import CastnetCore
import Testing

@testable import Castnet

@Suite("Numbers of messages") struct SenderTests {
    @Test func `of more topics than are remembered no number comes twice, and each topic's grow`() throws {
        let sender = Sender(router: Router(table: PolicyTable()), topicsMax: 4)
        var last: [Topic: UInt64] = [:]
        for round in 0..<50 {
            let topic = try Topic("t\(round * 7 % 9)")
            let first = sender.numbered(topic, count: 3) { $0 }
            #expect(first > last[topic, default: 0])
            last[topic] = first + 2
            let next = sender.numberedIfRoom(topic, count: 1) { _ in true }
            #expect(next == first + 3)
            last[topic] = first + 3
        }
        #expect(sender.numberedIfRoom(try Topic("t1"), count: 1) { _ in false } == nil)
    }
}
