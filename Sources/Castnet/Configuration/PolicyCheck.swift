/// Judges the policy table: each rule's keys, the channels it names, and whether a message can reach it.
struct PolicyCheck {
    let configuration: Configuration
    let log: ProblemLog
    private let policies: [(path: String, policy: Policy)]

    init(configuration: Configuration, log: ProblemLog) {
        self.configuration = configuration
        self.log = log
        policies = configuration.policies.enumerated().map { place, policy in
            ("policies[\(policy.index ?? place)]", policy)
        }
    }

    /// Reports everything that is wrong or surprising into the log.
    func run() {
        if policies.count > ConfigurationReader.policyCountMax {
            let most = "at most \(ConfigurationReader.policyCountMax) rules"
            return log.report("policies", found: "\(policies.count) rules", allowed: most)
        }
        for (path, policy) in policies {
            checkBounds(policy.route, path: path)
            checkCarrier(policy, path: path)
            checkTimes(policy.route, path: path)
            warnInertKeys(policy.route, path: path)
        }
        checkReachability()
    }

    private func checkBounds(_ route: Route, path: String) {
        let key = "policies[]"
        log.bound(route.heartbeatInterval, "\(path).heartbeat", "\(key).heartbeat")
        log.bound(route.connections, "\(path).connections", "\(key).connections")
        log.bound(route.attempts, "\(path).attempts", "\(key).attempts")
        log.bound(route.linger, "\(path).linger", "\(key).linger")
        log.bound(route.deadline, "\(path).deadline", "\(key).deadline")
        log.bound(route.backlog, "\(path).backlog", "\(key).backlog")
        guard let promote = route.promote else { return }
        log.bound(promote.afterPerMinute, "\(path).promote.after", "\(key).promote.after")
        log.bound(promote.backPerMinute, "\(path).promote.back", "\(key).promote.back")
        if promote.backPerMinute >= promote.afterPerMinute {
            log.report(
                "\(path).promote.back", found: "\(promote.backPerMinute)/min is not less than after",
                allowed: "less than \(promote.afterPerMinute)/min", uses: ["\(path).promote.after"])
        }
    }

    private func checkCarrier(_ policy: Policy, path: String) {
        let route = policy.route
        if route.carrier == .local {
            log.reject("local", "\(path).carrier", "policies[].carrier")
        }
        if policy.kinds.isEmpty {
            log.report("\(path).kinds", found: "no kind", allowed: "one or more of call, cast, fanout")
        }
        if route.carrier == .multicast {
            let others = policy.kinds.subtracting([.fanout])
            if !others.isEmpty {
                let hasKinds = log.places["\(path).kinds"] != nil
                log.report(
                    hasKinds ? "\(path).kinds" : "\(path).carrier",
                    found: "multicast for \(others.sortedNames)",
                    allowed: "multicast with kinds: [fanout], since multicast carries fanouts only",
                    uses: ["\(path).carrier", "\(path).kinds"])
            }
            if route.channel == nil {
                log.report(
                    "\(path).carrier", found: "multicast without a channel",
                    allowed: "channel: \(channelNames)",
                    uses: ["\(path).channel"])
            }
        }
        if let name = route.channel, configuration.channel(name) == nil {
            let near = Spelling.nearest(to: name, among: configuration.channels.map(\.name))
            log.report(
                "\(path).channel",
                found: "the channel \(quoted(name)) does not exist"
                    + (near.map { "; did you mean \(quoted($0))?" } ?? ""),
                allowed: channelNames, uses: ["channels.\(name)"])
        }
    }

    private var channelNames: String {
        if configuration.channels.isEmpty { return "the name of a channel under channels, which has none" }
        return "one of \(configuration.channels.map(\.name).joined(separator: ", "))"
    }

    /// The idle time is `linger`. Where the rule does not set it, an idle persistent link stays open.
    private func checkTimes(_ route: Route, path: String) {
        let hasIdleTime: Bool
        switch route.carrier {
        case .persistent:
            hasIdleTime =
                log.places["\(path).linger"] != nil || route.linger != Route(carrier: .persistent).linger
        case .ephemeral: hasIdleTime = route.promote != nil
        case .multicast, .local: hasIdleTime = false
        }
        guard hasIdleTime, route.heartbeatInterval.nanoseconds >= route.linger.nanoseconds / 2 else { return }
        let heartbeatPath = "\(path).heartbeat"
        log.report(
            log.places[heartbeatPath] == nil ? "\(path).linger" : heartbeatPath,
            found: "a heartbeat of \(Quantity.text(route.heartbeatInterval)) with an idle time (linger) of "
                + Quantity.text(route.linger),
            allowed: "a heartbeat of less than half the idle time",
            uses: [heartbeatPath, "\(path).linger", "\(path).carrier"])
    }

    private func warnInertKeys(_ route: Route, path: String) {
        for key in route.inertKeys.sorted() where log.places["\(path).\(key)"] != nil {
            log.warn(
                "\(path).\(key)", found: "\(key) has no effect with carrier \(route.carrier.rawValue)",
                allowed: "to leave it out", uses: ["\(path).carrier"])
        }
    }

    private func checkReachability() {
        let messageSizeMax = max(0, configuration.limits.message)
        // A multicast rule for calls is reported as that; here it counts for the fanouts it can carry.
        let rules = configuration.policies.map { policy in
            var policy = policy
            if policy.route.carrier == .multicast { policy.kinds.formIntersection([.fanout]) }
            return policy
        }
        let review = TableReview(PolicyTable(rules), messageSizeMax: messageSizeMax)
        for (index, why) in review.unreachable {
            let path = policies[index].path
            switch why {
            case .covered(let others):
                let places = others.map { policies[$0].policy.place(at: policies[$0].path) }
                log.note(
                    path, at: nil,
                    found: "no message reaches this rule: \(places.joined(separator: " and ")) "
                        + "\(places.count == 1 ? "takes" : "take") all it is for",
                    allowed: "rules in an order in which each can match; the first match wins")
            case .size:
                let size = policies[index].policy.size.map { log.shown("\($0)", "\(path).size") } ?? ""
                log.report(
                    "\(path).size", found: "no message reaches this rule: no size is \(size)",
                    allowed: "sizes from 0 B to limits.message, \(Quantity.text(bytes: messageSizeMax))",
                    uses: ["limits.message"])
            }
        }
        warnOfReview(review)
    }

    private func warnOfReview(_ review: TableReview) {
        if review.judgedCount < policies.count {
            log.warn(
                "policies",
                found: "\(policies.count) rules, too tangled to look for unreachable ones behind rule "
                    + "\(review.judgedCount)",
                allowed: "fewer rules, sizes or wildcards")
        }
        for split in review.splitFanouts {
            let ways = split.policies.map { policy in
                policy.route.carrier.rawValue + (policy.route.channel.map { " on \($0)" } ?? "")
            }
            var distinct: [String] = []
            for way in ways where !distinct.contains(way) { distinct.append(way) }
            log.warn(
                "\(policies[split.index].path).size",
                found: "size splits the fanouts of topics such as \(split.topic) over "
                    + distinct.joined(separator: " and "),
                allowed: "one carrier for all fanouts of a topic, where their order matters",
                uses: ["\(policies[split.index].path)"])
        }
    }
}

extension Policy {
    fileprivate func place(at path: String) -> String {
        "\(path) (\(line.map { "line \($0), " } ?? "")\(match.text))"
    }
}
