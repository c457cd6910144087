// Blocks of quantised weights as GGUF files store them, to f32.
#pragma once
#include <cstdint>

namespace surprisal {

// In the order of GgmlBlockType in src/formats/tensor.ts.
enum class GgmlType : int { Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL };
constexpr int kGgmlTypes = 11;

struct GgmlLayout {
  int block_elements;
  int block_bytes;
};

GgmlLayout ggml_layout(GgmlType type);

// target[blocks * block_elements]. The source may be unaligned.
void dequantize_ggml(const uint8_t* source, GgmlType type, int64_t blocks, float* target, int threads);

}  // namespace surprisal
