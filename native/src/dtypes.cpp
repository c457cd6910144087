#include "dtypes.hpp"

#include <cmath>
#include <cstring>
#include <limits>

#include "half.hpp"
#include "narrow.hpp"
#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

constexpr int64_t kGrain = 1 << 16;

template <class T>
T load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

template <class From, class To>
void convert(const uint8_t* source, int64_t begin, int64_t end, To* target) {
  for (int64_t i = begin; i < end; i++) target[i] = static_cast<To>(load<From>(source + i * sizeof(From)));
}

template <class To>
void convert_bool(const uint8_t* source, int64_t begin, int64_t end, To* target) {
  for (int64_t i = begin; i < end; i++) target[i] = source[i] != 0 ? To(1) : To(0);
}

void widen_half(const uint8_t* source, int64_t count, float* target) {
  for (int64_t i = 0; i < count; i++) target[i] = float_of_half(load<uint16_t>(source + 2 * i));
}

void narrow_half(const float* source, int64_t count, uint8_t* target) {
  for (int64_t i = 0; i < count; i++) {
    const uint16_t half = half_of_float(source[i]);
    std::memcpy(target + 2 * i, &half, 2);
  }
}

void widen_bfloat(const uint8_t* source, int64_t count, float* target) {
  for (int64_t i = 0; i < count; i++) target[i] = float_of_bfloat(load<uint16_t>(source + 2 * i));
}

void narrow_bfloat(const float* source, int64_t count, uint8_t* target) {
  for (int64_t i = 0; i < count; i++) {
    const uint16_t bits = bfloat_of_float(source[i]);
    std::memcpy(target + 2 * i, &bits, 2);
  }
}

constexpr HalfKernels kHalfKernelsBaseline = {widen_half, narrow_half, widen_bfloat, narrow_bfloat};

const HalfKernels& half_kernels() {
#if defined(__x86_64__)
  if (simd_level() >= Simd::Avx2) return kHalfKernelsAvx2;
#endif
  return kHalfKernelsBaseline;
}

// The 256 values of an eight-bit float. F8_E4M3 is the "FN" kind: no infinity, and NaN where all bits but the sign are
// set. F8_E5M2 follows IEEE 754.
struct ByteTable {
  float value[256];

  ByteTable(int mantissa_bits, int bias, bool has_infinity) {
    const int exponent_bits = 7 - mantissa_bits;
    const int last = (1 << exponent_bits) - 1;
    for (int code = 0; code < 256; code++) {
      const int mantissa = code & ((1 << mantissa_bits) - 1);
      const int exponent = (code >> mantissa_bits) & last;
      const float fraction = static_cast<float>(mantissa) / static_cast<float>(1 << mantissa_bits);
      float magnitude = exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
      if (has_infinity && exponent == last) {
        magnitude = mantissa == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
      } else if (!has_infinity && (code & 0x7f) == 0x7f) {
        magnitude = std::numeric_limits<float>::quiet_NaN();
      }
      value[code] = (code & 0x80) != 0 ? -magnitude : magnitude;
    }
  }
};

const ByteTable& e4m3_table() {
  static const ByteTable table(3, 7, false);
  return table;
}

const ByteTable& e5m2_table() {
  static const ByteTable table(2, 15, true);
  return table;
}

template <class To>
void look_up(const ByteTable& table, const uint8_t* source, int64_t begin, int64_t end, To* target) {
  for (int64_t i = begin; i < end; i++) target[i] = table.value[source[i]];
}

// What f32 and f64 share.
template <class To>
void widen_range(const uint8_t* source, DType dtype, int64_t begin, int64_t end, To* target) {
  switch (dtype) {
    case DType::F64:
      return convert<double>(source, begin, end, target);
    case DType::F32:
      return convert<float>(source, begin, end, target);
    case DType::F16:
      for (int64_t i = begin; i < end; i++) target[i] = float_of_half(load<uint16_t>(source + 2 * i));
      return;
    case DType::BF16:
      for (int64_t i = begin; i < end; i++) target[i] = float_of_bfloat(load<uint16_t>(source + 2 * i));
      return;
    case DType::F8E4M3:
      return look_up(e4m3_table(), source, begin, end, target);
    case DType::F8E5M2:
      return look_up(e5m2_table(), source, begin, end, target);
    case DType::I64:
      return convert<int64_t>(source, begin, end, target);
    case DType::I32:
      return convert<int32_t>(source, begin, end, target);
    case DType::I16:
      return convert<int16_t>(source, begin, end, target);
    case DType::I8:
      return convert<int8_t>(source, begin, end, target);
    case DType::U64:
      return convert<uint64_t>(source, begin, end, target);
    case DType::U32:
      return convert<uint32_t>(source, begin, end, target);
    case DType::U16:
      return convert<uint16_t>(source, begin, end, target);
    case DType::U8:
      return convert<uint8_t>(source, begin, end, target);
    case DType::Bool:
      return convert_bool(source, begin, end, target);
  }
}

}  // namespace

int64_t dtype_bytes(DType dtype) {
  static const int64_t bytes[] = {8, 4, 2, 2, 1, 1, 8, 4, 2, 1, 8, 4, 2, 1, 1};
  return bytes[static_cast<int>(dtype)];
}

void widen_to_f32(const uint8_t* source, DType dtype, int64_t count, float* target, int threads) {
  const HalfKernels& halves = half_kernels();
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    if (dtype == DType::F16) {
      halves.widen_half(source + 2 * begin, end - begin, target + begin);
    } else if (dtype == DType::BF16) {
      halves.widen_bfloat(source + 2 * begin, end - begin, target + begin);
    } else {
      widen_range(source, dtype, begin, end, target);
    }
  });
}

void widen_to_f64(const uint8_t* source, DType dtype, int64_t count, double* target, int threads) {
  parallel_for(count, kGrain, threads,
               [&](int64_t begin, int64_t end) { widen_range(source, dtype, begin, end, target); });
}

bool narrow_from_f32(const float* source, DType dtype, int64_t count, uint8_t* target, int threads) {
  const HalfKernels& halves = half_kernels();
  switch (dtype) {
    case DType::F32:
    case DType::F16:
    case DType::BF16:
    case DType::F8E4M3:
    case DType::F8E5M2:
      break;
    default:
      return false;
  }
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    switch (dtype) {
      case DType::F32:
        std::memcpy(target + 4 * begin, source + begin, 4 * static_cast<size_t>(end - begin));
        break;
      case DType::F16:
        halves.narrow_half(source + begin, end - begin, target + 2 * begin);
        break;
      case DType::BF16:
        halves.narrow_bfloat(source + begin, end - begin, target + 2 * begin);
        break;
      case DType::F8E4M3:
        for (int64_t i = begin; i < end; i++) target[i] = e4m3_of_float(source[i]);
        break;
      default:
        for (int64_t i = begin; i < end; i++) target[i] = e5m2_of_float(source[i]);
        break;
    }
  });
  return true;
}

}  // namespace surprisal
