#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
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

// The arguments of a call, in the order in which the kernel declares them: as Python has it, the first ones may come by
// position, the others by name.
class Arguments {
 public:
  Arguments(const char* kernel, const std::vector<PyObject*>& declared, PyObject* const* given, Py_ssize_t positional,
            PyObject* names)
      : kernel_(kernel),
        declared_(declared),
        given_(given),
        names_(names),
        positional_(positional),
        named_(names ? PyTuple_GET_SIZE(names) : 0) {
    if (size_t(positional_ + named_) != declared.size()) refuse_names();
  }

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
    int code = 0;
    (*this)(name, code, Dtype::count);
    dtype = Dtype(code);
  }
  // a code of an enum, of which there are so many
  template <class Enum>
  void operator()(const char* name, int& code, Enum count) {
    (*this)(name, code);
    if (code < 0 || code >= int(count)) fail(std::string(name) + ": unknown code");
  }
  void operator()(const char* name, double& value) { value = number(name, next()); }
  template <size_t count>
  void operator()(const char* name, int64_t (&numbers)[count]) {
    each(name, count, [&](size_t i, PyObject* item) { numbers[i] = integer(name, item); });
  }
  // the first `count` of them
  template <size_t most>
  void operator()(const char* name, double (&numbers)[most], int count) {
    each(name, size_t(count), [&](size_t i, PyObject* item) { numbers[i] = number(name, item); });
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
  PyObject* next() {
    const Py_ssize_t place = next_++;
    return given_[place < positional_ ? place : positional_ + find(declared_[size_t(place)], place - positional_)];
  }

  // Names are one object wherever a call is written; most come in the order in which they are declared.
  Py_ssize_t find(PyObject* name, Py_ssize_t first) const {
    for (Py_ssize_t i = 0, at = first; i < named_; i++, at = at + 1 < named_ ? at + 1 : 0) {
      if (PyTuple_GET_ITEM(names_, at) == name) return at;
    }
    for (Py_ssize_t at = 0; at < named_; at++) {
      if (PyUnicode_Compare(PyTuple_GET_ITEM(names_, at), name) == 0) return at;
    }
    refuse_names();
  }

  int64_t integer(const char* name, PyObject* object) const {
    const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(object));
    if (!index) refuse(name, object, "an integer");
    int overflow = 0;
    const int64_t number = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
    if (overflow) fail(std::string(name) + " does not fit in 64 bits");
    return number;
  }

  double number(const char* name, PyObject* object) const {
    const double number = PyFloat_AsDouble(object);
    if (number == -1.0 && PyErr_Occurred()) refuse(name, object, "a number");
    return number;
  }

  template <class Read>
  void each(const char* name, size_t count, const Read& read) {
    PyObject* const object = next();
    if (!PySequence_Check(object) || size_t(PySequence_Size(object)) != count) {
      refuse(name, object, "a sequence of its length");
    }
    for (size_t i = 0; i < count; i++) {
      const auto item = py::reinterpret_steal<py::object>(PySequence_GetItem(object, Py_ssize_t(i)));
      if (!item) refuse(name, object, "a sequence of numbers");
      read(i, item.ptr());
    }
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

  [[noreturn]] void refuse_names() const {
    const auto text = [](PyObject* name) { return std::string(py::str(py::handle(name))); };
    std::vector<std::string> wanted, given;  // by name
    for (size_t i = size_t(positional_); i < declared_.size(); i++) wanted.push_back(text(declared_[i]));
    for (Py_ssize_t at = 0; at < named_; at++) given.push_back(text(PyTuple_GET_ITEM(names_, at)));
    const auto lacking = [](const auto& names, const auto& among) {
      return *std::find_if(names.begin(), names.end(),
                           [&](const auto& name) { return std::count(among.begin(), among.end(), name) == 0; });
    };
    const std::string what =
        size_t(positional_) > declared_.size() ? "takes " + std::to_string(declared_.size()) + " arguments"
        : given.size() > wanted.size() ? "takes no argument " + lacking(given, wanted) + ", or has it by position"
                                       : "misses " + lacking(wanted, given);
    throw py::type_error(kernel_ + (" " + what));
  }

  const char* kernel_;
  const std::vector<PyObject*>& declared_;
  PyObject* const* given_;
  PyObject* names_;
  Py_ssize_t positional_, named_, next_ = 0;
  dlpack::Device device_{};
  Dtype dtype_{};
};

// What a struct declares, in words: `name: type` for each, `>` for what is written, `?` for what may be None, `*` for a
// tuple of as many as the rule says
class Declaration {
 public:
  std::string text;
  std::vector<PyObject*> names;

  void require(bool, const char*) const {}
  void operator()(const char* name, int64_t&) { add(name, "int"); }
  void operator()(const char* name, int&) { add(name, "int"); }
  template <class Enum>
  void operator()(const char* name, int&, Enum) {
    add(name, "int");
  }
  void operator()(const char* name, bool&) { add(name, "bool"); }
  void operator()(const char* name, Dtype&) { add(name, "dtype"); }
  void operator()(const char* name, double&) { add(name, "float"); }
  template <size_t count>
  void operator()(const char* name, int64_t (&)[count]) {
    add(name, "int[" + std::to_string(count) + "]");
  }
  template <size_t most>
  void operator()(const char* name, double (&)[most], int) {
    add(name, "float[]");
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
  void add(const char* name, const std::string& type) {
    text += (text.empty() ? "" : ", ") + std::string(name) + (type.empty() ? "" : ": " + type);
    names.push_back(PyUnicode_InternFromString(name));
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

template <class K, class = void>
struct HasRule : std::false_type {};
template <class K>
struct HasRule<K, std::void_t<decltype(K::rule)>> : std::true_type {};

// The struct of a kernel's operands, which comes last
template <class... Structs>
using Operands = std::tuple_element_t<sizeof...(Structs) - 1, std::tuple<Structs...>>;

template <class... Structs>
Declaration declared() {
  Declaration declaration;
  Operands<Structs...> k{};
  if (sizeof...(Structs) == 2) declaration.add("p", "");
  declaration.add("where", "");
  k.numbers(declaration);
  k.operands(declaration);
  return declaration;
}

// A Core has a type Where (on what to run), where(Arguments), device(Where) and the kernels. False: nothing to do.
template <class Core, class... Structs, class Run>
bool call(Arguments& arguments, const Run& run) {
  Operands<Structs...> k{};
  const LifParams* p = nullptr;
  if constexpr (sizeof...(Structs) == 2) p = &arguments.params();
  if constexpr (HasRule<decltype(k)>::value) k.rule = p->rule;
  const typename Core::Where where = Core::where(arguments);
  k.numbers(arguments);
  arguments.on(Core::device(where), k.dtype);
  k.operands(arguments);
  if (k.empty()) return false;
  py::gil_scoped_release nogil;
  if constexpr (sizeof...(Structs) == 2) {
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
    constexpr Function function = [](PyObject*, PyObject* const* given, Py_ssize_t positional, PyObject* names) { \
      return translated([&] {                                                                                     \
        Arguments arguments(#kernel, declaration.names, given, positional, names);                                \
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
