// swift-tools-version: 6.2
// The link targets of run.sh. A package of its own, since its library is of no use without libFuzzer, which
// brings `main`: a target of the root's package would be built by every `swift build`.
import PackageDescription

let dialect: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    // Only what is judged guides the fuzzer; all is built with the address sanitizer.
    .unsafeFlags(["-sanitize=fuzzer"]),
]

let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")

let package = Package(
    name: "castnet-fuzz",
    platforms: [.macOS(.v26)],
    products: [.library(name: "LinkFuzz", type: .static, targets: ["LinkFuzz"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    ],
    targets: [
        // Core is a link to Sources/CastnetCore: it is no product, and opens itself to its own package only.
        // Of it what links stand on; all of it would double the time that the build takes.
        .target(
            name: "CastnetCore",
            dependencies: [
                nioCore, .product(name: "DequeModule", package: "swift-collections"),
            ],
            path: "Core",
            sources: [
                "Links/ChunkQueue.swift", "Links/LinkMachine.swift", "Links/PartAssembler.swift", "Messages",
                "Time/Instant.swift", "Topics/Topic.swift", "Wire/ByteBuffer+Wire.swift",
                "Wire/FrameWire.swift", "Wire/Packet.swift", "Wire/PacketDecoder.swift",
                "Wire/PacketEncoder.swift", "Wire/RepairPacket.swift", "Wire/WireError.swift",
            ],
            swiftSettings: dialect),
        .target(
            name: "LinkFuzz", dependencies: ["CastnetCore", nioCore], path: "Links", swiftSettings: dialect),
    ]
)
