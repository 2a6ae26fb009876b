import CastnetCore
import Foundation
import NIOCore
import Testing

/// Replays what the fuzzers of Tests/Fuzz found worth keeping, under the rules that they watch.
@Suite("Link corpora")
struct LinkCorpusTests {
    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("../../Fuzz/corpus").standardizedFileURL

    /// Plays all inputs of a target; each that breaks a rule is an issue.
    private func replay(_ target: LinkRules.Target) throws -> LinkRules.Reached {
        let files = try FileManager.default.contentsOfDirectory(
            at: Self.folder.appendingPathComponent(target.rawValue), includingPropertiesForKeys: nil)
        #expect(files.count > 30)
        var reached = LinkRules.Reached()
        for file in files {
            let input = Array(try Data(contentsOf: file))
            do { try LinkRules.check(target, input, &reached) } catch {
                Issue.record("\(target)/\(file.lastPathComponent): \(error)")
            }
        }
        return reached
    }

    @Test("hellos are refused or say the same again, and both sides judge them alike")
    func hello() throws {
        let reached = try replay(.hello)
        #expect(reached.errors == [.magic, .version, .range, .truncated, .tooLong, .name, .text])
        #expect(reached.closes == [.version, .cluster, .ownNode, .wrongNode])
        #expect(reached.opened > 5)
    }

    @Test("the same packets come out of a stream however it is cut, and say the same again")
    func packets() throws {
        let reached = try replay(.packets)
        let kinds = PacketVectors.all.map { Array(PacketVectors.buffer(hex: $0.hex).readableBytesView)[4] }
        #expect(reached.kinds.isSuperset(of: kinds))
        // Keys are looked at in frames only.
        #expect(reached.errors == Set(WireError.allCases).subtracting([.key]))
    }

    @Test("whatever happens to a link, its two machines and the parts of its messages keep their rules")
    func machine() throws {
        let reached = try replay(.machine)
        #expect(reached.closes == Set(LinkMachine.CloseReason.allCases))
        #expect(reached.opened > 50)
        #expect(reached.taken > 50)
        #expect(reached.whole > 20)
    }

    @Test("the packets of the document keep the rules, too", arguments: PacketVectors.all)
    func vectors(vector: PacketVectors.Vector) throws {
        let bytes = Array(PacketVectors.buffer(hex: vector.hex).readableBytesView)
        var reached = LinkRules.Reached()
        try LinkRules.check(.packets, [0x40] + bytes, &reached)
        #expect(reached.kinds == [bytes[4]])
    }
}
