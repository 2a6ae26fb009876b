// swift-tools-version: 6.2
import PackageDescription

/// Every target speaks the same dialect; the unsafe island adds strict memory safety on top.
let dialect: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

/// True only where libpgm is wanted: without the trait nothing below needs it.
let multicast = TargetDependencyCondition.when(traits: ["Multicast"])
/// The same for hiredis.
let redis = TargetDependencyCondition.when(traits: ["Redis"])

let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioHTTP = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let nioFoundation = Target.Dependency.product(name: "NIOFoundationCompat", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let deque = Target.Dependency.product(name: "DequeModule", package: "swift-collections")
let heap = Target.Dependency.product(name: "HeapModule", package: "swift-collections")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")

let package = Package(
    name: "castnet",
    platforms: [.macOS(.v26)],
    products: [
        .library(name: "Castnet", targets: ["Castnet"]),
        .library(name: "CastnetTestKit", targets: ["CastnetTestKit"]),
        .executable(name: "castnet", targets: ["CastnetCLI"]),
    ],
    traits: [
        .trait(name: "Multicast", description: "Reliable multicast over OpenPGM; needs libpgm-dev."),
        .trait(name: "Redis", description: "Redis as a source of nodes, over hiredis; needs libhiredis-dev."),
        .default(enabledTraits: ["Multicast", "Redis"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.0"),
        .package(url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.0"),
    ],
    targets: [
        .systemLibrary(name: "CPGM", pkgConfig: "openpgm-5.3", providers: [.apt(["libpgm-dev"])]),
        .target(
            name: "COpenPGM",
            dependencies: [.target(name: "CPGM", condition: multicast)],
            cSettings: [
                .define("CASTNET_MULTICAST", .when(traits: ["Multicast"])),
                .define("_GNU_SOURCE"),
            ]
        ),
        // Its pkg-config file holds a flag that the package manager refuses, so the module names the library.
        .systemLibrary(name: "CHiredis", providers: [.apt(["libhiredis-dev"])]),
        .target(name: "CastnetCore", dependencies: [nioCore, deque, heap], swiftSettings: dialect),
        .target(
            name: "CastnetMulticast",
            dependencies: ["CastnetCore", "COpenPGM", nioCore, deque, logging],
            swiftSettings: dialect + [.strictMemorySafety()]
        ),
        .target(
            name: "CastnetRedis",
            dependencies: ["CastnetCore", .target(name: "CHiredis", condition: redis), nioCore, logging],
            swiftSettings: dialect + [.strictMemorySafety()]
        ),
        .target(
            name: "Castnet",
            dependencies: [
                "CastnetCore", "CastnetMulticast", "CastnetRedis", nioCore, nioPosix, nioHTTP, nioFoundation,
                deque,
                logging,
                .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "Yams", package: "Yams"),
            ],
            swiftSettings: dialect
        ),
        .target(
            name: "CastnetLab",
            dependencies: [.product(name: "Subprocess", package: "swift-subprocess")],
            swiftSettings: dialect
        ),
        .target(name: "CDigest"),
        .executableTarget(
            name: "CastnetCLI",
            dependencies: [
                "Castnet", "CastnetLab", "CDigest", nioCore, nioPosix, nioHTTP, nioFoundation, logging,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: dialect
        ),
        .target(
            name: "CastnetTestKit",
            dependencies: [
                "CastnetCore", "Castnet", nioCore, deque, logging,
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ],
            swiftSettings: dialect),
        .testTarget(
            name: "CastnetCoreTests", dependencies: ["CastnetCore", "CastnetTestKit", nioCore],
            swiftSettings: dialect),
        .testTarget(
            name: "CastnetMulticastTests",
            dependencies: [
                "CastnetMulticast", "CastnetCore", "COpenPGM", "CastnetTestKit", "CastnetLab", nioCore,
            ],
            swiftSettings: dialect),
        .testTarget(
            name: "CastnetRedisTests",
            dependencies: [
                "CastnetRedis", "CastnetCore", "Castnet", "CastnetTestKit", nioCore, nioPosix, logging,
            ],
            swiftSettings: dialect),
        .testTarget(
            name: "CastnetTests",
            dependencies: ["Castnet", "CastnetCore", "CastnetTestKit", nioCore, nioPosix, logging],
            exclude: ["Fixtures"],
            swiftSettings: dialect),
        .testTarget(
            name: "SimulationTests", dependencies: ["CastnetCore", "CastnetTestKit", nioCore],
            swiftSettings: dialect),
        .executableTarget(
            name: "Simulator",
            dependencies: [
                "CastnetCore", "CastnetTestKit",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Tests/Simulator", swiftSettings: dialect),
        .executableTarget(
            name: "Cycles",
            dependencies: [
                "Castnet", nioCore, .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Tests/Cycles", swiftSettings: dialect),
        .executableTarget(
            name: "Workloads",
            dependencies: [
                "Castnet", "CastnetCore", "CastnetTestKit", nioCore, logging,
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Tests/Workloads", swiftSettings: dialect),
        .testTarget(
            name: "LabTests", dependencies: ["CastnetLab", "CastnetCLI", "Castnet", "CastnetTestKit"],
            swiftSettings: dialect),
        .testTarget(name: "TidyTests", swiftSettings: dialect),
    ]
)
