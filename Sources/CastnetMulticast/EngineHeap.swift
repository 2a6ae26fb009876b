internal import COpenPGM

/// What C knows of the process's allocator.
package enum EngineHeap {
    /// Lets the allocator keep up to 256 MiB of freed memory.
    package static func keepFreedMemory() { castnet_keep_heap() }
}
