// swift-tools-version: 6.2
import PackageDescription

/// What each of the three links: Castnet, and the group that ends a service on SIGTERM.
let dependencies: [Target.Dependency] = [
    .product(name: "Castnet", package: "castnet"),
    .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
    .product(name: "Logging", package: "swift-log"),
]

let package = Package(
    name: "control-plane",
    platforms: [.macOS(.v26)],
    dependencies: [
        .package(name: "castnet", path: "../.."),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    ],
    targets: [
        .executableTarget(name: "api", dependencies: [.product(name: "Castnet", package: "castnet")]),
        // The code of README.md; a test compares the two.
        .executableTarget(name: "snippet", dependencies: [.product(name: "Castnet", package: "castnet")]),
        .executableTarget(name: "scheduler", dependencies: dependencies),
        .executableTarget(name: "agent", dependencies: dependencies),
    ]
)
