// The CUDA kernels of binary synapses on exactly sized heap arrays. Arguments: `tiny` for one small size of each,
// `plant` for a word too few, which must be seen.
#include "../native/sanitize_binary.h"

#include "../../csrc/cuda/kernels.h"
#include "../native/sanitize.h"

using namespace fastsnn;

namespace {

constexpr cuda::Stream kStream{0, nullptr};

// `skew` elements in front break the alignment
template <class T, int skew>
class Heap {
 public:
  explicit Heap(int64_t n) : memory_(size_t(n + skew)) {}
  T* data() { return memory_.data() + skew; }
  T& operator[](int64_t i) { return data()[i]; }

 private:
  std::vector<T> memory_;
};
template <class T>
using Aligned = Heap<T, 0>;
template <class T>
using Skewed = Heap<T, 1>;

template <template <class> class Array, class T>
void product(const sanitize::Shape& shape, Dtype dtype, int64_t missing_words) {
  const auto run = [](const PackedProduct& k) { cuda::packed_product(k, kStream); };
  for (const int bits : {1, 2}) {
    for (const bool last : {false, true}) {
      sanitize::product<Array, T>(shape, dtype, bits, 100, last, missing_words, run);
    }
  }
}

template <template <class> class Array>
void products(const sanitize::Shape& shape, int64_t missing_words) {
  product<Array, float>(shape, Dtype::f32, missing_words);
  product<Array, uint16_t>(shape, Dtype::f16, missing_words);
  product<Array, uint16_t>(shape, Dtype::bf16, missing_words);
}

void transform(int64_t rows, int64_t cols, int64_t skew) {
  for (int dtype = 0; dtype < int(Dtype::count); dtype++) {
    const int64_t n = rows * cols, width = sanitize::width(Dtype(dtype));
    sanitize::Buffer weight(n, width, skew), out(n, width, skew), g_weight(n, width, skew), scale(rows, 8, 0);
    const Binarize k{rows, cols, Dtype(dtype), weight.data()};
    for (const bool scaled : {true, false}) {
      cuda::binarize_forward(BinarizeForward{k, scaled, scale.data(), out.data()}, kStream);
    }
    cuda::binarize_backward(BinarizeBackward{k, out.data(), g_weight.data()}, kStream);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "plant") == 0) products<Aligned>(sanitize::kShapes[sanitize::kPlanted], 1);
  if (argc > 1 && std::strcmp(argv[1], "tiny") == 0) {
    // few positions, and a tile of two taps and words with both halves of the staged spikes
    products<Aligned>({2, 8, 17, {1, 1}, {1, 1}, {1, 1}, {0, 0}}, 0);
    products<Aligned>({1, 40, 17, {1, 10}, {1, 2}, {1, 1}, {0, 0}}, 0);
    transform(2, 40, 0);
  } else {
    for (const sanitize::Shape& shape : sanitize::kShapes) products<Aligned>(shape, 0), products<Skewed>(shape, 0);
    for (const int64_t cols : {1, 7, 8, 4609}) transform(3, cols, 0), transform(3, cols, 1);
  }
  std::puts("runs");
}
