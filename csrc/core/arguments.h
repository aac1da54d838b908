#pragma once

#include "operands.h"
#include "rules/list.h"
#include "surrogate.h"

// What every core's kernels take. Pointers are raw, sizes int64, `n` neurons are contiguous,
// sequences are [T, n]. A null optional pointer means: not wanted (outputs) or zero (inputs).
// State (potential, v, trace, ratio, u) is double for float64 input and float otherwise.
namespace fastsnn {

enum class Dtype : int { f32, f64, bf16, f16, count };

struct LifParams {
  double leak, gain, bias, threshold, v_reset;
  double reset_grad;
  double height, slope;
  int reset, rule, surrogate;  // enums of this folder
  double of_rule[FASTSNN_ISA::kMostParameters];

  template <class Take>
  void numbers(Take&& take) {
    take("leak", leak), take("gain", gain), take("bias", bias), take("threshold", threshold), take("v_reset", v_reset),
        take("reset_grad", reset_grad), take("height", height), take("slope", slope);
    take("reset", reset, FASTSNN_ISA::Reset::count), take("rule", rule, Rule::count),
        take("surrogate", surrogate, FASTSNN_ISA::Surrogate::count);
    const auto& traits = FASTSNN_ISA::kRules[rule];
    take("of_rule", of_rule, traits.parameters);
    take.require(!traits.soft_reset || reset == int(FASTSNN_ISA::Reset::soft), "the rule needs soft reset");
  }
};

using FASTSNN_ISA::kMostSlots;

// The operands of a tuple: one for each of a rule's slots, or of those that spikes depend on
struct SlotsTaken {
  const char* names[kMostSlots];
  int64_t elements[kMostSlots];
  int count = 0;

  // T: steps of what is kept of every one
  static SlotsTaken all(int rule, int64_t T, int64_t n) { return of(rule, T, n, false); }
  static SlotsTaken driving(int rule, int64_t n) { return of(rule, 1, n, true); }

 private:
  static SlotsTaken of(int rule, int64_t T, int64_t n, bool driving) {
    const auto& traits = FASTSNN_ISA::kRules[rule];
    SlotsTaken taken;
    for (int j = 0; j < traits.count; j++) {
      const Slot& slot = traits.slots[j];
      if (driving && !slot.drives) continue;
      taken.names[taken.count] = slot.name;
      taken.elements[taken.count++] = fastsnn::elements({slot.every_step ? T : 1, n});
    }
    return taken;
  }
};

struct LifForward {
  int64_t T, n;
  Dtype dtype;
  int rule;
  bool first;                     // t = 1 of a sequence: r[0] = 1 (ndot)
  bool potential_is_v;            // the potential was already reset
  const void* x;                  // [T, n]
  const void* potential;          // [n], u[t-1] or v[t-1]; null: v_reset, or 0
  const void* slots[kMostSlots];  // [n], the rule's before the first step; null: 0
  const void* keep;               // [n], dropout mask in the state's type, already scaled; null: ones
  void* spikes;                   // [T, n]
  void* u_last;                   // [n], optional; u_seq ends with it
  void* u_seq;                    // [T, n], optional
  void* v_last;                   // [n], optional; v_seq ends with it
  void* v_seq;                    // [T, n], optional
  void* slots_out[kMostSlots];    // [n], or [T, n] of a trace; may be the memory of `slots`

