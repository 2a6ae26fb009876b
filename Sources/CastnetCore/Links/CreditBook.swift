/// How much of each topic the peer of a dialled link takes now.
///
/// Every topic begins with an allowance that need not be granted, so that the first message leaves with the
/// hello. A message may begin while there is a message and a byte of credit. It costs the bytes of its first
/// packet, so that a small one passes large ones; what their parts take is bounded by `limits.memory`.
package struct CreditBook: Sendable {
    /// What a topic begins with, on every link.
    package static let firstMessages = 4096
    package static let firstBytes = 4 << 20

    /// False where the peer grants none: then nothing is bounded here.
    package var isKept = true
    private var spent = TopicTable<(messages: Int, bytes: Int)>()

    package init() {}

    /// Takes the credit for one message of `topic`; false: it must wait until ``granted(_:of:)``.
    package mutating func take(_ topic: Topic, bytes: Int) -> Bool {
        guard isKept else { return true }
        let (messages, sum) = spent[topic] ?? (0, 0)
        guard messages < Self.firstMessages, sum < Self.firstBytes else { return false }
        spent[topic] = (messages + 1, sum + Credit.cost(bytes))
        return true
    }

    /// The peer takes so much more of a topic.
    package mutating func granted(_ credit: Credit, of topic: Topic) {
        guard let (messages, bytes) = spent[topic] else { return }
        // More than was spent would be a peer's mistake, and is worth nothing.
        let left = (max(0, messages - Int(credit.messages)), max(0, bytes - Int(clamping: credit.bytes)))
        spent[topic] = left == (0, 0) ? nil : left
    }
}

/// What the acceptor of a link has in hand of each topic, and when it grants more.
///
/// A message costs its topic the same as its sender from its arrival until it is finished here.
/// What is finished is granted again in batches.
package struct CreditLedger: Sendable {
    private struct Account: Sendable {
        /// What the peer has spent, as it knows: began and not granted again.
        var messages = 0
        var bytes = 0
        /// The part of that which is finished and may be granted.
        var doneMessages = 0
        var doneBytes = 0
    }

    /// Topics whose account is kept while nothing of them is under way.
    private static let accountsKept = 1024
    /// What is granted at a time.
    private static let grantMessages = 64
    private static let grantBytes = 256 << 10

    private var accounts = TopicTable<Account>()

    package init() {}

    /// A message has begun to arrive; false: the peer had no credit for it.
    package mutating func received(_ topic: Topic, bytes: Int) -> Bool {
        var account = accounts[topic] ?? Account()
        guard account.messages < CreditBook.firstMessages, account.bytes < CreditBook.firstBytes else {
            return false
        }
        account.messages += 1
        account.bytes += Credit.cost(bytes)
        accounts[topic] = account
        return true
    }

    /// A message is finished: handled, refused or given up. Returns what to grant now.
    package mutating func finished(_ topic: Topic, bytes: Int) -> Credit? {
        guard var account = accounts[topic] else { return nil }
        account.doneMessages += 1
        account.doneBytes += Credit.cost(bytes)
        guard isDue(account) else {
            accounts[topic] = account
            return nil
        }
        let credit = Credit(
            topic: topic.name, messages: UInt32(clamping: account.doneMessages),
            bytes: UInt64(account.doneBytes))
        account.messages -= account.doneMessages
        account.bytes -= account.doneBytes
        account.doneMessages = 0
        account.doneBytes = 0
        accounts[topic] = account.messages == 0 && account.bytes == 0 ? nil : account
        return credit
    }

    /// Half of the credit is spent and a little of that finished: the burst that follows a grant holds up
    /// others. Or a topic of many, of which most may never be heard of again, has nothing under way.
    private func isDue(_ account: Account) -> Bool {
        if accounts.count > Self.accountsKept, account.doneMessages == account.messages { return true }
        guard
            account.messages >= CreditBook.firstMessages / 2 || account.bytes >= CreditBook.firstBytes / 2
        else { return false }
        return account.doneMessages >= Self.grantMessages || account.doneBytes >= Self.grantBytes
    }
}

extension Credit {
    /// The bytes that a message of so many costs.
    package static func cost(_ bytes: Int) -> Int { min(bytes, Packet.chunkBytes) }
}
