// openOnnxSession, runOnnxSession and closeOnnxSession of the addon.
#include <cstring>

#include "arguments.hpp"
#include "onnx_runtime.hpp"

namespace surprisal {
namespace {

napi_value fail(napi_env env, const std::string& message) {
  napi_throw_error(env, nullptr, message.c_str());
  return nullptr;
}

bool text_of(napi_env env, napi_value value, std::string* text) {
  size_t length = 0;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) return false;
  text->resize(length);
  return napi_get_value_string_utf8(env, value, &(*text)[0], length + 1, &length) == napi_ok;
}

// What a handle holds; null once the session is closed.
struct Handle {
  OnnxSession* session;
};

void finalize(napi_env, void* data, void*) {
  Handle* handle = static_cast<Handle*>(data);
  delete handle->session;
  delete handle;
}

// (library, model, threads, arena, optimisation) -> handle
napi_value Open(napi_env env, napi_callback_info info) {
  size_t count = 5;
  napi_value arguments[5];
  std::string library;
  napi_typedarray_type type;
  size_t bytes = 0;
  void* model = nullptr;
  double numbers[3];
  bool right = napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr) == napi_ok && count == 5 &&
               text_of(env, arguments[0], &library) &&
               napi_get_typedarray_info(env, arguments[1], &type, &bytes, &model, nullptr, nullptr) == napi_ok &&
               type == napi_uint8_array;
  for (int i = 0; right && i < 3; i++) right = napi_get_value_double(env, arguments[2 + i], &numbers[i]) == napi_ok;
  if (!right) return fail(env, "openOnnxSession: expected a library, bytes and three numbers");
  std::string error;
  const OnnxSessionSettings settings{static_cast<int>(numbers[0]), numbers[1] != 0, static_cast<int>(numbers[2])};
  OnnxSession* session = OnnxSession::open(library.c_str(), model, bytes, settings, &error);
  if (session == nullptr) return fail(env, error);
  Handle* handle = new Handle{session};
  napi_value result = nullptr;
  if (napi_create_external(env, handle, finalize, nullptr, &result) != napi_ok) finalize(env, handle, nullptr);
  return result;
}

Handle* handle_of(napi_env env, napi_value value) {
  void* data = nullptr;
  return napi_get_value_external(env, value, &data) == napi_ok ? static_cast<Handle*>(data) : nullptr;
}

// One tensor of a call; `layout` moves behind what is read of it: type, rank, extents.
bool read_tensor(napi_env env, napi_value name, napi_value array, const double** layout, const double* end,
                 OnnxTensor* tensor) {
  if (!text_of(env, name, &tensor->name)) return false;
  napi_valuetype kind;
  if (napi_typeof(env, array, &kind) != napi_ok) return false;
  if (kind == napi_null) return true;
  if (end - *layout < 2) return false;
  tensor->type = static_cast<OnnxType>(static_cast<int32_t>((*layout)[0]));
  const int64_t rank = static_cast<int64_t>((*layout)[1]);
  *layout += 2;
  if (rank < 0 || end - *layout < rank) return false;
  int64_t wanted = onnx_type_bytes(tensor->type);
  if (wanted == 0) return false;
  for (int64_t i = 0; i < rank; i++) {
    const int64_t extent = static_cast<int64_t>((*layout)[i]);
    if (extent < 0) return false;
    tensor->dims.push_back(extent);
    wanted *= extent;
  }
  *layout += rank;
  napi_typedarray_type type;
  size_t length = 0;
  if (napi_get_typedarray_info(env, array, &type, &length, &tensor->data, nullptr, nullptr) != napi_ok) return false;
  int64_t width = 1;
  if (type == napi_float32_array || type == napi_int32_array) width = 4;
  if (type == napi_float64_array || type == napi_bigint64_array) width = 8;
  static int64_t nothing;  // an empty array may have no memory
  if (tensor->data == nullptr) tensor->data = &nothing;
  return static_cast<int64_t>(length) * width == wanted;
}

