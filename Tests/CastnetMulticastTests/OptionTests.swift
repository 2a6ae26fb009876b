#if Multicast
    import CastnetCore
    import CastnetMulticast
    import Testing

    @Suite("Options are refused before libpgm can abort")
    struct OptionTests {
        private static let loopback = InterfaceChoice(
            name: "lo", index: 1, address: 0x7F00_0001, linkMTU: 65_536, isLoopback: true)

        private static var good: PGMOptions {
            PGMOptions(interface: loopback, group: 0xEFC0_0701, port: 7500, mtu: 1500, window: 1024)
        }

        @Test("good options pass")
        func good() throws { try Self.good.validate() }

        @Test(
            "windows are powers of two",
            arguments: [0, 1, 3, 1000, 10_000, 65_535, 1 << 21, -8, .min])
        func window(size: Int) {
            var options = Self.good
            options.window = size
            #expect(throws: PGMError.self) { try options.validate() }
            #expect(throws: PGMError.self) { _ = try PGMSocket(options) }
        }

        @Test("every other bad value is named")
        func others() {
            let changes: [(String, (inout PGMOptions) -> Void)] = [
                ("group", { $0.group = 0x0A00_0001 }), ("port", { $0.port = 0 }), ("mtu", { $0.mtu = 100 }),
                ("mtu", { $0.mtu = 70_000 }), ("hops", { $0.hops = 0 }), ("hops", { $0.hops = 256 }),
                ("dscp", { $0.dscp = 64 }), ("receive-buffer", { $0.receiveBuffer = 0 }),
                ("nak-backoff", { $0.timers.nakBackoff = .microseconds(1) }),
                ("spm-request", { $0.timers.spmRequest = .zero }),
                ("peer-expiry", { $0.timers.peerExpiry = .seconds(4) }),
                ("heartbeats", { $0.timers.heartbeats = [] }),
                ("heartbeat", { $0.timers.heartbeats[0] = .zero }),
                ("ncf-retries", { $0.timers.confirmationRetries = 0 }),
                ("data-retries", { $0.timers.dataRetries = 256 }),
                ("mtu", { $0.interface.linkMTU = 1400 }),
            ]
            for (name, change) in changes {
                var options = Self.good
                change(&options)
                do {
                    try options.validate()
                    Issue.record("a bad \(name) passed")
                } catch {
                    guard case .invalid(let option, _) = error else {
                        Issue.record("\(name): \(error)")
                        continue
                    }
                    #expect(option == name)
                }
            }
        }

        @Test("the interface is chosen by name, by listening address, then the first that can, then loopback")
        func choose() throws {
            let wire = InterfaceChoice(
                name: "eth0", index: 2, address: 0x0A4D_000B, linkMTU: 65_000, isLoopback: false)
            let all = [Self.loopback, wire]
            func choose(_ name: String?, _ listen: String) throws -> String {
                try InterfaceChoice(name: name, listen: listen, among: all).name
            }
            #expect(try choose("lo", "0.0.0.0") == "lo")
            #expect(try choose(nil, "127.0.0.1") == "lo")
            #expect(try choose(nil, "10.77.0.11") == "eth0")
            #expect(try choose(nil, "0.0.0.0") == "eth0")
            #expect(throws: CastnetError.self) { try choose("eth9", "0.0.0.0") }
            #expect(throws: CastnetError.self) { try InterfaceChoice(name: nil, listen: "", among: []) }
            let alone = try InterfaceChoice(name: nil, listen: "0.0.0.0", among: [Self.loopback])
            #expect(alone.name == "lo")
            #expect(alone.mtu == 1500)
            #expect(wire.mtu == 9000)
        }

        @Test("dotted addresses parse, nothing else does")
        func addresses() {
            #expect(DatagramAddress.address("239.192.7.10") == 0xEFC0_070A)
            for text in ["", "1.2.3", "1.2.3.4.5", "1..2.3", "256.1.1.1", "a.b.c.d", "1.2.3.4 "] {
                #expect(DatagramAddress.address(text) == nil, "\(text)")
            }
        }

        @Test("a rate below one packet and a group that is none are refused before any socket opens")
        func settings() throws {
            var settings = ChannelSettings(name: "c", group: "239.192.7.10", port: 7500)
            settings.rate = 1499
            #expect(throws: CastnetError.self) { try Self.options(of: settings) }
            settings.rate = 1500
            #expect(try Self.options(of: settings).window == 64)
            settings.group = "here"
            #expect(throws: CastnetError.self) { try Self.options(of: settings) }
        }

        private static func options(of settings: ChannelSettings) throws -> PGMOptions {
            try PGMOptions(settings, interface: loopback, plan: ChannelPlan(settings))
        }
    }
#endif
