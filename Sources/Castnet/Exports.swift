// The vocabulary of the public API lives in CastnetCore: users need only `import Castnet`.
@_exported public import CastnetCore

@_exported public import struct NIOCore.ByteBuffer
