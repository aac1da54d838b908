#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "../core/arguments.h"
#include "tensor.h"

// Takes the operands of a call as its argument struct declares them (core/operands.h), before a byte is touched.
namespace fastsnn {
namespace bindings {

constexpr int64_t kMostParts = 4096;  // of a channel's sum

inline void require(bool ok, const char* message) {
  if (!ok) throw std::invalid_argument(message);
}

template <class Enum>
bool known(int value) {
  return value >= 0 && value < int(Enum::count);
}

inline Dtype dtype_of(int code) {
  require(known<Dtype>(code), "dtype: unknown code");
  return Dtype(code);
}

inline dlpack::Type type_of(Holds holds, Dtype dtype) {
  switch (holds) {
    case Holds::input:
      return dtype == Dtype::f32    ? kFloat32
             : dtype == Dtype::f64  ? kFloat64
             : dtype == Dtype::bf16 ? kBfloat16
                                    : kFloat16;
    case Holds::state:
      return dtype == Dtype::f64 ? kFloat64 : kFloat32;
    case Holds::float32:
      return kFloat32;
    case Holds::float64:
      return kFloat64;
    case Holds::int32:
      return kInt32;
    default:
      return kInt64;
  }
}

class Operands {
 public:
  Operands(const char* kernel, dlpack::Device device, Dtype dtype, const py::args& given)
      : kernel_(kernel), device_(device), dtype_(dtype), given_(given.ptr()), size_(PyTuple_GET_SIZE(given.ptr())) {}

  template <class T>
  void operator()(const char* name, T*& at, Holds holds, int64_t count, Need need = Need::always) {
    take(name, at, type_of(holds, dtype_), count, need, false);
  }

  // an operand that has a dtype of its own
  template <class T>
  void operator()(const char* name, T*& at, Dtype dtype, int64_t count, Need need = Need::always) {
    take(name, at, type_of(Holds::input, dtype), count, need, false);
  }

  // an operand whose elements lie in the call's own strides, `span` of them from the first to the last
  template <class T>
  void strided(const char* name, T*& at, Holds holds, int64_t span) {
    take(name, at, type_of(holds, dtype_), span, Need::always, true);
  }

  void end() const {
    if (next_ != size_) fail("takes " + std::to_string(next_) + " operands and was given " + std::to_string(size_));
  }

 private:
  template <class T>
  void take(const char* name, T*& at, dlpack::Type type, int64_t count, Need need, bool strided) {
    if (count == kNever) fail("the sizes of " + std::string(name) + " are negative or overflow");
    if (next_ >= size_) fail(std::string(name) + " is missing");
    PyObject* const object = PyTuple_GET_ITEM(given_, next_++);
    if (object == Py_None) {
      if (need == Need::always) fail(std::string(name) + " is None; needed: " + wanted(type, count));
      return;
    }
    const TensorInfo tensor = read(name, object);
    const bool enough = strided ? tensor.span >= count : tensor.count == count && tensor.dense;
    const bool fits = enough && tensor.dtype == type && tensor.device == device_;
    const bool aligned = reinterpret_cast<uintptr_t>(tensor.data) % (type.bits / 8) == 0;
    if (!fits || !aligned || (count > 0 && !tensor.data)) refuse(name, tensor, type, count, strided, aligned);
    at = static_cast<T*>(tensor.data);
  }

  TensorInfo read(const char* name, PyObject* object) const {
    try {
      return Torch::get().read(object);
    } catch (const py::type_error&) {
      throw py::type_error(std::string(kernel_) + ": " + name + " is " + Py_TYPE(object)->tp_name +
                           "; it must be a torch.Tensor, or None where it is not needed");
    } catch (const py::error_already_set& error) {  // of a tensor without memory: meta, sparse
      const std::string reason = py::str(error.value());
      fail(std::string(name) + " has no memory to read (" + reason.substr(0, reason.find('\n')) + ")");
    }
  }

  std::string wanted(const dlpack::Type& type, int64_t count) const {
    return std::to_string(count) + " elements of " + name_of(type) + " on " + name_of(device_);
  }

  [[noreturn]] void refuse(const char* name, const TensorInfo& tensor, const dlpack::Type& type, int64_t count,
                           bool strided, bool aligned) const {
    std::string given = std::to_string(strided ? tensor.span : tensor.count) + " elements of " + name_of(tensor.dtype) +
                        " on " + name_of(tensor.device);
    if (!tensor.dense && !strided) given += " with gaps or overlap";
    if (!aligned) given += " at an address that is no multiple of their size";
    if (!tensor.data && tensor.count > 0) given += " without memory";
    fail(std::string(name) + " has " + given + "; needed: " + (strided ? "at least " : "") + wanted(type, count));
  }

  [[noreturn]] void fail(const std::string& what) const { throw std::invalid_argument(kernel_ + (": " + what)); }

  const char* kernel_;
  dlpack::Device device_;
  Dtype dtype_;
  PyObject* given_;
  Py_ssize_t size_, next_ = 0;
};

// A kernel's call: what may be said of numbers alone was checked; `fits` says what operands are needed together.
template <class Core, class K, class Fits, class Run>
void call(const char* kernel, const typename Core::Execution& on, K k, const py::args& given, const Fits& fits,
          const Run& run) {
  Core::check(on);
  Operands operands(kernel, Core::device(on), k.dtype, given);
  k.operands(operands);
  operands.end();
  fits(k);
  if (k.empty()) return;
  py::gil_scoped_release nogil;
  run(k);
}

template <class Core, class K, class Run>
void call(const char* kernel, const typename Core::Execution& on, const K& k, const py::args& given, const Run& run) {
  call<Core>(kernel, on, k, given, [](const K&) {}, run);
}

}  // namespace bindings
}  // namespace fastsnn
