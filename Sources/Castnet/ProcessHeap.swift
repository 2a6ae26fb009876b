internal import CastnetMulticast

/// The allocator of the whole process: a choice of programs, never of a library inside one.
public enum ProcessHeap {
    /// Lets the allocator keep up to 256 MiB of freed memory instead of giving it back to the kernel.
    ///
    /// Messages come and go by the million, and a busy receiver spends up to a sixth of its time on pages
    /// that go and come again. Call it once, at the start of `main`; the `castnet` command does. It changes
    /// nothing where the C library is not glibc.
    public static func keepFreedMemory() { EngineHeap.keepFreedMemory() }
}
