#pragma once

#include "rule.h"

// OTTT (equations/ottt.md): a[t] = lam * a[t-1] + s[t]
namespace fastsnn {
namespace FASTSNN_ISA {

struct Ottt : Untraced {
  static constexpr Slot slots[] = {kTrace};
  static constexpr int count = 1;
  static constexpr bool traced = true;

  template <class M, class S>
  static FASTSNN_HD void advance(const Lif<S>& p, const Now<S>& now, M& m) {
    m.at[0] = p.leak * m.at[0] + now.s;
  }
};

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
