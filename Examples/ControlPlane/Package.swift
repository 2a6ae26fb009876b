// swift-tools-version: 6.2
import PackageDescription

let castnet = Target.Dependency.product(name: "Castnet", package: "castnet")

let package = Package(
    name: "control-plane",
    platforms: [.macOS(.v26)],
    dependencies: [.package(name: "castnet", path: "../..")],
    targets: [
        .executableTarget(name: "Api", dependencies: [castnet]),
        .executableTarget(name: "Scheduler", dependencies: [castnet]),
        .executableTarget(name: "Agent", dependencies: [castnet]),
    ]
)
