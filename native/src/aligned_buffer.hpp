// Uninitialised memory on cache lines.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>

namespace surprisal {

template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(int64_t count) { reserve(count); }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() { release(); }

  // Room for `count` elements; what was there may be lost.
  void reserve(int64_t count) {
    if (count <= capacity_) return;
    release();
    data_ = static_cast<T*>(::operator new(static_cast<size_t>(count) * sizeof(T), kLine));
    capacity_ = count;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }

 private:
  static constexpr std::align_val_t kLine{64};

  void release() {
    if (data_ != nullptr) ::operator delete(data_, kLine);
    data_ = nullptr;
    capacity_ = 0;
  }

  T* data_ = nullptr;
  int64_t capacity_ = 0;
};

}  // namespace surprisal
