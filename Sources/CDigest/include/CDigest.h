#ifndef CASTNET_DIGEST_H
#define CASTNET_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// SHA-256 of `count` bytes by the processor's own instructions; false, and nothing written, where it has none.
bool castnet_sha256(const uint8_t *bytes, size_t count, uint8_t *digest);

#endif
