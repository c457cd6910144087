// Node-API wrapper of the encoders of GGUF blocks.
#include <node_api.h>

#include "arguments.hpp"
#include "ggml_encode.hpp"

namespace surprisal {
namespace {

// (source, rows, columns, type, byMagnitude, importance | null, target, threads)
napi_value EncodeGgml(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 8);
  int64_t source_length, importance_length, target_length;
  GgmlEncodeRequest request;
  request.source = arguments.floats(0, &source_length);
  request.rows = arguments.integer(1);
  request.columns = arguments.integer(2);
  const int64_t code = arguments.integer(3);
  request.by_magnitude = arguments.integer(4) != 0;
  request.importance = arguments.doubles(5, &importance_length);
  request.target = arguments.bytes(6, &target_length);
  const int threads = static_cast<int>(arguments.integer(7));
  if (code < 0 || code >= kGgmlTypes) arguments.fail("unknown block type");
  if (!arguments.ok()) return nullptr;
  request.type = static_cast<GgmlType>(code);
  const GgmlLayout layout = ggml_layout(request.type);
  const int64_t blocks = request.columns / layout.block_elements;
  if (request.rows < 0 || request.columns < 0 || blocks * layout.block_elements != request.columns ||
      source_length < request.rows * request.columns || target_length < request.rows * blocks * layout.block_bytes ||
      (request.importance != nullptr && importance_length < request.columns)) {
    arguments.fail("an array does not fit the rows");
    return nullptr;
  }
  if (request.rows > 0 && request.columns > 0) encode_ggml(request, threads);
  return nullptr;
}

}  // namespace

void register_ggml_encode(napi_env env, napi_value exports) {
  set_function(env, exports, "encodeGgml", EncodeGgml);
}

}  // namespace surprisal
