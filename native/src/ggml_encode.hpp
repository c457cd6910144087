// Rows of weights to GGUF blocks, with scales searched by least squares (src/kernels/ggml-encode-reference.ts).
#pragma once
#include <cstdint>

#include "ggml.hpp"

namespace surprisal {

struct GgmlEncodeRequest {
  const float* source;  // [rows, columns]
  int64_t rows;
  int64_t columns;  // whole blocks
  GgmlType type;
  bool by_magnitude;         // weigh errors by sqrt(mean x^2) + |x|
  const double* importance;  // [columns] or null
  uint8_t* target;
};

// Encodes blocks begin..end-1, counted along the rows.
using GgmlEncodeRange = void (*)(const GgmlEncodeRequest& request, int64_t begin, int64_t end);

extern const GgmlEncodeRange kGgmlEncodeBaseline;
#if defined(__x86_64__)
extern const GgmlEncodeRange kGgmlEncodeAvx2;
#endif

void encode_ggml(const GgmlEncodeRequest& request, int threads);

}  // namespace surprisal
