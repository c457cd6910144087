// Node-API functions of pyramid_index.
#include <node_api.h>

#include "arguments.hpp"
#include "pyramid_index.hpp"

namespace surprisal {
namespace {

// The arguments D, K, superGroup from `first` on, for rows of `groups` groups.
IndexLayout layout_arguments(Arguments& arguments, size_t first, int64_t groups) {
  const int64_t length = arguments.integer(first);
  const int64_t pulses = arguments.integer(first + 1);
  const int64_t super_group = arguments.integer(first + 2);
  if (length < 1 || pulses < 1 || pulses > INT16_MAX || length > INT32_MAX || super_group < 1 ||
      super_group > INT32_MAX || groups < 0) {
    arguments.fail("not the shape of a pyramid");
  }
  if (!arguments.ok()) return {};
  return index_layout(static_cast<int>(length), static_cast<int>(pulses), static_cast<int>(super_group), groups);
}

// (pulses, rows, groups, D, K, superGroup, target, threads) -> first group off the pyramid or -1
napi_value PackPulses(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 8);
  int64_t length, bytes;
  const int16_t* pulses = arguments.array<int16_t>(0, napi_int16_array, &length);
  const int64_t rows = arguments.integer(1);
  const int64_t groups = arguments.integer(2);
  const IndexLayout layout = layout_arguments(arguments, 3, groups);
  uint8_t* target = arguments.bytes(6, &bytes);
  const int threads = static_cast<int>(arguments.integer(7));
  if (!arguments.ok()) return nullptr;
  if (rows < 0 || length < rows * groups * layout.table->length || bytes < rows * layout.row_bytes) {
    arguments.fail("an array does not fit the rows");
    return nullptr;
  }
  return number_value(env, static_cast<double>(pack_pulses(layout, pulses, rows, target, threads)));
}

// (index, rows, groups, D, K, superGroup, target, threads) -> first group whose index is N or more, or -1
napi_value UnpackPulses(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 8);
  int64_t length, bytes;
  const uint8_t* index = arguments.bytes(0, &bytes);
  const int64_t rows = arguments.integer(1);
  const int64_t groups = arguments.integer(2);
  const IndexLayout layout = layout_arguments(arguments, 3, groups);
  int16_t* target = arguments.array<int16_t>(6, napi_int16_array, &length);
  const int threads = static_cast<int>(arguments.integer(7));
  if (!arguments.ok()) return nullptr;
  if (rows < 0 || length < rows * groups * layout.table->length || bytes < rows * layout.row_bytes) {
    arguments.fail("an array does not fit the rows");
    return nullptr;
  }
  return number_value(env, static_cast<double>(unpack_pulses(layout, index, bytes, rows, target, threads)));
}

// (index, gain, scales, levels, zeroGroups, columns, D, K, superGroup, gainBits, firstRow, rowCount, target, threads)
// -> first group whose index is N or more, or -1
napi_value DequantizePyramid(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 14);
  int64_t gain_bytes, scales, levels, zero_bytes, length;
  StoredRows encoded;
  encoded.index = arguments.bytes(0, &encoded.index_bytes);
  encoded.gain = arguments.bytes(1, &gain_bytes);
  encoded.scales = arguments.floats(2, &scales);
  encoded.levels = arguments.floats(3, &levels);
  encoded.zero_groups = arguments.bytes(4, &zero_bytes);
  encoded.columns = arguments.integer(5);
  const int64_t group_length = arguments.integer(6);
  if (group_length < 1 || encoded.columns < 0) arguments.fail("not the shape of a pyramid");
  if (!arguments.ok()) return nullptr;
  const int64_t groups = (encoded.columns + group_length - 1) / group_length;
  const IndexLayout layout = layout_arguments(arguments, 6, groups);
  encoded.gain_bits = static_cast<int>(arguments.integer(9));
  const int64_t first_row = arguments.integer(10);
  const int64_t rows = arguments.integer(11);
  float* target = arguments.floats(12, &length);
  const int threads = static_cast<int>(arguments.integer(13));
  const int64_t end = first_row + rows;
  const bool sized = first_row >= 0 && rows >= 0 && encoded.gain_bits >= 0 && encoded.gain_bits <= 8;
  if (!arguments.ok()) return nullptr;
  if (!sized || encoded.index_bytes < end * layout.row_bytes ||
      gain_bytes < end * ((groups * encoded.gain_bits + 7) / 8) || scales < end ||
      levels < (int64_t{1} << encoded.gain_bits) ||
      (encoded.zero_groups != nullptr && zero_bytes < end * ((groups + 7) / 8)) || length < rows * encoded.columns) {
    arguments.fail("an array does not fit the rows");
    return nullptr;
  }
  return number_value(env, static_cast<double>(dequantize_pyramid(layout, encoded, first_row, rows, target, threads)));
}

}  // namespace

void register_pyramid_index(napi_env env, napi_value exports) {
  set_function(env, exports, "packPulses", PackPulses);
  set_function(env, exports, "unpackPulses", UnpackPulses);
  set_function(env, exports, "dequantizePyramid", DequantizePyramid);
}

}  // namespace surprisal
