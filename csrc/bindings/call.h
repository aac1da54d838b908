#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <climits>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

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

// The names of what a kernel takes, and where each stands in a call: as Python has it, the first ones may come by
// position. Names are one object wherever a call is written: they are compared when it is another one than before.
class Signature {
 public:
  static constexpr size_t kMost = 64;
  using Places = std::array<uint8_t, kMost>;

  Signature(const char* kernel, const std::string& names) : kernel_(kernel) {
    for (size_t from = 0, to; from < names.size(); from = to + 2) {
      to = std::min(names.find(", ", from), names.size());
      names_.push_back(PyUnicode_InternFromString(names.substr(from, to - from).c_str()));
    }
    if (names_.size() > kMost) throw std::logic_error(kernel + std::string(" takes too many arguments"));
  }

  // given: the names of what comes behind those by position, or null where there are none
  Places places(Py_ssize_t positional, PyObject* given) {
    if (!given || given != last_ || positional != positional_) compare(positional, given);
    return places_;
  }

 private:
  void compare(Py_ssize_t positional, PyObject* given) {
    const Py_ssize_t named = given ? PyTuple_GET_SIZE(given) : 0, count = Py_ssize_t(names_.size());
    if (positional > count) fail("takes " + std::to_string(count) + " arguments");
    Places places{};
    std::vector<bool> known(size_t(named), false);
    for (Py_ssize_t i = 0; i < count; i++) {
      const Py_ssize_t at = i < positional ? i : positional + find(names_[size_t(i)], given, named, i - positional);
      if (at == positional + named) fail("misses " + text(names_[size_t(i)]));
      places[size_t(i)] = uint8_t(at);
      if (i >= positional) known[size_t(at - positional)] = true;
    }
    for (Py_ssize_t at = 0; at < named; at++) {
      if (known[size_t(at)]) continue;
      fail("takes no argument " + text(PyTuple_GET_ITEM(given, at)) + ", or has it by position");
    }
    Py_XINCREF(given);
    std::swap(last_, given);
    Py_XDECREF(given);
    places_ = places, positional_ = positional;
  }

  [[noreturn]] void fail(const std::string& what) const { throw py::type_error(kernel_ + (" " + what)); }

  // most are the same objects, in the order in which they are declared
  static Py_ssize_t find(PyObject* name, PyObject* given, Py_ssize_t count, Py_ssize_t first) {
    for (Py_ssize_t i = 0; i < count; i++) {
      const Py_ssize_t at = (first + i) % count;
      if (PyTuple_GET_ITEM(given, at) == name) return at;
    }
    for (Py_ssize_t at = 0; at < count; at++) {
      if (PyUnicode_Compare(PyTuple_GET_ITEM(given, at), name) == 0) return at;
    }
    return count;
  }

  static std::string text(PyObject* name) { return py::str(py::handle(name)); }

  const char* kernel_;
  std::vector<PyObject*> names_;
  PyObject* last_ = nullptr;  // a reference, so that its address is no other's
  Py_ssize_t positional_ = 0;
  Places places_{};
};

// The arguments of a call, in the order in which they are declared
class Arguments {
 public:
  Arguments(const char* kernel, const Signature::Places& places, PyObject* const* given)
      : kernel_(kernel), places_(places), given_(given) {}

  // what follows lies on this device and is of the call's dtype
  void on(dlpack::Device device, Dtype dtype) { device_ = device, dtype_ = dtype; }

  void require(bool ok, const char* message) const {
    if (!ok) fail(message);
  }

  void operator()(const char* name, int64_t& number) { number = integer(name, next()); }
  void operator()(const char* name, int& number) {
    const int64_t wide = integer(name, next());
    if (wide < INT_MIN || wide > INT_MAX) fail(std::string(name) + " does not fit in 32 bits");
    number = int(wide);
  }
  void operator()(const char* name, bool& flag) { flag = integer(name, next()) != 0; }
  void operator()(const char* name, Dtype& dtype) {
    const int64_t code = integer(name, next());
    if (!known<Dtype>(code)) fail(std::string(name) + ": unknown code");
    dtype = Dtype(code);
  }
  void operator()(const char* name, double& number) {
    PyObject* const object = next();
    number = PyFloat_AsDouble(object);
    if (number == -1.0 && PyErr_Occurred()) refuse(name, object, "a number");
  }
  template <size_t count>
  void operator()(const char* name, int64_t (&numbers)[count]) {
    PyObject* const object = next();
    if (!PySequence_Check(object) || PySequence_Size(object) != count) refuse(name, object, "a sequence of its length");
    for (size_t i = 0; i < count; i++) {
      const auto item = py::reinterpret_steal<py::object>(PySequence_GetItem(object, Py_ssize_t(i)));
      if (!item) refuse(name, object, "a sequence of integers");
      numbers[i] = integer(name, item.ptr());
    }
  }
  const LifParams& params() {
    PyObject* const object = next();
    try {
      return py::handle(object).cast<const LifParams&>();
    } catch (const py::cast_error&) {
      refuse("p", object, "this core's LifParams");
    }
  }

