import Castnet
import CastnetCore
import NIOCore
import Testing

/// What holds a sender back lets it go on again, and leaves no gap.
@Suite(.timeLimit(.minutes(1))) struct BackPressureTests {
    @Test func aSendWithoutRoomTakesNoNumber() throws {
        let sender = Sender(router: Router(table: PolicyTable()))
        let topic = try Topic("agents")
        #expect(sender.numberedIfRoom(topic, count: 5) { _ in false } == nil)
        #expect(sender.numberedIfRoom(topic, count: 5) { $0 == 1 } == 5)
        #expect(sender.numberedIfRoom(topic, count: 1) { _ in false } == nil)
        #expect(sender.numbered(topic) { $0 } == 6)
    }
}
