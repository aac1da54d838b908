#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>

// What an argument struct declares of a call, once, for whoever makes it: `numbers(take)` calls take(name, number) for
// each, then `operands(take)` take(name, pointer, type, elements, need), in the order of the call. A pointer to const
// is read, another written. What they must be together they say to take.require(ok, message). `empty()`: there is
// nothing to do.
namespace fastsnn {

// Type of an operand's elements. input: the call's dtype; state: double for double input and float otherwise
enum class Holds : int { input, state, float32, float64, int32, int64 };

enum class Need : int { always, optional };

// No operand has as many: what sizes that are negative or overflow ask for
constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

constexpr int64_t kMostParts = 4096;  // of a channel's sum

inline int64_t elements(std::initializer_list<int64_t> sizes) {
  int64_t product = 1;
  for (const int64_t size : sizes) {
    if (size < 0 || (size > 0 && product > (kNever - 1) / size)) return kNever;
    product *= size;
  }
  return product;
}

}  // namespace fastsnn
