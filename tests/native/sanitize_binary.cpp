// The packed product, dense and sparse, over ragged shapes. Every buffer ends at a page that nobody may touch, since
// AddressSanitizer does not see the vector loads of intrinsics.
#include "sanitize_binary.h"

#include <sys/mman.h>

#include <cstdio>
#include <initializer_list>

#include "../../csrc/cpu/binary.h"

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

}  // namespace

int main(int argc, char**) {
  const auto run = [](const PackedProduct& k) { FASTSNN_ISA::packed_product(k, 2); };
  const auto product = [&](const sanitize::Shape& shape, int bits, int64_t share, int64_t missing_words) {
    sanitize::product<Guarded, float>(shape, Dtype::f32, bits, share, false, missing_words, run);
  };
  if (argc > 1) product(sanitize::kShapes[sanitize::kPlanted], 1, 100, 1);
  for (const sanitize::Shape& shape : sanitize::kShapes) {
    for (int bits : {1, 2}) {
      for (int64_t share : {100, 10, 0}) product(shape, bits, share, 0);
    }
  }
  std::puts("runs");
}
