#include "onnx_runtime.hpp"

#include <dlfcn.h>

#include <mutex>

namespace surprisal {
namespace {

// Places in the table of functions, which the library keeps from version to version (onnxruntime_c_api.h, OrtApi).
enum Place {
  kGetErrorMessage = 2,
  kCreateEnv = 3,
  kCreateSessionFromArray = 8,
  kRun = 9,
  kCreateSessionOptions = 10,
  kEnableMemPattern = 16,
  kDisableMemPattern = 17,
  kEnableCpuMemArena = 18,
  kDisableCpuMemArena = 19,
  kSetSessionLogSeverityLevel = 22,
  kSetSessionGraphOptimizationLevel = 23,
  kSetIntraOpNumThreads = 24,
  kSetInterOpNumThreads = 25,
  kCreateTensorWithDataAsOrtValue = 49,
  kGetTensorMutableData = 51,
  kGetTensorElementType = 60,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTensorTypeAndShape = 65,
  kCreateCpuMemoryInfo = 69,
  kReleaseStatus = 93,
  kReleaseSession = 95,
  kReleaseValue = 96,
  kReleaseTensorTypeAndShapeInfo = 99,
  kReleaseSessionOptions = 100,
  kAddSessionConfigEntry = 130,
};

constexpr uint32_t kApiVersion = 5;  // the first with all of them
constexpr int kFatal = 4;            // least severity of the runtime's own log
constexpr int kDeviceAllocator = 0;
constexpr int kDefaultMemory = 0;

struct ApiBase {
  const void* const* (*get_api)(uint32_t version);
  const char* (*version)();
};

// The library's functions and what all sessions share; it stays until the process ends.
struct Runtime {
  const void* const* table = nullptr;
  void* environment = nullptr;
  void* memory = nullptr;
};

Runtime runtime;
std::mutex opening;

// Calls a function that gives a status; returns its message, "" for success.
template <class... A>
std::string call(Place place, A... arguments) {
  void* status = reinterpret_cast<void* (*)(A...)>(const_cast<void*>(runtime.table[place]))(arguments...);
  if (status == nullptr) return "";
  const auto message_of =
      reinterpret_cast<const char* (*)(const void*)>(const_cast<void*>(runtime.table[kGetErrorMessage]));
  std::string message = message_of(status);
  reinterpret_cast<void (*)(void*)>(const_cast<void*>(runtime.table[kReleaseStatus]))(status);
  return message.empty() ? "failed without a message" : message;
}

void release_with(Place place, void* object) {
  if (object != nullptr) reinterpret_cast<void (*)(void*)>(const_cast<void*>(runtime.table[place]))(object);
}

std::string open_runtime(const char* library) {
  const std::lock_guard<std::mutex> lock(opening);
  if (runtime.table != nullptr) return "";
  void* handle = dlopen(library, RTLD_NOLOAD | RTLD_NOW);  // only the one that onnxruntime-node has loaded
  if (handle == nullptr) return "the library of ONNX Runtime is not loaded";
  const auto base = reinterpret_cast<const ApiBase* (*)()>(dlsym(handle, "OrtGetApiBase"));
  const void* const* table = base == nullptr ? nullptr : base()->get_api(kApiVersion);
  if (table == nullptr) return "the library of ONNX Runtime has another interface";
  runtime.table = table;
  std::string message = call(kCreateEnv, kFatal, "surprisal", &runtime.environment);
  if (message.empty()) message = call(kCreateCpuMemoryInfo, kDeviceAllocator, kDefaultMemory, &runtime.memory);
  if (!message.empty()) runtime.table = nullptr;
  return message;
}

std::string configure(void* options, const OnnxSessionSettings& settings) {
  std::string message = call(kSetIntraOpNumThreads, options, settings.threads);
  if (message.empty()) message = call(kSetInterOpNumThreads, options, 1);
  if (message.empty()) message = call(kSetSessionGraphOptimizationLevel, options, settings.optimisation);
  if (message.empty()) message = call(settings.arena ? kEnableCpuMemArena : kDisableCpuMemArena, options);
  if (message.empty()) message = call(settings.arena ? kEnableMemPattern : kDisableMemPattern, options);
  if (message.empty()) message = call(kSetSessionLogSeverityLevel, options, kFatal);
  // Several sessions share the cores: an idle one must not spin.
  if (message.empty()) message = call(kAddSessionConfigEntry, options, "session.intra_op.allow_spinning", "0");
  return message;
}

}  // namespace

int64_t onnx_type_bytes(OnnxType type) {
  switch (type) {
    case OnnxType::U8:
    case OnnxType::Bool:
      return 1;
    case OnnxType::F32:
    case OnnxType::I32:
      return 4;
    case OnnxType::F64:
    case OnnxType::I64:
      return 8;
  }
  return 0;
}

OnnxSession* OnnxSession::open(const char* library, const void* model, size_t bytes,
                               const OnnxSessionSettings& settings, std::string* error) {
  *error = open_runtime(library);
  if (!error->empty()) return nullptr;
  void* options = nullptr;
  void* session = nullptr;
  *error = call(kCreateSessionOptions, &options);
  if (error->empty()) *error = configure(options, settings);
  if (error->empty()) {
    *error = call(kCreateSessionFromArray, runtime.environment, model, bytes, static_cast<const void*>(options),
                  &session);
  }
  release_with(kReleaseSessionOptions, options);
  return error->empty() ? new OnnxSession(session) : nullptr;
}

OnnxSession::~OnnxSession() { release_with(kReleaseSession, session_); }

std::string OnnxSession::run_values(const std::vector<OnnxTensor>& inputs, const std::vector<OnnxTensor>& outputs,
                                    std::vector<void*>* values) {
  std::vector<const char*> names;
  std::string message;
  for (const auto* list : {&inputs, &outputs}) {
    for (const OnnxTensor& tensor : *list) {
      names.push_back(tensor.name.c_str());
      values->push_back(nullptr);
      if (tensor.data == nullptr || !message.empty()) continue;
      int64_t bytes = onnx_type_bytes(tensor.type);
      for (const int64_t extent : tensor.dims) bytes *= extent;
      message = call(kCreateTensorWithDataAsOrtValue, static_cast<const void*>(runtime.memory), tensor.data,
                     static_cast<size_t>(bytes), tensor.dims.data(), tensor.dims.size(),
                     static_cast<int>(tensor.type), &values->back());
    }
  }
  if (!message.empty()) return message;
  return call(kRun, session_, static_cast<const void*>(nullptr), static_cast<const char* const*>(names.data()),
              static_cast<const void* const*>(values->data()), inputs.size(),
              static_cast<const char* const*>(names.data() + inputs.size()), outputs.size(),
              values->data() + inputs.size());
}

std::string OnnxSession::describe(void* value, OnnxTensor* tensor) {
  void* info = nullptr;
  int type = 0;
  size_t rank = 0;
  std::string message = call(kGetTensorTypeAndShape, static_cast<const void*>(value), &info);
  if (message.empty()) message = call(kGetTensorElementType, static_cast<const void*>(info), &type);
  if (message.empty()) message = call(kGetDimensionsCount, static_cast<const void*>(info), &rank);
  tensor->dims.resize(rank);
  if (message.empty()) message = call(kGetDimensions, static_cast<const void*>(info), tensor->dims.data(), rank);
  if (message.empty()) message = call(kGetTensorMutableData, value, &tensor->data);
  release_with(kReleaseTensorTypeAndShapeInfo, info);
  tensor->type = static_cast<OnnxType>(type);
  if (message.empty() && onnx_type_bytes(tensor->type) == 0) message = "an output has a type without an array";
  return message;
}

void OnnxSession::release(const std::vector<void*>& values) {
  for (void* value : values) release_with(kReleaseValue, value);
}

}  // namespace surprisal
