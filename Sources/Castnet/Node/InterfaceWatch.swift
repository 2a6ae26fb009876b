import CastnetCore
import CastnetMulticast
import Logging
import NIOCore

/// Looks four times a second whether the interface of a node's channels and beacons is still the one they
/// use: one that was made anew has another number, one that was moved another address. Then they move, too.
///
/// Confined to the node's event loop, which makes it sendable.
final class InterfaceWatch: @unchecked Sendable {
    private weak var shell: NodeShell?
    private var interface: InterfaceChoice?
    private var timer: RepeatedTask?
    private var isMoving = false

    private static let interval = TimeAmount.milliseconds(250)

    init(shell: NodeShell) { self.shell = shell }

    func start() {
        guard let shell, timer == nil else { return }
        interface = current()
        timer = shell.loop.scheduleRepeatedTask(initialDelay: Self.interval, delay: Self.interval) {
            [weak self] _ in self?.look()
        }
    }

    func stop() {
        timer?.cancel()
        timer = nil
    }

    /// Nil: it is down, or away.
    private func current() -> InterfaceChoice? {
        guard let node = shell?.configuration.node else { return nil }
        // Only by its name: another interface that comes up is no reason to move.
        return try? InterfaceChoice(
            name: interface?.name ?? node.interface, listen: node.advertise?.host ?? node.listen.host)
    }

    private func look() {
        guard !isMoving, let found = current() else { return }
        guard let used = interface else { return interface = found }
        guard (found.index, found.address) != (used.index, used.address) else { return }
        isMoving = true
        interface = found
        guard let shell, let told = shell.directory?.moved(to: found) else { return }
        let channels = shell.node?.openChannels ?? []
        Task {
            // Peers that miss frames ask for them where they were told last.
            _ = try? await told.get()
            await self.move(channels, to: found, from: used)
        }
    }

    private func move(
        _ channels: [OpenChannel], to interface: InterfaceChoice, from used: InterfaceChoice
    ) async {
        var hasFailed = false
        for channel in channels where await !move(channel, to: interface) { hasFailed = true }
        let failed = hasFailed
        shell?.loop.execute {
            self.isMoving = false
            // What did not work is tried again.
            if failed { self.interface = used }
        }
    }

    private func move(_ channel: OpenChannel, to interface: InterfaceChoice) async -> Bool {
        let facts: Logger.Metadata = [
            "castnet.channel": "\(channel.name)", "castnet.interface": "\(interface.name)",
            "castnet.address": "\(DatagramAddress(address: interface.address, port: 0).host)",
        ]
        do {
            try await channel.channel.move(to: interface)
            shell?.log.warning("a channel moved with its interface", metadata: facts)
            return true
        } catch {
            shell?.log.warning(
                "a channel cannot follow its interface yet",
                metadata: facts.merging(["castnet.error": "\(error)"]) { $1 })
            return false
        }
    }
}