  bool empty() const { return T == 0 || n == 0; }
  template <class Take>
  void numbers(Take&& take) {
    take("T", T), take("n", n), take("dtype", dtype), take("first", first), take("potential_is_v", potential_is_v);
  }
  template <class Take>
  void operands(Take&& take) {
    const int64_t all = elements({T, n});
    take("x", x, Holds::input, all);
    take("potential", potential, Holds::state, n, Need::optional);
    take("slots", slots, SlotsTaken::all(rule, 1, n));
    take("keep", keep, Holds::state, n, Need::optional);
    take("spikes", spikes, Holds::input, all);
    take("u_last", u_last, Holds::state, n, Need::optional);
    take("u_seq", u_seq, Holds::state, all, Need::optional);
    take("v_last", v_last, Holds::state, n, Need::optional);
    take("v_seq", v_seq, Holds::state, all, Need::optional);
    take("slots_out", slots_out, SlotsTaken::all(rule, T, n));
    require_trace(take);
  }
  template <class Take>
  void require_trace(Take&& take) const {
    take.require(!FASTSNN_ISA::kRules[rule].traced || empty() || slots_out[0], "a traced rule needs its trace");
  }
};

struct LifBackward {
  int64_t T, n;
  Dtype dtype;
  int rule;
  bool potential_is_v;
  const void* g_spikes;                  // [T, n], optional
  const void* keep;                      // [n], optional
  const void* u;                         // [T, n]; null: recomputed from x and the state before it
  const void* x;                         // [T, n]
  const void* potential;                 // [n]
  const void* slots[kMostSlots];         // [n], optional, those that spikes depend on, as the next two
  const void* g_v_last;                  // [n], optional (BPTT)
  const void* g_slots_last[kMostSlots];  // [n], optional (BPTT)
  const void* g_v_seq;                   // [T, n], optional (BPTT)
  void* g_x;                             // [T, n]
  void* g_v_first;                       // [n], optional (BPTT)
  void* g_slots_first[kMostSlots];       // [n], optional (BPTT)

  bool empty() const { return T == 0 || n == 0; }
  template <class Take>
  void numbers(Take&& take) {
    take("T", T), take("n", n), take("dtype", dtype), take("potential_is_v", potential_is_v);
  }
  template <class Take>
  void operands(Take&& take) {
    const int64_t all = elements({T, n});
    take("g_spikes", g_spikes, Holds::input, all, Need::optional);
    take("keep", keep, Holds::state, n, Need::optional);
    take("u", u, Holds::state, all, Need::optional);
    take("x", x, Holds::input, all, Need::optional);
    take("potential", potential, Holds::state, n, Need::optional);
    take("slots", slots, SlotsTaken::driving(rule, n));
    take("g_v_last", g_v_last, Holds::state, n, Need::optional);
    take("g_slots_last", g_slots_last, SlotsTaken::driving(rule, n));
    take("g_v_seq", g_v_seq, Holds::state, all, Need::optional);
    take("g_x", g_x, Holds::input, all);
    take("g_v_first", g_v_first, Holds::state, n, Need::optional);
    take("g_slots_first", g_slots_first, SlotsTaken::driving(rule, n));
    take.require(empty() || u || x, "one of u and x is needed");
  }
};

// The same of a call that goes back through time
template <class Backward>
struct ThroughTime : Backward {
  template <class Take>
  void operands(Take&& take) {
    Backward::operands(take);
    take.require(!FASTSNN_ISA::kRules[this->rule].traced, "a rule with a trace has no gradient through time");
  }
};

using LifBackwardBptt = ThroughTime<LifBackward>;

struct Standardize {
  int64_t rows, cols;
  Dtype dtype;
  double eps;
  const void* weight;  // [rows, cols]
  const void* gain;    // [rows]

  bool empty() const { return rows == 0 || cols == 0; }
  template <class Take>
  void numbers(Take&& take) {
    take("rows", rows), take("cols", cols), take("dtype", dtype), take("eps", eps);
  }
  template <class Take>
  void operands(Take&& take) {
    take("weight", weight, Holds::input, elements({rows, cols}));
    take("gain", gain, Holds::input, rows);
  }
};

struct StandardizeForward : Standardize {
  void* mean;     // [rows], double
  void* inverse;  // [rows], double: 1/sqrt(var * cols + eps)
  void* out;      // [rows, cols]

  template <class Take>
  void operands(Take&& take) {
    Standardize::operands(take);
    take("mean", mean, Holds::float64, rows);
    take("inverse", inverse, Holds::float64, rows);
    take("out", out, Holds::input, elements({rows, cols}));
  }
};

struct StandardizeBackward : Standardize {
  const void *mean, *inverse;  // [rows], double, as forward wrote them
  const void* g_out;           // [rows, cols]
  void* g_weight;              // [rows, cols]
  void* g_gain;                // [rows]

  template <class Take>
  void operands(Take&& take) {
    Standardize::operands(take);
    take("mean", mean, Holds::float64, rows);
    take("inverse", inverse, Holds::float64, rows);
    take("g_out", g_out, Holds::input, elements({rows, cols}));
    take("g_weight", g_weight, Holds::input, elements({rows, cols}));
    take("g_gain", g_gain, Holds::input, rows);
  }
};

}  // namespace fastsnn
