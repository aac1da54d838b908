#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

// What the bindings learn of a torch.Tensor without torch's headers: through DLPack's table of C functions where torch
// has it (2.10), which costs less than one method of Python, else through the tensor's methods.
namespace fastsnn {
namespace bindings {

namespace py = pybind11;

// DLPack's stable binary interface (version 1)
namespace dlpack {

enum DeviceType : int32_t { kCpu = 1, kCuda = 2 };
enum TypeCode : uint8_t { kInt = 0, kFloat = 2, kBfloat = 4 };

struct Device {
  int32_t type, index;
  bool operator==(const Device& other) const { return type == other.type && index == other.index; }
};

struct Type {
  uint8_t code, bits;
  uint16_t lanes;
  bool operator==(const Type& other) const { return code == other.code && bits == other.bits && lanes == other.lanes; }
};

struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  Type dtype;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};

struct ExchangeApi {
  uint32_t major, minor;
  const void* previous;
  void *allocate, *managed_from_object, *managed_to_object;
  int (*from_object)(void* object, Tensor* out);
  void* stream;
};

}  // namespace dlpack

constexpr dlpack::Type kFloat32{dlpack::kFloat, 32, 1}, kFloat64{dlpack::kFloat, 64, 1};
constexpr dlpack::Type kInt32{dlpack::kInt, 32, 1}, kInt64{dlpack::kInt, 64, 1};
constexpr dlpack::Type kFloat16{dlpack::kFloat, 16, 1}, kBfloat16{dlpack::kBfloat, 16, 1};

struct TensorInfo {
  void* data = nullptr;
  int64_t count = 0;  // elements
  int64_t span = 0;   // elements from the first to the last in memory
  bool dense = true;  // without gaps and overlap, in any order of dimensions
  dlpack::Type dtype{};
  dlpack::Device device{};
};

// Counts elements, and finds out whether they fill their memory.
inline void measure(TensorInfo& tensor, int ndim, const int64_t* shape, const int64_t* strides) {
  tensor.count = 1;
  bool contiguous = true;
  for (int d = ndim - 1; d >= 0; d--) {
    contiguous = contiguous && (shape[d] == 1 || !strides || strides[d] == tensor.count);
    tensor.count *= shape[d];
  }
  tensor.span = tensor.count;
  if (contiguous || tensor.count == 0) return;
  std::vector<std::pair<int64_t, int64_t>> sides;
  tensor.span = 1;
  for (int d = 0; d < ndim; d++) {
    if (shape[d] > 1) sides.emplace_back(strides[d], shape[d]);
    tensor.span += strides[d] * (shape[d] - 1);
  }
  std::sort(sides.begin(), sides.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : sides) {
    tensor.dense = tensor.dense && stride == expected;
    expected *= size;
  }
}

// torch, as far as the bindings know it
class Torch {
 public:
  static const Torch& get() {
    static const Torch* torch = new Torch;  // outlives the interpreter's end
    return *torch;
  }

  TensorInfo read(PyObject* object) const {
    if (!PyObject_TypeCheck(object, tensor_)) throw py::type_error("it is no torch.Tensor");
    return api_ ? through_api(object) : through_methods(object);
  }

 private:
  Torch() {
    const py::module_ torch = py::module_::import("torch");
    tensor_ = reinterpret_cast<PyTypeObject*>(py::object(torch.attr("Tensor")).release().ptr());
    constexpr auto kName = "__dlpack_c_exchange_api__";
    const py::handle type(reinterpret_cast<PyObject*>(tensor_));
    if (py::hasattr(type, kName)) {
      const py::object capsule = type.attr(kName);
      const auto* api =
          static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
      if (api && api->major == 1 && api->from_object) api_ = api;
      PyErr_Clear();
    }
    for (const auto& [name, type] :
         {std::pair{"float32", kFloat32}, std::pair{"float64", kFloat64}, std::pair{"float16", kFloat16},
          std::pair{"bfloat16", kBfloat16}, std::pair{"int32", kInt32}, std::pair{"int64", kInt64}}) {
      types_.emplace_back(py::object(torch.attr(name)).release().ptr(), type);
    }
  }

  TensorInfo through_api(PyObject* object) const {
    dlpack::Tensor given{};
    if (api_->from_object(object, &given) != 0) throw py::error_already_set();
    TensorInfo tensor;
    tensor.data = given.data ? static_cast<char*>(given.data) + given.byte_offset : nullptr;
    tensor.dtype = given.dtype;
    tensor.device = given.device;
    measure(tensor, given.ndim, given.shape, given.strides);
    return tensor;
  }

  TensorInfo through_methods(PyObject* object) const {
    const py::handle of(object);
    TensorInfo tensor;
    tensor.data = PyLong_AsVoidPtr(of.attr("data_ptr")().ptr());
    const py::object dtype = of.attr("dtype");
    for (const auto& [known, type] : types_) {
      if (known == dtype.ptr()) tensor.dtype = type;
    }
    const int index = of.attr("get_device")().cast<int>();
    tensor.device = index < 0 ? dlpack::Device{dlpack::kCpu, 0} : dlpack::Device{dlpack::kCuda, index};
    if (of.attr("is_contiguous")().cast<bool>()) {
      tensor.count = tensor.span = of.attr("numel")().cast<int64_t>();
    } else {
      const auto shape = of.attr("shape").cast<std::vector<int64_t>>();
      const auto strides = of.attr("stride")().cast<std::vector<int64_t>>();
      measure(tensor, int(shape.size()), shape.data(), strides.data());
    }
    return tensor;
  }

  PyTypeObject* tensor_;
  const dlpack::ExchangeApi* api_ = nullptr;
  std::vector<std::pair<PyObject*, dlpack::Type>> types_;
};

inline std::string name_of(const dlpack::Type& type) {
  const std::string bits = std::to_string(type.bits);
  return (type.code == dlpack::kFloat ? "float" : type.code == dlpack::kBfloat ? "bfloat" : "int") + bits;
}

inline std::string name_of(const dlpack::Device& device) {
  if (device.type == dlpack::kCpu) return "cpu";
  return (device.type == dlpack::kCuda ? "cuda:" : "device " + std::to_string(device.type) + ":") +
         std::to_string(device.index);
}

}  // namespace bindings
}  // namespace fastsnn
