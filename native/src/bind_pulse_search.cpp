// Node-API wrappers of pulse search, encoding and plain rounding. Options were checked by src/kernels/pulse-search.ts and
// src/quantization/encode-rows.ts; checked again is what would read or write outside a typed array.
#include <node_api.h>

#include "absmax_rounding.hpp"
#include "arguments.hpp"
#include "pulse_encode.hpp"
#include "pulse_search.hpp"
#include "pyramid_index.hpp"

namespace surprisal {
namespace {

struct Matrix {
  const float* x;
  int64_t rows, columns, groups;
};

// The first nine arguments of all three: x, rows, columns, D, K, mode, cap, negativeCap, exchange.
bool read_search(Arguments& arguments, Matrix& matrix, SearchSettings& settings) {
  int64_t length;
  matrix.x = arguments.floats(0, &length);
  matrix.rows = arguments.integer(1);
  matrix.columns = arguments.integer(2);
  settings.length = static_cast<int>(arguments.integer(3));
  settings.pulses = static_cast<int>(arguments.integer(4));
  const int64_t mode = arguments.integer(5);
  settings.cap = static_cast<int>(arguments.integer(6));
  settings.negative_cap = static_cast<int>(arguments.integer(7));
  settings.exchange = arguments.integer(8) != 0;
  if (!arguments.ok()) return false;
  if (mode < 0 || mode > 3) arguments.fail("unknown search mode");
  settings.mode = static_cast<SearchMode>(mode);
  if (settings.length < 1 || settings.pulses < 1 || settings.pulses > 32767 || matrix.rows < 0 || matrix.columns < 0 ||
      length != matrix.rows * matrix.columns) {
    arguments.fail("the weights do not fit their shape");
  }
  const bool free = settings.cap == 0 && settings.negative_cap == 0;
  const int64_t least = settings.cap < settings.negative_cap ? settings.cap : settings.negative_cap;
  if (!free && (least < 1 || least * settings.length < settings.pulses)) arguments.fail("the pulses exceed their caps");
  if (!arguments.ok()) return false;
  matrix.groups = (matrix.columns + settings.length - 1) / settings.length;
  return true;
}

const float* read_importance(Arguments& arguments, size_t at, const Matrix& matrix) {
  int64_t length;
  const float* importance = arguments.floats(at, &length);
  if (importance != nullptr && length != matrix.columns) arguments.fail("importances do not fit the columns");
  return importance;
}

// (x, rows, columns, D, K, mode, cap, negativeCap, exchange, importance | null, pulses, threads) -> whether all weights
// are finite
napi_value SearchPulses(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 12);
  Matrix matrix;
  SearchSettings settings;
  if (!read_search(arguments, matrix, settings)) return nullptr;
  const float* importance = read_importance(arguments, 9, matrix);
  int64_t length;
  int16_t* pulses = arguments.array<int16_t>(10, napi_int16_array, &length);
  const int threads = static_cast<int>(arguments.integer(11));
  if (length != matrix.rows * matrix.groups * settings.length) arguments.fail("the pulses do not fit the groups");
  if (!arguments.ok()) return nullptr;
  const bool finite = search_pulses(matrix.x, matrix.rows, matrix.columns, importance, settings, pulses, threads);
  napi_value result = nullptr;
  napi_get_boolean(env, finite, &result);
  return result;
}

// (x, rows, columns, D, K, mode, cap, negativeCap, exchange, importance | null, superGroup, gainBits, levels, keepNorm,
//  index, gain, scales, zeros | null, statistics, threads) -> whether all weights are finite
napi_value EncodePyramidRows(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 20);
  Matrix matrix;
  EncodeRequest request;
  if (!read_search(arguments, matrix, request.search)) return nullptr;
  request.importance = read_importance(arguments, 9, matrix);
  request.super_group = static_cast<int>(arguments.integer(10));
  request.gain_bits = static_cast<int>(arguments.integer(11));
  int64_t levels, index, gain, scales, zeros, statistics;
  request.levels = arguments.floats(12, &levels);
  request.keep_norm = arguments.integer(13) != 0;
  EncodeTarget target;
  target.index = arguments.bytes(14, &index);
  target.gain = arguments.bytes(15, &gain);
  target.scales = arguments.floats(16, &scales);
  target.zeros = arguments.bytes(17, &zeros);
  target.statistics = arguments.doubles(18, &statistics);
  const int threads = static_cast<int>(arguments.integer(19));
  if (!arguments.ok()) return nullptr;
  if (request.super_group < 1 || request.gain_bits < 0 || request.gain_bits > 8) {
    arguments.fail("the code's super-group or gain bits are out of range");
    return nullptr;
  }
  const IndexLayout layout =
      index_layout(request.search.length, request.search.pulses, request.super_group, matrix.groups);
  const bool fits = levels == int64_t{1} << request.gain_bits && index >= matrix.rows * layout.row_bytes &&
                    gain >= matrix.rows * ((matrix.groups * request.gain_bits + 7) / 8) && scales == matrix.rows &&
                    (target.zeros == nullptr || zeros >= matrix.rows * ((matrix.groups + 7) / 8)) &&
                    statistics == matrix.rows * kRowFields;
  if (!fits) arguments.fail("a target does not fit the code");
  if (!arguments.ok()) return nullptr;
  const bool finite = encode_pyramid_rows(matrix.x, matrix.rows, matrix.columns, request, target, threads);
  napi_value result = nullptr;
  napi_get_boolean(env, finite, &result);
  return result;
}

