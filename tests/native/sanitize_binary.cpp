// The packed product, dense and sparse, over ragged shapes. Every buffer ends at a page that nobody may touch, since
// AddressSanitizer does not see the vector loads of intrinsics.
#include <sys/mman.h>

#include <cstdio>
#include <initializer_list>

#include "../../csrc/cpu/kernels.h"

namespace fastsnn {
namespace FASTSNN_ISA {
extern const Kernels kernels;
}
}  // namespace fastsnn

using namespace fastsnn;

namespace {

template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t n) : bytes_((size_t(n) * sizeof(T) + kPage - 1) / kPage * kPage) {
    base_ =
        static_cast<char*>(mmap(nullptr, bytes_ + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_ + bytes_, kPage, PROT_NONE);
    at_ = reinterpret_cast<T*>(base_ + bytes_) - n;
  }
  ~Guarded() { munmap(base_, bytes_ + kPage); }
  Guarded(const Guarded&) = delete;
  T* data() { return at_; }
  T& operator[](int64_t i) { return at_[i]; }

 private:
  static constexpr size_t kPage = 4096;
  size_t bytes_;
  char* base_;
  T* at_;
};

struct Shape {
  int64_t batch, channels, outputs;
  Plane in, kernel, stride, padding;
};

int64_t out_side(int64_t in, int64_t kernel, int64_t stride, int64_t padding) {
  return (in + 2 * padding - kernel) / stride + 1;
}

void run(const Shape& s, int bits, int64_t share, int64_t missing_words) {
  const Plane out{out_side(s.in.height, s.kernel.height, s.stride.height, s.padding.height),
                  out_side(s.in.width, s.kernel.width, s.stride.width, s.padding.width)};
  const int64_t pixels = s.in.height * s.in.width, positions = out.height * out.width;
  const int64_t blocks = (s.outputs + kOutputs - 1) / kOutputs, words = (s.channels * bits + 31) / 32;
  const int64_t inputs = s.batch * s.channels * pixels;
  const int64_t all_words = blocks * s.kernel.height * s.kernel.width * words * kOutputs - missing_words;
  Guarded<float> x(inputs), scale(s.outputs), y(s.batch * s.outputs * positions);
  Guarded<uint32_t> packed(all_words);
  for (int64_t i = 0; i < inputs; i++) x[i] = i * 7919 % 100 < share ? float(i % 5) : 0.0f;
  for (int64_t i = 0; i < s.outputs; i++) scale[i] = 0.5f;
  for (int64_t i = 0; i < all_words; i++) packed[i] = 0x93a5c6f1u;
  PackedProduct k{s.batch,
                  s.channels,
                  s.outputs,
                  s.in,
                  out,
                  s.kernel,
                  s.stride,
                  s.padding,
                  Plane{1, 1},
                  {s.channels * pixels, pixels, s.in.width, 1},
                  {s.outputs * positions, positions, out.width, 1},
                  bits,
                  Dtype::f32,
                  x.data(),
                  packed.data(),
                  scale.data(),
                  nullptr,
                  y.data()};
  FASTSNN_ISA::kernels.packed_product(k, 2);
}

}  // namespace

int main(int argc, char**) {
  const Shape shapes[] = {{1, 1, 1, {1, 1}, {1, 1}, {1, 1}, {0, 0}},     {9, 70, 33, {1, 1}, {1, 1}, {1, 1}, {0, 0}},
                          {300, 33, 17, {1, 1}, {1, 1}, {1, 1}, {0, 0}}, {2, 40, 150, {13, 11}, {3, 3}, {1, 1}, {1, 1}},
                          {3, 600, 18, {5, 4}, {2, 3}, {2, 1}, {0, 2}},  {1, 2000, 70, {1, 1}, {1, 1}, {1, 1}, {0, 0}},
                          {1, 3, 4, {2, 2}, {1, 1}, {1, 1}, {3, 3}}};
  if (argc > 1) run(shapes[3], 1, 100, 1);
  for (const Shape& shape : shapes) {
    for (int bits : {1, 2}) {
      for (int64_t share : {100, 10, 0}) run(shape, bits, share, 0);
    }
  }
  std::puts("runs");
}
