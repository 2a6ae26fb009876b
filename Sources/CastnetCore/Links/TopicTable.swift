/// A value per topic, quick where one topic is asked for again and again, which is what links do.
struct TopicTable<Value: Sendable>: Sendable {
    private var recent: (topic: Topic, value: Value)?
    private var others: [Topic: Value] = [:]

    var count: Int { others.count + (recent == nil ? 0 : 1) }

    subscript(topic: Topic) -> Value? {
        mutating get {
            if let recent, recent.topic == topic { return recent.value }
            guard !others.isEmpty, let value = others[topic] else { return nil }
            makeRecent(topic, value)
            return value
        }
        set {
            if recent?.topic == topic {
                recent = newValue.map { (topic, $0) }
            } else if let newValue {
                makeRecent(topic, newValue)
            } else {
                others[topic] = nil
            }
        }
    }

    private mutating func makeRecent(_ topic: Topic, _ value: Value) {
        others[topic] = nil
        if let recent { others[recent.topic] = recent.value }
        recent = (topic, value)
    }
}
