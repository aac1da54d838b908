#pragma once

#include <cstdint>

#include "arguments.h"
#include "platform.h"

// STGR before, and its moving average after, a step of SGD with momentum (equations/rptt.md).
namespace fastsnn {

struct StgrSgd {
  int64_t n;
  Dtype dtype;  // f32 or f64
  bool first;   // no momentum yet: buf = d
  bool nesterov;
  double lam, gam, rho, lr, momentum, undamped, decay;
  const void* grad;
  void *weight, *average, *previous, *momentum_buffer;  // all [n], of one type

  bool empty() const { return n == 0; }
  template <class Take>
  void numbers(Take&& take) {
    take("n", n), take("dtype", dtype), take("first", first), take("nesterov", nesterov), take("lam", lam),
        take("gam", gam), take("rho", rho), take("lr", lr), take("momentum", momentum), take("undamped", undamped),
        take("decay", decay);
    take.require(dtype == Dtype::f32 || dtype == Dtype::f64, "dtype: STGR's step takes float32 and float64");
  }
  template <class Take>
  void operands(Take&& take) {
    take("grad", grad, Holds::input, n);
    take("weight", weight, Holds::input, n);
    take("average", average, Holds::input, n);
    take("previous", previous, Holds::input, n);
    take("momentum_buffer", momentum_buffer, Holds::input, n);
  }
};

namespace FASTSNN_ISA {

template <class S>
struct Stgr {
  S lam, gam, rho, rest;  // rest = 1 - rho
  S lr, momentum, undamped, decay;
};

template <class S>
struct Weight {
  S w, average, previous, momentum;
};

// d = g + lam*(W - W_ema) + gam*g_prev + decay*W ; W -= lr*step ; W_ema = rho*W_ema + (1 - rho)*W
template <class S>
FASTSNN_HD Weight<S> stgr_sgd(const Stgr<S>& p, const Weight<S>& now, S g, bool first, bool nesterov) {
  const S pulled = (g + p.lam * (now.w - now.average)) + p.gam * now.previous;
  const S d = pulled + p.decay * now.w;
  const S momentum = first ? d : p.momentum * now.momentum + p.undamped * d;
  const S step = nesterov ? d + p.momentum * momentum : momentum;
  const S w = now.w - p.lr * step;
  return {w, p.rho * now.average + p.rest * w, g, momentum};
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
