// The layers of a network, as Python hands them over.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <new>

namespace {

using i64 = std::int64_t;

template <typename T>
struct Buffer {  // without values, as a vector would not be
  static constexpr std::align_val_t ALIGNED{64};
  explicit Buffer(i64 n) : values(static_cast<T*>(::operator new(sizeof(T) * (n + 64), ALIGNED))) {}
  ~Buffer() { ::operator delete(values, ALIGNED); }
  Buffer(const Buffer&) = delete;
  operator T*() const { return values; }
  T* values;
};

template <typename T>
struct Layer {
  i64 inputs, outputs, stride;
  bool residual;
  const float *weight, *bias;  // (outputs, inputs), rows a stride apart; (outputs,), or one for each of some items
  T* hidden;                   // (rows, inputs): what it is given
};

}  // namespace
