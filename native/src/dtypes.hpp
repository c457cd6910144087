// Conversions between the element types of stored tensors and f32 or f64. Sources and targets may be unaligned.
#pragma once
#include <cstdint>

namespace surprisal {

// In the order of DType in src/formats/tensor.ts.
enum class DType : int { F64, F32, F16, BF16, F8E4M3, F8E5M2, I64, I32, I16, I8, U64, U32, U16, U8, Bool };

int64_t dtype_bytes(DType dtype);

void widen_to_f32(const uint8_t* source, DType dtype, int64_t count, float* target, int threads);
void widen_to_f64(const uint8_t* source, DType dtype, int64_t count, double* target, int threads);

// Round to nearest, ties to even, to F32, F16, BF16, F8_E4M3 or F8_E5M2; false for another type. Too large: infinity,
// and the largest finite value for F8_E4M3, which has no infinity.
bool narrow_from_f32(const float* source, DType dtype, int64_t count, uint8_t* target, int threads);

// The 16-bit formats, a range at a time, for one instruction set.
struct HalfKernels {
  void (*widen_half)(const uint8_t* source, int64_t count, float* target);
  void (*narrow_half)(const float* source, int64_t count, uint8_t* target);
  void (*widen_bfloat)(const uint8_t* source, int64_t count, float* target);
  void (*narrow_bfloat)(const float* source, int64_t count, uint8_t* target);
};

#if defined(__x86_64__)
extern const HalfKernels kHalfKernelsAvx2;
#endif

}  // namespace surprisal
