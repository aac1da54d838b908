#pragma once

#include <pybind11/pybind11.h>

#include <climits>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>

#include "../core/kernels.h"
#include "tensor.h"

// Takes the arguments of a call as its struct declares them (core/operands.h), before a byte is touched. Shapes of
// tensors are fastsnn/ops' to check; that each has the memory its call needs is checked here.
namespace fastsnn {
namespace bindings {

template <class Enum>
bool known(int64_t value) {
  return value >= 0 && value < int64_t(Enum::count);
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

class Arguments {
 public:
  Arguments(const char* kernel, PyObject* const* given, Py_ssize_t count)
      : kernel_(kernel), given_(given), count_(count) {}

  // what follows lies on this device and is of the call's dtype
  void on(dlpack::Device device, Dtype dtype) { device_ = device, dtype_ = dtype; }

  void require(bool ok, const char* message) const {
    if (!ok) fail(message);
  }

  void operator()(const char* name, int64_t& number) { number = integer(name, next(name)); }
  void operator()(const char* name, int& number) {
    const int64_t wide = integer(name, next(name));
    if (wide < INT_MIN || wide > INT_MAX) fail(std::string(name) + " does not fit in 32 bits");
    number = int(wide);
  }
  void operator()(const char* name, bool& flag) { flag = integer(name, next(name)) != 0; }
  void operator()(const char* name, Dtype& dtype) {
    const int64_t code = integer(name, next(name));
    if (!known<Dtype>(code)) fail(std::string(name) + ": unknown code");
    dtype = Dtype(code);
  }
  void operator()(const char* name, double& number) {
    PyObject* const object = next(name);
    number = PyFloat_AsDouble(object);
    if (number == -1.0 && PyErr_Occurred()) refuse(name, object, "a number");
  }
  template <size_t count>
  void operator()(const char* name, int64_t (&numbers)[count]) {
    PyObject* const object = next(name);
    if (!PySequence_Check(object) || PySequence_Size(object) != count) refuse(name, object, "a sequence of its length");
    for (size_t i = 0; i < count; i++) {
      const auto item = py::reinterpret_steal<py::object>(PySequence_GetItem(object, Py_ssize_t(i)));
      if (!item) refuse(name, object, "a sequence of integers");
      numbers[i] = integer(name, item.ptr());
    }
  }
  const LifParams& params() {
    PyObject* const object = next("p");
    try {
      return py::handle(object).cast<const LifParams&>();
    } catch (const py::cast_error&) {
      refuse("p", object, "this core's LifParams");
    }
  }

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
  // as many operands follow as the rule has of them
  template <class Slots>
  void group(const char*, const Slots&) const {}

  void end() const {
    if (next_ != count_) {
      fail("takes " + std::to_string(next_) + " arguments and was given " + std::to_string(count_));
    }
  }

 private:
  PyObject* next(const char* name) {
    if (next_ >= count_) fail(std::string(name) + " is missing");
    return given_[next_++];
  }

  int64_t integer(const char* name, PyObject* object) const {
    const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(object));
    if (!index) refuse(name, object, "an integer");
    int overflow = 0;
    const int64_t number = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
    if (overflow) fail(std::string(name) + " does not fit in 64 bits");
    return number;
  }

  template <class T>
  void take(const char* name, T*& at, dlpack::Type type, int64_t count, Need need, bool strided) {
    if (count == kNever) fail("the sizes of " + std::string(name) + " are negative or overflow");
    PyObject* const object = next(name);
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
      refuse(name, object, "a torch.Tensor, or None where it is not needed");
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

  [[noreturn]] void refuse(const char* name, PyObject* object, const char* must_be) const {
    PyErr_Clear();
    throw py::type_error(std::string(kernel_) + ": " + name + " is " + Py_TYPE(object)->tp_name + "; it must be " +
                         must_be);
  }

  [[noreturn]] void fail(const std::string& what) const { throw std::invalid_argument(kernel_ + (": " + what)); }

  const char* kernel_;
  PyObject* const* given_;
  Py_ssize_t count_, next_ = 0;
  dlpack::Device device_{};
  Dtype dtype_{};
};

// What a struct declares, in words: `name: type` for each, `>` for what is written, `?` for what may be None, `*` for
// what there is as often as the rule says
class Declaration {
 public:
  std::string text;

  void require(bool, const char*) const {}
  void operator()(const char* name, int64_t&) { add(name, "int"); }
  void operator()(const char* name, int&) { add(name, "int"); }
  void operator()(const char* name, bool&) { add(name, "bool"); }
  void operator()(const char* name, Dtype&) { add(name, "dtype"); }
  void operator()(const char* name, double&) { add(name, "float"); }
  template <size_t count>
  void operator()(const char* name, int64_t (&)[count]) {
    add(name, "int[" + std::to_string(count) + "]");
  }
  template <class T, class Type>
  void operator()(const char* name, T*&, Type type, int64_t, Need need = Need::always) {
    add(name, role<T>() + word(type) + (need == Need::optional ? "?" : ""));
  }
  template <class T>
  void strided(const char* name, T*&, Holds holds, int64_t) {
    add(name, role<T>() + word(holds) + " strided");
  }
  template <class T, size_t most>
  void group(const char* name, T* (&)[most]) {
    add(std::string("*") + name, role<T>() + "state?");
  }

 private:
  template <class T>
  static std::string role() {
    return std::is_const_v<T> ? "" : ">";
  }
  static std::string word(Dtype) { return "own"; }
  static std::string word(Holds holds) {
    constexpr const char* kWords[] = {"input", "state", "float32", "float64", "int32", "int64"};
    return kWords[int(holds)];
  }
  void add(const std::string& name, const std::string& type) {
    text += (text.empty() ? "" : ", ") + name + ": " + type;
  }
};

// What the structs of a kernel's call come in
template <class... Structs>
struct CallOf;
template <class K>
struct CallOf<K> {
  using type = K;
};
template <class K>
struct CallOf<LifParams, K> {
  using type = K;
};
template <>
struct CallOf<LifParams, OsrForward, LifForward> {
  using type = OsrLifForward;
};
template <>
struct CallOf<LifParams, OsrReduce, LifBackward> {
  using type = OsrLifReduce;
};

template <class K, class = void>
struct HasRule : std::false_type {};
template <class K>
struct HasRule<K, std::void_t<decltype(K::rule)>> : std::true_type {};

template <class... Structs>
constexpr bool kNeuron = std::is_same_v<std::tuple_element_t<0, std::tuple<Structs...>>, LifParams>;

template <class... Structs>
std::string declared() {
  Declaration declaration;
  typename CallOf<Structs...>::type k{};
  k.numbers(declaration);
  k.operands(declaration);
  return (kNeuron<Structs...> ? "p, where, " : "where, ") + declaration.text;
}

// A Core has a type Where (on what to run), where(Arguments), device(Where) and the kernels.
template <class Core, class... Structs, class Run>
void call(Arguments& arguments, const Run& run) {
  typename CallOf<Structs...>::type k{};
  const LifParams* p = nullptr;
  if constexpr (kNeuron<Structs...>) p = &arguments.params();
  if constexpr (HasRule<decltype(k)>::value) k.rule = p->rule;
  const typename Core::Where where = Core::where(arguments);
  k.numbers(arguments);
  arguments.on(Core::device(where), k.dtype);
  k.operands(arguments);
  arguments.end();
  if (k.empty()) return;
  py::gil_scoped_release nogil;
  if constexpr (sizeof...(Structs) == 3) {
    run(*p, k, k.neuron(), where);
  } else if constexpr (kNeuron<Structs...>) {
    run(*p, k, where);
  } else {
    run(k, where);
  }
}

// None, or the Python error of a C++ one
template <class F>
PyObject* translated(const F& f) {
  try {
    f();
    return py::none().release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::logic_error& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

using Function = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);

// Around pybind11, whose own call costs more than reading the arguments does
inline void add(py::module_& m, PyMethodDef& definition) {
  PyObject* const function = PyCFunction_NewEx(&definition, nullptr, m.attr("__name__").ptr());
  if (!function) throw py::error_already_set();
  m.add_object(definition.ml_name, py::reinterpret_steal<py::object>(function));
}

// Binds a Core's kernel, and says in `kernels` what it takes.
#define FASTSNN_BIND(kernel, ...)                                                                                 \
  {                                                                                                               \
    constexpr Function function = [](PyObject*, PyObject* const* given, Py_ssize_t count) {                       \
      return translated([&] {                                                                                     \
        Arguments arguments(#kernel, given, count);                                                               \
        call<Core, __VA_ARGS__>(arguments, Core::kernel);                                                         \
      });                                                                                                         \
    };                                                                                                            \
    static PyMethodDef definition{#kernel, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), \
                                  METH_FASTCALL, nullptr};                                                        \
    add(m, definition);                                                                                           \
    kernels[#kernel] = declared<__VA_ARGS__>();                                                                   \
  }

}  // namespace bindings
}  // namespace fastsnn
