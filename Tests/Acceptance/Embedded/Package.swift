// swift-tools-version: 6.2
import PackageDescription

/// Castnet inside a shared library that a foreign program loads: see embedded.py beside this file.
let package = Package(
    name: "embedded",
    platforms: [.macOS(.v26)],
    products: [.library(name: "Embedded", type: .dynamic, targets: ["Embedded"])],
    dependencies: [.package(name: "castnet", path: "../../..")],
    targets: [
        .target(name: "Embedded", dependencies: [.product(name: "Castnet", package: "castnet")])
    ]
)