// (x, rows, width, D, K, mode, cap, negativeCap, exchange, importance | null, levels, scales, pulses, codes, decoded,
//  threads) -> whether all weights are finite
napi_value EncodePyramidBlock(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 16);
  Matrix matrix;
  SearchSettings settings;
  if (!read_search(arguments, matrix, settings)) return nullptr;
  const float* importance = read_importance(arguments, 9, matrix);
  int64_t levels, scales, pulses, codes, decoded;
  const float* level_values = arguments.floats(10, &levels);
  const float* scale_values = arguments.floats(11, &scales);
  int16_t* pulse_values = arguments.array<int16_t>(12, napi_int16_array, &pulses);
  uint8_t* code_values = arguments.bytes(13, &codes);
  float* decoded_values = arguments.floats(14, &decoded);
  const int threads = static_cast<int>(arguments.integer(15));
  if (!arguments.ok()) return nullptr;
  if (levels < 1 || levels > 256 || scales != matrix.rows || codes != matrix.rows * matrix.groups ||
      pulses != codes * settings.length || decoded != matrix.rows * matrix.columns) {
    arguments.fail("an array does not fit the block");
    return nullptr;
  }
  const bool finite =
      encode_pyramid_block(matrix.x, matrix.rows, matrix.columns, settings, importance, level_values, levels,
                           scale_values, pulse_values, code_values, decoded_values, threads);
  napi_value result = nullptr;
  napi_get_boolean(env, finite, &result);
  return result;
}

// (x, rows, columns, group, scales, codes, threads)
napi_value RoundToAbsmax(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  int64_t length, scales, codes;
  const float* x = arguments.floats(0, &length);
  const int64_t rows = arguments.integer(1), columns = arguments.integer(2), group = arguments.integer(3);
  uint16_t* scale_bits = arguments.array<uint16_t>(4, napi_uint16_array, &scales);
  uint8_t* packed = arguments.bytes(5, &codes);
  const int threads = static_cast<int>(arguments.integer(6));
  if (!arguments.ok()) return nullptr;
  if (rows < 0 || columns < 1 || group < 1 || length != rows * columns ||
      scales != rows * ((columns + group - 1) / group) || codes != rows * ((columns + 1) / 2)) {
    arguments.fail("an array does not fit the rows");
  }
  if (!arguments.ok()) return nullptr;
  round_to_absmax(x, rows, columns, group, scale_bits, packed, threads);
  return nullptr;
}

}  // namespace

void register_pulse_search(napi_env env, napi_value exports) {
  set_function(env, exports, "searchPulses", SearchPulses);
  set_function(env, exports, "encodePyramidRows", EncodePyramidRows);
  set_function(env, exports, "encodePyramidBlock", EncodePyramidBlock);
  set_function(env, exports, "roundToAbsmax", RoundToAbsmax);
}

}  // namespace surprisal
