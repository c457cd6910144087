// Node-API wrapper of the scanner of JSON lines.
#include <node_api.h>

#include <cstring>
#include <limits>
#include <new>

#include "arguments.hpp"
#include "json_columns.hpp"

namespace surprisal {
namespace {

// A typed array of `count` elements of `width` bytes; `data` points to them.
napi_value typed_array(napi_env env, napi_typedarray_type type, size_t width, size_t count, void** data) {
  napi_value buffer = nullptr;
  napi_value array = nullptr;
  if (napi_create_arraybuffer(env, count * width, data, &buffer) != napi_ok) return nullptr;
  if (napi_create_typedarray(env, type, count, buffer, 0, &array) != napi_ok) return nullptr;
  return array;
}

// (bytes, length, threads) -> {lines, fields, numbers}
napi_value ScanJsonLines(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 3);
  int64_t size;
  const uint8_t* bytes = arguments.bytes(0, &size);
  const int64_t length = arguments.integer(1);
  const int threads = static_cast<int>(arguments.integer(2));
  if (length < 0 || length > size || length > std::numeric_limits<int32_t>::max()) {
    arguments.fail("a block of lines has another length");
  }
  if (!arguments.ok()) return nullptr;
  try {
    const std::vector<JsonPart> parts = scan_json_lines(bytes, length, threads);
    size_t lines = 0, fields = 0, numbers = 0;
    for (const JsonPart& part : parts) {
      lines += part.lines.size();
      fields += part.fields.size();
      numbers += part.numbers.size();
    }
    void* line_data = nullptr;
    void* field_data = nullptr;
    void* number_data = nullptr;
    napi_value line_array = typed_array(env, napi_int32_array, 4, lines * kJsonLineIntegers, &line_data);
    napi_value field_array = typed_array(env, napi_int32_array, 4, fields * kJsonFieldIntegers, &field_data);
    napi_value number_array = typed_array(env, napi_float64_array, 8, numbers, &number_data);
    if (line_array == nullptr || field_array == nullptr || number_array == nullptr) return nullptr;
    JsonLine* line_at = static_cast<JsonLine*>(line_data);
    JsonField* field_at = static_cast<JsonField*>(field_data);
    double* number_at = static_cast<double*>(number_data);
    int32_t field_base = 0, number_base = 0;
    for (const JsonPart& part : parts) {
      for (JsonLine line : part.lines) {
        line.first_field += field_base;
        *line_at++ = line;
      }
      for (JsonField field : part.fields) {
        field.first_number += number_base;
        *field_at++ = field;
      }
      if (!part.numbers.empty()) std::memcpy(number_at, part.numbers.data(), part.numbers.size() * sizeof(double));
      number_at += part.numbers.size();
      field_base += static_cast<int32_t>(part.fields.size());
      number_base += static_cast<int32_t>(part.numbers.size());
    }
    napi_value result = nullptr;
    napi_create_object(env, &result);
    napi_set_named_property(env, result, "lines", line_array);
    napi_set_named_property(env, result, "fields", field_array);
    napi_set_named_property(env, result, "numbers", number_array);
    return result;
  } catch (const std::bad_alloc&) {
    napi_throw_error(env, "ENOMEM", "not enough memory for the numbers of a block of lines");
    return nullptr;
  }
}

}  // namespace

void register_json_columns(napi_env env, napi_value exports) {
  set_function(env, exports, "scanJsonLines", ScanJsonLines);
}

}  // namespace surprisal
