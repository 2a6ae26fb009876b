internal import Castnet
internal import Foundation
internal import NIOCore

/// `serve --reply exec:CMD`: a shell command handles each message, the payload on its standard input.
enum Handler {
    /// Exit 0: its output is the reply; 65: rejected; 75: released; anything else: rejected with the status.
    static func run(_ command: String, _ message: Message) async throws -> Response {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", command]
        process.environment = ProcessInfo.processInfo.environment.merging(
            ["CASTNET_TOPIC": message.topic.name, "CASTNET_ID": message.id.description]
        ) { _, new in new }
        let (input, output) = (Pipe(), Pipe())
        process.standardInput = input
        process.standardOutput = output
        let ended = AsyncStream<Int32>.makeStream(bufferingPolicy: .bufferingNewest(1))
        process.terminationHandler = { process in
            ended.continuation.yield(process.terminationStatus)
            ended.continuation.finish()
        }
        try process.run()
        let payload = Data(message.payload.readableBytesView)
        // Both ends move at once, off the pool of tasks: either pipe may be full.
        let writer = Thread {
            try? input.fileHandleForWriting.write(contentsOf: payload)
            try? input.fileHandleForWriting.close()
        }
        writer.start()
        let reply = await withCheckedContinuation { continuation in
            Thread {
                let reply = output.fileHandleForReading.readDataToEndOfFile()
                // The process's object outlives it for longer than there are descriptors.
                try? output.fileHandleForReading.close()
                continuation.resume(returning: reply)
            }
            .start()
        }
        var status: Int32 = -1
        for await code in ended.stream { status = code }
        switch status {
        case 0: return .reply(ByteBuffer(bytes: reply))
        case 75: return .release("\(command): exit 75")
        default: return .reject("\(command): exit \(status)")
        }
    }
}