// A new output as [type, dims, memory].
void show_output(napi_env env, napi_value results, uint32_t index, const OnnxTensor& made) {
  int64_t bytes = onnx_type_bytes(made.type);
  napi_value entry, dims, memory;
  napi_create_array_with_length(env, 3, &entry);
  napi_create_array_with_length(env, made.dims.size(), &dims);
  for (size_t i = 0; i < made.dims.size(); i++) {
    bytes *= made.dims[i];
    napi_set_element(env, dims, static_cast<uint32_t>(i), number_value(env, static_cast<double>(made.dims[i])));
  }
  void* data = nullptr;
  if (napi_create_arraybuffer(env, static_cast<size_t>(bytes), &data, &memory) != napi_ok) {
    napi_throw_error(env, nullptr, "out of memory for an output");
    return;
  }
  if (bytes > 0) std::memcpy(data, made.data, static_cast<size_t>(bytes));
  napi_set_element(env, entry, 0, number_value(env, static_cast<double>(static_cast<int32_t>(made.type))));
  napi_set_element(env, entry, 1, dims);
  napi_set_element(env, entry, 2, memory);
  napi_set_element(env, results, index, entry);
}

// (handle, names, arrays, layout, inputs) -> [[type, dims, memory] where the array of an output is null]
napi_value Run(napi_env env, napi_callback_info info) {
  size_t count = 5;
  napi_value arguments[5];
  uint32_t tensors = 0;
  napi_typedarray_type type;
  size_t length = 0;
  void* layout_data = nullptr;
  double inputs_wanted = 0;
  if (napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr) != napi_ok || count != 5 ||
      napi_get_array_length(env, arguments[1], &tensors) != napi_ok ||
      napi_get_typedarray_info(env, arguments[3], &type, &length, &layout_data, nullptr, nullptr) != napi_ok ||
      type != napi_float64_array || napi_get_value_double(env, arguments[4], &inputs_wanted) != napi_ok) {
    return fail(env, "runOnnxSession: expected a session, names, arrays, their layout and a number");
  }
  Handle* handle = handle_of(env, arguments[0]);
  if (handle == nullptr || handle->session == nullptr) return fail(env, "the session is closed");
  std::vector<OnnxTensor> inputs, outputs;
  const double* layout = static_cast<const double*>(layout_data);
  const double* end = layout + length;
  for (uint32_t i = 0; i < tensors; i++) {
    napi_value name, array;
    OnnxTensor tensor;
    const bool is_input = i < inputs_wanted;
    if (napi_get_element(env, arguments[1], i, &name) != napi_ok ||
        napi_get_element(env, arguments[2], i, &array) != napi_ok ||
        !read_tensor(env, name, array, &layout, end, &tensor) || (is_input && tensor.data == nullptr)) {
      return fail(env, "tensor " + std::to_string(i) + " of a graph does not fit its array");
    }
    (is_input ? inputs : outputs).push_back(tensor);
  }
  napi_value results;
  napi_create_array_with_length(env, outputs.size(), &results);
  const std::string message = handle->session->run(inputs, outputs, [&](size_t i, const OnnxTensor& made) {
    show_output(env, results, static_cast<uint32_t>(i), made);
  });
  if (!message.empty()) return fail(env, message);
  return results;
}

// (handle)
napi_value Close(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  Handle* handle = count == 1 ? handle_of(env, argument) : nullptr;
  if (handle == nullptr) return fail(env, "closeOnnxSession: expected a session");
  delete handle->session;
  handle->session = nullptr;
  return nullptr;
}

}  // namespace

void register_onnx_runtime(napi_env env, napi_value exports) {
  set_function(env, exports, "openOnnxSession", Open);
  set_function(env, exports, "runOnnxSession", Run);
  set_function(env, exports, "closeOnnxSession", Close);
}

}  // namespace surprisal
