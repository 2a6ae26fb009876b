import Castnet
import CastnetTestKit
import Testing

/// The same checks over every carrier, each on ports of its own.
@Suite("Conformance", .serialized, .timeLimit(.minutes(3))) struct ConformanceTests {
    private static let checks = ConformanceCheck.allCases

    private func run(_ check: ConformanceCheck, _ carrier: CarrierUnderTest) async throws {
        let place = try #require(CarrierUnderTest.all.firstIndex { $0.name == carrier.name })
        let number = try #require(Self.checks.firstIndex(of: check))
        try await check.run(carrier, port: 18_400 + 10 * (place * Self.checks.count + number))
    }

    @Test(
        .enabled(if: BuildFacts.hasMulticast, "built without the Multicast trait"),
        arguments: checks.filter { $0.isFor(.multicast) })
    func multicast(check: ConformanceCheck) async throws { try await run(check, .multicast) }

    @Test(arguments: checks.filter { $0.isFor(.persistent) })
    func persistent(check: ConformanceCheck) async throws { try await run(check, .persistent) }

    @Test(arguments: checks.filter { $0.isFor(.ephemeral) })
    func ephemeral(check: ConformanceCheck) async throws { try await run(check, .ephemeral) }

    @Test(arguments: checks.filter { $0.isFor(.local) })
    func local(check: ConformanceCheck) async throws { try await run(check, .local) }
}
