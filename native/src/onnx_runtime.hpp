// Sessions of the ONNX Runtime that onnxruntime-node has loaded, through the C interface of its library. They read and
// write the caller's memory, while the package's own binding copies every output into a new array.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace surprisal {

// Element types of ONNX that graphs of this package have.
enum class OnnxType : int32_t { F32 = 1, U8 = 2, I32 = 6, I64 = 7, Bool = 9, F64 = 11 };

int64_t onnx_type_bytes(OnnxType type);  // 0 for a type that is not among them

struct OnnxTensor {
  std::string name;
  OnnxType type = OnnxType::F32;
  std::vector<int64_t> dims;
  void* data = nullptr;  // null: an output that the runtime allocates
};

struct OnnxSessionSettings {
  int threads;
  bool arena;
  int optimisation;  // 0 none, 1 basic, 99 all
};

class OnnxSession {
 public:
  // Null with a message when the library is not loaded or refuses the model.
  static OnnxSession* open(const char* library, const void* model, size_t bytes, const OnnxSessionSettings& settings,
                           std::string* error);
  ~OnnxSession();
  OnnxSession(const OnnxSession&) = delete;
  OnnxSession& operator=(const OnnxSession&) = delete;

  // Where `data` is null, `take` is shown the output's place, type, dims and memory, which is gone afterwards. Returns
  // the runtime's message, "" for success.
  template <class Take>
  std::string run(const std::vector<OnnxTensor>& inputs, const std::vector<OnnxTensor>& outputs, Take take) {
    std::vector<void*> values;
    std::string message = run_values(inputs, outputs, &values);
    for (size_t i = 0; message.empty() && i < outputs.size(); i++) {
      if (outputs[i].data != nullptr) continue;
      OnnxTensor made;
      message = describe(values[inputs.size() + i], &made);
      if (message.empty()) take(i, made);
    }
    release(values);
    return message;
  }

 private:
  explicit OnnxSession(void* session) : session_(session) {}
  std::string run_values(const std::vector<OnnxTensor>& inputs, const std::vector<OnnxTensor>& outputs,
                         std::vector<void*>* values);
  std::string describe(void* value, OnnxTensor* tensor);
  void release(const std::vector<void*>& values);

  void* session_;
};

}  // namespace surprisal