  template <class T>
  void operator()(const char* name, T*& at, Holds holds, int64_t count, Need need = Need::always) {
    take(name, at, type_of(holds, dtype_), count, need, false, next());
  }
  // an operand that has a dtype of its own
  template <class T>
  void operator()(const char* name, T*& at, Dtype dtype, int64_t count, Need need = Need::always) {
    take(name, at, type_of(Holds::input, dtype), count, need, false, next());
  }
  // an operand whose elements lie in the call's own strides, `span` of them from the first to the last
  template <class T>
  void strided(const char* name, T*& at, Holds holds, int64_t span) {
    take(name, at, type_of(holds, dtype_), span, Need::always, true, next());
  }
  // a tuple of them, which nobody changes while a kernel runs
  template <class T, size_t most>
  void operator()(const char* name, T* (&at)[most], const SlotsTaken& slots) {
    PyObject* const object = next();
    if (!PyTuple_Check(object)) refuse(name, object, "a tuple");
    if (PyTuple_GET_SIZE(object) != slots.count) {
      fail(std::string(name) + " holds " + std::to_string(PyTuple_GET_SIZE(object)) +
           " operands; needed: " + std::to_string(slots.count));
    }
    for (int j = 0; j < slots.count; j++) {
      take(slots.names[j], at[j], type_of(Holds::state, dtype_), slots.elements[j], Need::optional, false,
           PyTuple_GET_ITEM(object, j));
    }
  }

 private:
  PyObject* next() { return given_[places_[next_++]]; }

  int64_t integer(const char* name, PyObject* object) const {
    const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(object));
    if (!index) refuse(name, object, "an integer");
    int overflow = 0;
    const int64_t number = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
    if (overflow) fail(std::string(name) + " does not fit in 64 bits");
    return number;
  }

  template <class T>
  void take(const char* name, T*& at, dlpack::Type type, int64_t count, Need need, bool strided, PyObject* object) {
    if (count == kNever) fail("the sizes of " + std::string(name) + " are negative or overflow");
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
  const Signature::Places places_;
  PyObject* const* given_;
  size_t next_ = 0;
  dlpack::Device device_{};
  Dtype dtype_{};
};

// What a struct declares, in words: `name: type` for each, `>` for what is written, `?` for what may be None, `*` for a
// tuple of as many as the rule says
class Declaration {
 public:
  std::string text, names;

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
  void operator()(const char* name, T* (&)[most], const SlotsTaken&) {
    add(name, "*" + role<T>() + "state?");
  }
  void add(const std::string& name, const std::string& type) {
    text += (text.empty() ? "" : ", ") + name + (type.empty() ? "" : ": " + type);
    names += (names.empty() ? "" : ", ") + name;
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
Declaration declared() {
  Declaration declaration;
  typename CallOf<Structs...>::type k{};
  if (kNeuron<Structs...>) declaration.add("p", "");
  declaration.add("where", "");
  k.numbers(declaration);
  k.operands(declaration);
  return declaration;
}

// A Core has a type Where (on what to run), where(Arguments), device(Where) and the kernels. False: nothing to do.
template <class Core, class... Structs, class Run>
bool call(Arguments& arguments, const Run& run) {
  typename CallOf<Structs...>::type k{};
  const LifParams* p = nullptr;
  if constexpr (kNeuron<Structs...>) p = &arguments.params();
  if constexpr (HasRule<decltype(k)>::value) k.rule = p->rule;
  const typename Core::Where where = Core::where(arguments);
  k.numbers(arguments);
  arguments.on(Core::device(where), k.dtype);
  k.operands(arguments);
  if (k.empty()) return false;
  py::gil_scoped_release nogil;
  if constexpr (sizeof...(Structs) == 3) {
    run(*p, k, k.neuron(), where);
  } else if constexpr (kNeuron<Structs...>) {
    run(*p, k, where);
  } else {
    run(k, where);
  }
  return true;
}

// f's object, or the Python error of a C++ one
template <class F>
PyObject* translated(const F& f) {
  try {
    return py::object(f()).release().ptr();
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

using Function = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*);

// Around pybind11, whose own call costs more than reading the arguments does
inline void add(py::module_& m, PyMethodDef& definition) {
  PyObject* const function = PyCFunction_NewEx(&definition, nullptr, m.attr("__name__").ptr());
  if (!function) throw py::error_already_set();
  m.add_object(definition.ml_name, py::reinterpret_steal<py::object>(function));
}

// Binds a Core's kernel, which says whether there was anything to do, and says in `kernels` what it takes.
#define FASTSNN_BIND(kernel, ...)                                                                                 \
  {                                                                                                               \
    static const Declaration declaration = declared<__VA_ARGS__>();                                               \
    static Signature signature(#kernel, declaration.names);                                                       \
    constexpr Function function = [](PyObject*, PyObject* const* given, Py_ssize_t positional, PyObject* names) { \
      return translated([&] {                                                                                     \
        Arguments arguments(#kernel, signature.places(positional, names), given);                                 \
        return py::bool_(call<Core, __VA_ARGS__>(arguments, Core::kernel));                                       \
      });                                                                                                         \
    };                                                                                                            \
    static PyMethodDef definition{#kernel, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), \
                                  METH_FASTCALL | METH_KEYWORDS, nullptr};                                        \
    add(m, definition);                                                                                           \
    kernels[#kernel] = declaration.text;                                                                          \
  }

}  // namespace bindings
}  // namespace fastsnn
