#pragma once

#include <string>

#include "../lif.h"

// Whether rules write what they declare, found by a step of each.
namespace fastsnn {
namespace FASTSNN_ISA {

struct Watched {
  double value = 1.0;
  bool written = false;

  operator double() const { return value; }
  Watched& operator=(double now) {
    value = now, written = true;
    return *this;
  }
};

template <class R>
struct WatchedSlots {
  Watched at[R::count > 0 ? R::count : 1];
};

// What is wrong with a rule, naming it, its file and a slot; empty where nothing is.
template <class R>
std::string fault_of(const char* name, const char* file) {
  const Lif<double> p{};
  WatchedSlots<R> settled, after;
  R::template settle<Reset::soft>(p, 1.0, true, settled);
  R::advance(p, Now<double>{1.0, true, 1.0, 1.0, 1.0, 1.0, false}, after);
  for (int j = 0; j < R::count; j++) {
    const Slot& slot = R::slots[j];
    const auto& own = slot.drives ? settled : after;
    const auto& other = slot.drives ? after : settled;
    const std::string where = slot.drives ? "settle" : "advance", elsewhere = slot.drives ? "advance" : "settle";
    const std::string here =
        "rule '" + std::string(name) + "' (csrc/core/rules/" + file + "): slot '" + slot.name + "'";
    if (!own.at[j].written) return here + " is declared and `" + where + "` does not write it";
    if (other.at[j].written) return here + " is written by `" + elsewhere + "`, and belongs to `" + where + "`";
    if (slot.every_step != (R::traced && j == 0)) return here + " is the trace if, and only if, it is the first one";
  }
  return "";
}

// That of the first rule with one
inline std::string fault_of_rules() {
  std::string fault;
#define FASTSNN_FAULT(name, type, file) \
  if (fault.empty()) fault = fault_of<type>(#name, #file);
  FASTSNN_RULES(FASTSNN_FAULT)
#undef FASTSNN_FAULT
  return fault;
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
