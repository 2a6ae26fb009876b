#if Multicast
    import CastnetMulticast
    import Foundation
    import Glibc
    import Synchronization
    import Testing

    extension Trait where Self == ConditionTrait {
        /// Loss needs network namespaces of its own, and so root, `ip` and `iptables`.
        static var namespaces: Self {
            .enabled(
                if: geteuid() == 0 && TwoHosts.hasTools,
                "needs root, ip and iptables for private network namespaces")
        }
    }

    /// Two network namespaces joined by one cable, held by one thread that steps from one to the other.
    ///
    /// A socket stays where it was made, so one thread can drive sockets of both. The namespaces have no name
    /// and end with their last descriptor, however the process ends.
    struct TwoHosts: Sendable {
        enum Host: Int, CaseIterable, Sendable { case left, right }

        private let namespaces: [Int32]

        static let hasTools = ["ip", "iptables"].allSatisfy { tool in
            ["/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/"].contains { access($0 + tool, X_OK) == 0 }
        }

        /// Runs `body` on a thread of its own, which begins on the left host.
        static func run(_ body: @escaping @Sendable (TwoHosts) throws -> Void) async throws {
            try await onThread { try with(body) }
        }

        /// The same for asynchronous work; only `prepare` of an engine's thread enters a host.
        static func runAsync(_ body: @escaping @Sendable (TwoHosts) async throws -> Void) async throws {
            let hosts = try await onThread { try TwoHosts() }
            defer { hosts.close() }
            try await body(hosts)
        }

        /// Runs `body` on a thread of its own, which may enter hosts as it likes.
        static func onThread<Result: Sendable>(
            _ body: @escaping @Sendable () throws -> Result
        ) async throws -> Result {
            try await withCheckedThrowingContinuation { continuation in
                Thread.detachNewThread { continuation.resume(with: Swift.Result { try body() }) }
            }
        }

        private static func with(_ body: (TwoHosts) throws -> Void) throws {
            let hosts = try TwoHosts()
            defer { hosts.close() }
            try body(hosts)
        }

        private init() throws {
            var found: [Int32] = []
            for _ in Host.allCases {
                guard Namespaces.unshare() == 0 else {
                    throw TimedOut(description: "no network namespace: errno \(errno)")
                }
                found.append(Glibc.open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC))
            }
            namespaces = found
            enter(.left)
            let right = "/proc/\(getpid())/fd/\(found[1])"
            try Self.shell("ip link add cable type veth peer name far netns \(right)")
            for host in Host.allCases {
                enter(host)
                if host == .right { try Self.shell("ip link set far name cable") }
                try Self.shell("ip link set lo up")
                try Self.shell("ip addr add 10.78.0.\(host.rawValue + 1)/24 dev cable")
                try Self.shell("ip link set cable up")
            }
            // A link that is up drops everything until the kernel's link watch has noticed.
            for host in Host.allCases {
                enter(host)
                try Wait.until("the cable works on \(host)") {
                    (try? Self.shell("ip -o link show cable | grep -q 'state UP'")) != nil
                }
            }
            enter(.left)
        }

        private func close() { for namespace in namespaces { _ = Glibc.close(namespace) } }

        /// Moves the calling thread to `host`.
        func enter(_ host: Host) {
            let result = Namespaces.enter(namespaces[host.rawValue])
            precondition(result == 0, "setns failed")
        }

        /// Runs a command line on `host` from the calling thread, which stays there.
        func shell(on host: Host, _ command: String) throws {
            enter(host)
            try Self.shell(command)
        }

        /// Loses this share of all datagrams that arrive at `host`; 0: none any more.
        func lose(_ share: Double, at host: Host) throws {
            try shell(on: host, "iptables -F INPUT")
            guard share > 0 else { return }
            let mode = share < 1 ? "-m statistic --mode random --probability \(share)" : ""
            try Self.shell("iptables -A INPUT -i cable -p udp \(mode) -j DROP")
        }

        func interface(of host: Host) throws -> InterfaceChoice {
            enter(host)
            return try InterfaceChoice(name: "cable", listen: "0.0.0.0")
        }

        /// A socket that lives on `host`.
        func socket(
            on host: Host, port: UInt16, window: Int, change: (inout PGMOptions) -> Void = { _ in }
        ) throws -> PGMSocket {
            var options = PGMOptions(
                interface: try interface(of: host), group: 0xEFC0_0909, port: port, mtu: 1500, window: window)
            change(&options)
            return try PGMSocket(options)
        }

        private static func shell(_ command: String) throws {
            // Forked from this thread, the shell is on the host this thread is on.
            let status = Namespaces.run("PATH=$PATH:/usr/sbin:/sbin; \(command)")
            guard status == 0 else { throw TimedOut(description: "`\(command)` ended \(status)") }
        }
    }

    /// The calls that Swift's Glibc module does not show.
    private enum Namespaces {
        private typealias Unshare = @convention(c) (Int32) -> Int32
        private typealias SetNamespace = @convention(c) (Int32, Int32) -> Int32
        private typealias System = @convention(c) (UnsafePointer<CChar>) -> Int32
        private static let networkFlag: Int32 = 0x4000_0000

        private static func symbol<Function>(_ name: String) -> Function? {
            dlsym(nil, name).map { unsafeBitCast($0, to: Function.self) }
        }

        static func unshare() -> Int32 {
            let function: Unshare? = symbol("unshare")
            return function?(networkFlag) ?? -1
        }

        static func enter(_ descriptor: Int32) -> Int32 {
            let function: SetNamespace? = symbol("setns")
            return function?(descriptor, networkFlag) ?? -1
        }

        static func run(_ command: String) -> Int32 {
            let function: System? = symbol("system")
            return command.withCString { function?($0) ?? -1 }
        }
    }
#endif
