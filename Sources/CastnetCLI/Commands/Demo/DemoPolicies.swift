/// The two configurations of the demo: the same services, another policy for fanouts.
enum DemoPolicies {
    /// Fanouts by the group, the hot topic over a persistent connection, the rest over ephemeral ones.
    static let multicast = """
        node:      {listen: "0.0.0.0:0", interface: eth0, cluster: demo, unix: off}
        directory: {beacon: {group: 239.192.0.1, port: 7401}}
        channels:
          agents:  {group: 239.192.7.10, port: 7500}
        policies:
          - {match: "scheduler", kinds: [call, cast], carrier: persistent, heartbeat: 2s}
          - {match: "agents.**", kinds: [fanout], carrier: multicast, channel: agents, fallback: unicast}
          - {match: "**", carrier: ephemeral, linger: 1s}
        """

    /// The second one: a fanout is one copy per member over persistent connections.
    static let persistent = """
        node:      {listen: "0.0.0.0:0", interface: eth0, cluster: demo, unix: off}
        directory: {beacon: {group: 239.192.0.1, port: 7401}}
        policies:
          - {match: "scheduler", kinds: [call, cast], carrier: persistent, heartbeat: 2s}
          - {match: "agents.**", kinds: [fanout], carrier: persistent, heartbeat: 2s}
          - {match: "**", carrier: ephemeral, linger: 1s}
        """
}
