// The packed product on heap buffers of exactly its size, dense and sparse, over ragged shapes.
#include <cstdio>
#include <vector>

#include "../../csrc/cpu/kernels.h"

namespace fastsnn {
namespace FASTSNN_ISA {
extern const Kernels kernels;
}
}  // namespace fastsnn

using namespace fastsnn;

namespace {

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
  std::vector<float> x(size_t(s.batch * s.channels * pixels)), scale(size_t(s.outputs), 0.5f);
  for (size_t i = 0; i < x.size(); i++) x[i] = int64_t(i * 7919 % 100) < share ? float(i % 5) : 0.0f;
  std::vector<uint32_t> packed(size_t(blocks * s.kernel.height * s.kernel.width * words * kOutputs - missing_words),
                               0x93a5c6f1u);
  std::vector<float> y(size_t(s.batch * s.outputs * positions));
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
