internal import CastnetCore

/// The keys of one cluster under one prefix, the channel of changes, and the scripts that keep what the store
/// has of a name consistent. docs/wire-redis.md specifies them.
struct RedisSchema: Sendable {
    /// What the key of every node of the cluster begins with.
    let keyPrefix: String
    /// Where every change is told.
    let changes: String
    /// The glob that finds the keys.
    let pattern: String

    init(prefix: String, cluster: String) {
        keyPrefix = "\(prefix):\(cluster):node:"
        changes = "\(prefix):\(cluster):changes"
        pattern = Self.escaped(keyPrefix) + "*"
    }

    func key(of name: String) -> String { keyPrefix + name }

    /// `text` as a glob that means only itself: names may hold `*`, `?`, `[` and `\`.
    private static func escaped(_ text: String) -> String {
        var glob = ""
        for character in text {
            if #"*?[]\"#.contains(character) { glob += "\\" }
            glob.append(character)
        }
        return glob
    }

    /// Writes a record for its time to live, unless a newer start or a newer version of the name is there,
    /// and tells of it unless the one there has the same start and version. Bytes are compared one by one,
    /// because Lua compares strings by the server's locale. KEYS: the key; ARGV: value, time to live in
    /// milliseconds, channel, name. Returns 1, or 0 where it refused.
    static let put = """
        local old = redis.pcall('GETRANGE', KEYS[1], 0, 23)
        local new = ARGV[1]
        local isNews = true
        if type(old) == 'string' and #old == 24 and string.sub(old, 1, 5) == string.sub(new, 1, 5) then
            isNews = false
            for i = 9, 24 do
                local a, b = string.byte(old, i), string.byte(new, i)
                if a > b then return 0 end
                if a < b then isNews = true break end
            end
        end
        redis.call('SET', KEYS[1], new, 'PX', ARGV[2])
        if isNews then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
        return 1
        """

    /// Deletes the record of one start of a node, not that of another, and tells of it in any case. KEYS: the
    /// key; ARGV: the 8 bytes of the incarnation, channel, name. Returns how many keys it deleted.
    static let remove = """
        local old = redis.pcall('GETRANGE', KEYS[1], 0, 23)
        local deleted = 0
        if type(old) == 'string' and string.sub(old, 9, 16) == ARGV[1] then
            deleted = redis.call('DEL', KEYS[1])
        end
        redis.call('PUBLISH', ARGV[2], ARGV[3])
        return deleted
        """

    /// One step through the keys, of which only the names come back and no name longer than a node may have,
    /// so that nobody's keys make the answer large. ARGV: cursor, pattern, count, bytes of the key before the
    /// name. Returns the next cursor and the names.
    static let scan = """
        local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
        local skipped = tonumber(ARGV[4])
        local names = {}
        for _, key in ipairs(page[2]) do
            if #key <= skipped + \(BeaconFormat.nameSizeMax) then
                names[#names + 1] = string.sub(key, skipped + 1)
            end
        end
        return {page[1], names}
        """
}
