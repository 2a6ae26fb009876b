/// Deliberate protocol bugs, by which it is shown that the simulation's oracle finds such. A test switches
/// one on in a debug build; a release build has none of them.
package enum PlantedBug: String, Hashable, Sendable, CaseIterable {
    /// A frame that comes again is delivered again.
    case acceptsDuplicates
    /// A hole is stepped over in silence.
    case skipsHoles
    /// What is given up is not said to be lost.
    case forgetsLosses
    /// A frame behind a hole does not wait.
    case deliversEarly
    /// A head that names frames nobody has seen is not believed.
    case ignoresHeads
    /// A request that came to nothing is not made again.
    case asksOnce
    /// A sender does not wait for what members can take.
    case ignoresWindow
    /// A member reports what it has seen, not what it has.
    case reportsAhead
    /// A frame is sent again with the bytes of its neighbour.
    case repairsWithAnother
    /// What goes to the group once more gets a new number.
    case renumbersRepairs
    /// A large message lacks its last byte.
    case cutsMessages
    /// A receipt does not mind what a member lost.
    case claimsLost
    /// A receipt takes received for processed.
    case claimsUnprocessed
    /// A receipt does not mind what a member refused.
    case claimsRefused
    /// A receipt forgets a member.
    case forgetsMembers

    // Of links and work.

    /// What comes again over another link is handled again.
    case handlesReplays
    /// What a peer may have taken is said to be certainly not executed.
    case deniesTaking
    /// A message starts without its sender's word.
    case startsUnasked
    /// What expired in a handler's queue is executed.
    case executesExpired
    /// A member's call for work is not heard.
    case ignoresCalls
    /// Nobody past the limit goes on when others have ended.
    case forgetsParked
    /// What waits for a link leaves in the wrong order.
    case overtakes
    /// One handler more than allowed.
    case overworks
    /// What may have been executed is repeated whatever the policy says.
    case repeatsAnyway
    /// Always the same member.
    case favoursOne

    /// True for a bug of links and work, false for one of channels.
    package var isOfLinks: Bool { Self.allCases.drop { $0 != .handlesReplays }.contains(self) }

    #if DEBUG
        @TaskLocal package static var planted: PlantedBug?
    #endif

    @inline(__always) package var isPlanted: Bool {
        #if DEBUG
            PlantedBug.planted == self
        #else
            false
        #endif
    }
}
