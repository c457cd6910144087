#pragma once
#include <cstdint>

namespace surprisal {

// Reads every byte once and returns a checksum: what plain reading costs, for benchmarks to compare with.
uint64_t read_memory(const uint8_t* data, int64_t bytes, int threads);

// Gives freed memory back to the system where the C library can; true when it did.
bool trim_memory();

}  // namespace surprisal
