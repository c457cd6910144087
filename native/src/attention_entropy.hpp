#pragma once
#include <cstdint>

namespace surprisal {

// Entropy and mass of rows of softmax probabilities [rows, keys]. Keys outside [starts[r], ends[r]) are not visible;
// null means all keys. entropies[r] = -sum a log a (0 log 0 = 0), masses[r] = sum a. Returns the first row that holds
// a visible entry which is negative, NaN or infinite, or -1.
int64_t attention_entropy(const float* probabilities, int64_t rows, int64_t keys, int64_t row_stride,
                          const int32_t* starts, const int32_t* ends, double* entropies, double* masses, int threads);

}  // namespace surprisal
