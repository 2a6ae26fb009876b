// Topics, policies, settings and outcomes are part of the public API: one import brings them all.
@_exported public import CastnetCore
