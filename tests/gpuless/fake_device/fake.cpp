// A device that is not there: a back end of torch whose tensors lie in CPU memory and refuse to mix with CPU tensors.
// It counts what a GPU would make the host wait for, and what it would launch.

#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>

#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

namespace {

constexpr auto TYPE = c10::DeviceType::PrivateUse1;
const c10::Device DEVICE(TYPE, 0);

struct Counts {
  int64_t reads = 0;    // values that the host waits for
  int64_t copies = 0;   // blocking copies to the device
  int64_t kernels = 0;  // of torch
};
Counts counts;

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = nullptr;
    TORCH_CHECK(!bytes || !posix_memalign(&memory, 512, bytes), "no memory");
    return {memory, memory, &std::free, DEVICE};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
Allocator allocator;
REGISTER_ALLOCATOR(TYPE, &allocator);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return TYPE; }
  c10::Device exchangeDevice(c10::Device) const override { return DEVICE; }
  c10::Device getDevice() const override { return DEVICE; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, DEVICE); }
  c10::Stream getNewStream(c10::Device device, int) const override { return getStream(device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return getStream(stream.device()); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

void grow(const c10::Storage& storage, size_t bytes) {
  auto memory = allocator.allocate(bytes);
  if (storage.nbytes()) std::memcpy(memory.get(), storage.data(), std::min(bytes, storage.nbytes()));
  storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(memory));
  storage.unsafeGetStorageImpl()->set_nbytes(bytes);
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  void init() const override {}
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::globalContext().defaultGenerator(at::kCPU);
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override { grow(storage, bytes); }
};

at::Tensor empty(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
                 std::optional<c10::Device>, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<c10::ScalarType> dtype,
                         std::optional<c10::Layout>, std::optional<c10::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}

// the same memory as a CPU tensor
at::Tensor on_host(const at::Tensor& t) {
  if (!t.is_privateuseone()) return t;
  auto options = at::TensorOptions().dtype(t.dtype()).device(at::kCPU);
  return at::from_blob(t.numel() ? t.data_ptr() : nullptr, t.sizes(), t.strides(), options);
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  at::NoGradGuard no_grad;
  if (from.is_cpu() && to.is_privateuseone() && !non_blocking) counts.copies++;
  if (to.is_cpu() && from.is_privateuseone()) counts.reads++;
  if (from.is_privateuseone() && to.is_privateuseone()) counts.kernels++;
  if (to.numel()) on_host(to).copy_(on_host(from));
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) const_cast<at::Tensor&>(to).resize_(from.sizes());
  return copy_from(from, to, false);
}

const at::Tensor& resize(const at::Tensor& self, c10::IntArrayRef size, std::optional<c10::MemoryFormat>) {
  int64_t n = self.storage_offset();
  n += c10::multiply_integers(size);
  const size_t bytes = n * self.itemsize();
  if (bytes > self.storage().nbytes()) grow(self.storage(), bytes);
  self.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  return self;
}

at::Scalar local_scalar(const at::Tensor& self) {
  counts.reads++;
  return on_host(self).item();
}

// copies of a fallback are no copies of the program's
struct Uncounted {
  Counts before = counts;
  ~Uncounted() { counts = before; }
};

at::Tensor on_device(const at::Tensor& t) { return t.defined() ? t.to(DEVICE) : t; }

at::Tensor convolution(const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>& b,
                       c10::SymIntArrayRef stride, c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
                       bool transposed, c10::SymIntArrayRef output_padding, c10::SymInt groups) {
  TORCH_CHECK(x.is_privateuseone() && w.is_privateuseone(), "fake device: a convolution of tensors on two devices");
  counts.kernels++;
  Uncounted here;
  const auto bias = b && b->defined() ? std::optional<at::Tensor>(b->cpu()) : std::nullopt;
  return on_device(
      at::convolution_symint(x.cpu(), w.cpu(), bias, stride, padding, dilation, transposed, output_padding, groups));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(const at::Tensor& g, const at::Tensor& x,
                                                                    const at::Tensor& w, c10::SymIntArrayRef stride,
                                                                    c10::SymIntArrayRef padding,
                                                                    c10::SymIntArrayRef dilation, bool transposed,
                                                                    c10::SymIntArrayRef output_padding,
                                                                    c10::SymInt groups, std::array<bool, 3> wanted) {
  TORCH_CHECK(g.is_privateuseone() && x.is_privateuseone() && w.is_privateuseone(),
              "fake device: a convolution's gradient of tensors on two devices");
  counts.kernels++;
  Uncounted here;
  std::vector<c10::SymInt> bias{w.sym_size(0)};
  auto [g_x, g_w, g_b] =
      at::convolution_backward_symint(g.cpu(), x.cpu(), w.cpu(), at::OptionalSymIntArrayRef(c10::SymIntArrayRef(bias)),
                                      stride, padding, dilation, transposed, output_padding, groups, wanted);
  return {on_device(g_x), on_device(g_w), on_device(g_b)};
}

// what gives the host a value, or a tensor whose size is one
bool waits(const c10::FunctionSchema& schema) {
  static const std::set<std::string> SIZED = {"aten::nonzero", "aten::masked_select", "aten::_unique2",
                                              "aten::repeat_interleave.Tensor"};
  for (const auto& value : schema.returns())
    if (value.type()->kind() == c10::TypeKind::BoolType || value.type()->kind() == c10::TypeKind::NumberType)
      return true;
  return SIZED.count(schema.name());
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto& name = schema.name();
  bool device = false, cpu = false, mask = false, generator = false;
  const auto seen = [&](const at::Tensor& t) {
    if (!t.defined()) return;
    device |= t.is_privateuseone();
    cpu |= t.is_cpu() && t.dim() > 0;
    mask |= t.scalar_type() == at::kBool;
  };
  const size_t n = schema.arguments().size();
  for (size_t i = stack->size() - n; i < stack->size(); i++) {
    const auto& value = (*stack)[i];
    if (value.isTensor()) seen(value.toTensor());
    if (value.isTensorList())
      for (const at::Tensor& t : value.toTensorVector()) seen(t);
    if (value.isOptionalTensorList())
      for (const auto& t : value.toOptionalTensorVector())
        if (t) seen(*t);
    generator |= value.isGenerator() && value.toGenerator().device().is_cpu();
  }
  const bool indexing = name.rfind("aten::index", 0) == 0 || name.rfind("aten::_index_put", 0) == 0;
  TORCH_CHECK(!(device && cpu) || indexing, "fake device: ", name, " of tensors on the fake device and on the CPU");
  TORCH_CHECK(!(device && generator), "fake device: ", name, " with a generator of the CPU");
  counts.kernels++;
  if (waits(schema) || (mask && name == "aten::index")) counts.reads++;
  Uncounted here;
  at::native::cpu_fallback(op, stack);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("resize_", &resize);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("_local_scalar_dense", &local_scalar);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  at::RegisterPrivateUse1HooksInterface(new Hooks());
  m.def("counts", [] { return std::make_tuple(counts.reads, counts.copies, counts.kernels); });
}
