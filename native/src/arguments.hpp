// Unpacks the arguments of a Node-API call, and makes its results.
#pragma once
#include <node_api.h>

#include <cstdint>
#include <vector>

namespace surprisal {

constexpr size_t kMostArguments = 24;

// The bytes of one typed array of several.
struct ByteSpan {
  uint8_t* data;
  int64_t length;
};

// Arguments of one call. After a failure every getter gives zeros, and the caller returns null to raise the error.
class Arguments {
 public:
  Arguments(napi_env env, napi_callback_info info, size_t expected) : env_(env) {
    size_t count = kMostArguments;
    if (napi_get_cb_info(env, info, &count, values_, nullptr, nullptr) != napi_ok || count != expected) {
      fail("wrong number of arguments");
    }
  }

  bool ok() const { return ok_; }

  void fail(const char* message) {
    if (ok_) napi_throw_type_error(env_, nullptr, message);
    ok_ = false;
  }

  double number(size_t index) {
    double value = 0;
    if (ok_ && napi_get_value_double(env_, values_[index], &value) != napi_ok) fail("expected a number");
    return ok_ ? value : 0;
  }

  int64_t integer(size_t index) { return static_cast<int64_t>(number(index)); }

  // Null, with length 0, for null and undefined.
  template <class T>
  T* array(size_t index, napi_typedarray_type type, int64_t* length) {
    *length = 0;
    if (!ok_) return nullptr;
    napi_valuetype kind;
    if (napi_typeof(env_, values_[index], &kind) == napi_ok && (kind == napi_null || kind == napi_undefined)) {
      return nullptr;
    }
    napi_typedarray_type actual;
    size_t count = 0;
    void* data = nullptr;
    if (napi_get_typedarray_info(env_, values_[index], &actual, &count, &data, nullptr, nullptr) != napi_ok ||
        actual != type) {
      fail("expected a typed array of another type");
      return nullptr;
    }
    *length = static_cast<int64_t>(count);
    return static_cast<T*>(data);
  }

  uint8_t* bytes(size_t index, int64_t* length) { return array<uint8_t>(index, napi_uint8_array, length); }
  double* doubles(size_t index, int64_t* length) { return array<double>(index, napi_float64_array, length); }
  float* floats(size_t index, int64_t* length) { return array<float>(index, napi_float32_array, length); }
  int32_t* integers(size_t index, int64_t* length) { return array<int32_t>(index, napi_int32_array, length); }

  // A JavaScript array of Uint8Arrays.
  std::vector<ByteSpan> byte_arrays(size_t index) {
    std::vector<ByteSpan> result;
    uint32_t count = 0;
    if (!ok_) return result;
    if (napi_get_array_length(env_, values_[index], &count) != napi_ok) fail("expected an array of byte arrays");
    for (uint32_t i = 0; ok_ && i < count; i++) {
      napi_value element;
      napi_typedarray_type type;
      size_t length = 0;
      void* data = nullptr;
      if (napi_get_element(env_, values_[index], i, &element) != napi_ok ||
          napi_get_typedarray_info(env_, element, &type, &length, &data, nullptr, nullptr) != napi_ok ||
          type != napi_uint8_array) {
        fail("expected an array of byte arrays");
        break;
      }
      result.push_back({static_cast<uint8_t*>(data), static_cast<int64_t>(length)});
    }
    return result;
  }

 private:
  napi_env env_;
  napi_value values_[kMostArguments];
  bool ok_ = true;
};

inline napi_value number_value(napi_env env, double value) {
  napi_value result = nullptr;
  napi_create_double(env, value, &result);
  return result;
}

inline napi_value string_value(napi_env env, const char* text) {
  napi_value result = nullptr;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &result);
  return result;
}

inline void set_function(napi_env env, napi_value exports, const char* name, napi_callback callback) {
  napi_value function = nullptr;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function) != napi_ok) return;
  napi_set_named_property(env, exports, name, function);
}

}  // namespace surprisal
