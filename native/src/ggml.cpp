// Layouts and meaning of the block formats: ggml-common.h and ggml-quants.c of llama.cpp. Every product and sum is
// rounded to f32 in the order written here, so that the values equal the reference's bit for bit.
#include "ggml.hpp"

#include <cstring>

#include "half.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

float half_at(const uint8_t* at) {
  uint16_t half;
  std::memcpy(&half, at, 2);
  return float_of_half(half);
}

uint32_t word_at(const uint8_t* at) {
  uint32_t word;
  std::memcpy(&word, at, 4);
  return word;
}

// d | 32 signed bytes
void q8_0(const uint8_t* block, float* out) {
  const float d = half_at(block);
  const uint8_t* q = block + 2;
  for (int i = 0; i < 32; i++) out[i] = static_cast<float>(static_cast<int8_t>(q[i])) * d;
}

// d | 16 bytes: low nibbles are elements 0..15, high nibbles 16..31
void q4_0(const uint8_t* block, float* out) {
  const float d = half_at(block);
  const uint8_t* q = block + 2;
  for (int i = 0; i < 16; i++) {
    out[i] = d * static_cast<float>((q[i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((q[i] >> 4) - 8);
  }
}

// d, m | 16 bytes of nibbles
void q4_1(const uint8_t* block, float* out) {
  const float d = half_at(block);
  const float m = half_at(block + 2);
  const uint8_t* q = block + 4;
  for (int i = 0; i < 16; i++) {
    out[i] = d * static_cast<float>(q[i] & 15) + m;
    out[i + 16] = d * static_cast<float>(q[i] >> 4) + m;
  }
}

// d | 32 fifth bits | 16 bytes of nibbles
void q5_0(const uint8_t* block, float* out) {
  const float d = half_at(block);
  const uint32_t high = word_at(block + 2);
  const uint8_t* q = block + 6;
  for (int i = 0; i < 16; i++) {
    const int low = (q[i] & 15) | static_cast<int>((high >> i) & 1) << 4;
    const int upper = (q[i] >> 4) | static_cast<int>((high >> (i + 16)) & 1) << 4;
    out[i] = d * static_cast<float>(low - 16);
    out[i + 16] = d * static_cast<float>(upper - 16);
  }
}

// d, m | 32 fifth bits | 16 bytes of nibbles
void q5_1(const uint8_t* block, float* out) {
  const float d = half_at(block);
  const float m = half_at(block + 2);
  const uint32_t high = word_at(block + 4);
  const uint8_t* q = block + 8;
  for (int i = 0; i < 16; i++) {
    const int low = (q[i] & 15) | static_cast<int>((high >> i) & 1) << 4;
    const int upper = (q[i] >> 4) | static_cast<int>((high >> (i + 16)) & 1) << 4;
    out[i] = d * static_cast<float>(low) + m;
    out[i + 16] = d * static_cast<float>(upper) + m;
  }
}

// 16 bytes of (scale, minimum) nibbles for groups of 16 | 64 bytes of 2-bit codes | d, dmin
void q2_k(const uint8_t* block, float* out) {
  const uint8_t* scales = block;
  const uint8_t* q = block + 16;
  const float d = half_at(block + 80);
  const float dmin = half_at(block + 82);
  for (int group = 0; group < 16; group++) {
    const float scale = d * static_cast<float>(scales[group] & 15);
    const float minimum = dmin * static_cast<float>(scales[group] >> 4);
    const uint8_t* codes = q + (group / 8) * 32 + (group % 2) * 16;
    const int shift = 2 * ((group % 8) / 2);
    for (int i = 0; i < 16; i++) {
      out[group * 16 + i] = scale * static_cast<float>((codes[i] >> shift) & 3) - minimum;
    }
  }
}

// 32 bytes of third bits | 64 bytes of 2-bit codes | 12 bytes: sixteen 6-bit scales | d
void q3_k(const uint8_t* block, float* out) {
  const uint8_t* high = block;
  const uint8_t* q = block + 32;
  const uint8_t* packed = block + 96;
  const float d = half_at(block + 108);
  for (int group = 0; group < 16; group++) {
    const int low = group < 8 ? packed[group] & 15 : packed[group - 8] >> 4;
    const int upper = (packed[8 + group % 4] >> (2 * (group / 4))) & 3;
    const float scale = d * static_cast<float>((low | upper << 4) - 32);
    const int half = (group % 2) * 16;
    const uint8_t* codes = q + (group / 8) * 32 + half;
    const int shift = 2 * ((group % 8) / 2);
    const int bit = group / 2;
    for (int i = 0; i < 16; i++) {
      // The offset of four applies where the third bit is clear.
      const int offset = ((high[half + i] >> bit) & 1) == 0 ? 4 : 0;
      out[group * 16 + i] = scale * static_cast<float>(((codes[i] >> shift) & 3) - offset);
    }
  }
}

// Eight 6-bit scales and eight 6-bit minima in 12 bytes, of Q4_K and Q5_K.
void scale_and_minimum(const uint8_t* packed, int group, int& scale, int& minimum) {
  if (group < 4) {
    scale = packed[group] & 63;
    minimum = packed[group + 4] & 63;
  } else {
    scale = (packed[group + 4] & 15) | ((packed[group - 4] >> 2) & 48);
    minimum = (packed[group + 4] >> 4) | ((packed[group] >> 2) & 48);
  }
}

// d, dmin | 12 bytes of scales and minima | 128 bytes of nibbles
void q4_k(const uint8_t* block, float* out) {
  const float d = half_at(block);
  const float dmin = half_at(block + 2);
  for (int group = 0; group < 8; group++) {
    int scale, minimum;
    scale_and_minimum(block + 4, group, scale, minimum);
    const float s = d * static_cast<float>(scale);
    const float m = dmin * static_cast<float>(minimum);
    const uint8_t* q = block + 16 + (group / 2) * 32;
    const int shift = 4 * (group % 2);
    for (int i = 0; i < 32; i++) out[group * 32 + i] = s * static_cast<float>((q[i] >> shift) & 15) - m;
  }
}

// d, dmin | 12 bytes of scales and minima | 32 bytes of fifth bits | 128 bytes of nibbles
void q5_k(const uint8_t* block, float* out) {
  const float d = half_at(block);
  const float dmin = half_at(block + 2);
  const uint8_t* high = block + 16;
  for (int group = 0; group < 8; group++) {
    int scale, minimum;
    scale_and_minimum(block + 4, group, scale, minimum);
    const float s = d * static_cast<float>(scale);
    const float m = dmin * static_cast<float>(minimum);
    const uint8_t* q = block + 48 + (group / 2) * 32;
    const int shift = 4 * (group % 2);
    for (int i = 0; i < 32; i++) {
      const int code = ((q[i] >> shift) & 15) | ((high[i] >> group) & 1) << 4;
      out[group * 32 + i] = s * static_cast<float>(code) - m;
    }
  }
}

// 128 bytes of low nibbles | 64 bytes of upper bit pairs | 16 signed scales | d
void q6_k(const uint8_t* block, float* out) {
  const float d = half_at(block + 208);
  for (int group = 0; group < 8; group++) {
    const uint8_t* low = block + (group / 4) * 64 + (group % 2) * 32;
    const uint8_t* high = block + 128 + (group / 4) * 32;
    const int low_shift = 4 * ((group % 4) / 2);
    const int high_shift = 2 * (group % 4);
    for (int part = 0; part < 2; part++) {
      const float scale = d * static_cast<float>(static_cast<int8_t>(block[192 + group * 2 + part]));
      for (int i = part * 16; i < part * 16 + 16; i++) {
        const int code = ((low[i] >> low_shift) & 15) | ((high[i] >> high_shift) & 3) << 4;
        out[group * 32 + i] = scale * static_cast<float>(code - 32);
      }
    }
  }
}

// d | 16 bytes of nibbles that index a table of levels
void iq4_nl(const uint8_t* block, float* out) {
  static const float levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  const float d = half_at(block);
  const uint8_t* q = block + 2;
  for (int i = 0; i < 16; i++) {
    out[i] = d * levels[q[i] & 15];
    out[i + 16] = d * levels[q[i] >> 4];
  }
}

struct Codec {
  GgmlLayout layout;
  void (*dequantize)(const uint8_t* block, float* out);
};

constexpr Codec kCodecs[kGgmlTypes] = {
    {{32, 34}, q8_0},   {{32, 18}, q4_0},   {{32, 20}, q4_1},   {{32, 22}, q5_0},   {{32, 24}, q5_1},  {{256, 84}, q2_k},
    {{256, 110}, q3_k}, {{256, 144}, q4_k}, {{256, 176}, q5_k}, {{256, 210}, q6_k}, {{32, 18}, iq4_nl},
};

}  // namespace

GgmlLayout ggml_layout(GgmlType type) { return kCodecs[static_cast<int>(type)].layout; }

void dequantize_ggml(const uint8_t* source, GgmlType type, int64_t blocks, float* target, int threads) {
  const Codec& codec = kCodecs[static_cast<int>(type)];
  const int64_t grain = 65536 / codec.layout.block_elements;
  parallel_for(blocks, grain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; b++) {
      codec.dequantize(source + b * codec.layout.block_bytes, target + b * codec.layout.block_elements);
    }
  });
}

}  // namespace surprisal
