#pragma once

#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <vector>

#include "../../csrc/core/kernels.h"
#include "../../csrc/core/lif.h"

// Runs every kernel of a core on exactly sized heap buffers, ragged sizes included: AddressSanitizer sees one element
// too far. Arguments: `tiny` for one small size and two types, `plant` for one element too few, which must be seen.
namespace sanitize {

using namespace fastsnn;
using generic::kRules;
using generic::Reset;

// all bytes 0x3f: a finite number of order one in every type; `skew` elements in front break the alignment
class Buffer {
 public:
  Buffer(int64_t elements, int64_t bytes, int64_t skew)
      : bytes_(size_t((elements + skew) * bytes), char(0x3f)), at_(size_t(skew * bytes)) {}
  void* data() { return bytes_.data() + at_; }
  void* data_if(bool wanted) { return wanted ? data() : nullptr; }

 private:
  std::vector<char> bytes_;
  size_t at_;
};

inline int64_t width(Dtype dtype) { return dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : 2; }
inline int64_t state_width(Dtype dtype) { return dtype == Dtype::f64 ? 8 : 4; }

inline LifParams params(int reset, Rule rule, int surrogate) {
  return LifParams{0.5, 1.0, 0.0, 1.0, 0.0, 1.0, 4.0, 4.0, reset, int(rule), surrogate, {}};
}

// A buffer for every slot of a rule: of one step, of what a forward returns, or of those that spikes depend on
class SlotBuffers {
 public:
  SlotBuffers(int rule, int64_t T, int64_t n, int64_t bytes, int64_t skew, bool driving = false) {
    for (int j = 0; j < kRules[rule].count; j++) {
      const Slot& slot = kRules[rule].slots[j];
      if (slot.drives || !driving) buffers_.emplace_back(slot.every_step ? T * n : n, bytes, skew);
    }
  }
  template <class P>
  void put(P* (&slots)[kMostSlots], bool wanted = true) {
    for (size_t j = 0; j < buffers_.size(); j++) slots[j] = buffers_[j].data_if(wanted);
  }

 private:
  std::vector<Buffer> buffers_;
};

template <class Core>
void lif(const LifParams& p, Dtype dtype, int64_t T, int64_t n, int64_t skew, bool with_state, bool with_options) {
  const int64_t w = width(dtype), sw = state_width(dtype);
  const auto row = [&](int64_t bytes) { return Buffer(n, bytes, skew); };
  const auto rows = [&](int64_t bytes) { return Buffer(T * n, bytes, skew); };
  Buffer x = rows(w), spikes = rows(w), g_x = rows(w), u_seq = rows(sw), v_seq = rows(sw);
  Buffer u_prev = row(sw), keep = row(sw), u = row(sw), v = row(sw), g_v = row(sw);
  SlotBuffers before(p.rule, 1, n, sw, skew), after(p.rule, T, n, sw, skew), driving(p.rule, T, n, sw, skew, true);
  LifForward forward{T, n, dtype, p.rule, !with_state, false, x.data(), u_prev.data_if(with_state)};
  before.put(forward.slots, with_state);
  after.put(forward.slots_out);
  forward.keep = keep.data_if(with_options), forward.spikes = spikes.data();
  forward.u_last = u.data_if(!with_options), forward.u_seq = u_seq.data_if(with_options);
  forward.v_last = v.data_if(!with_options), forward.v_seq = v_seq.data_if(with_options);
  Core::lif_forward(p, forward);
  for (bool saved : {true, false}) {
    LifBackward k{T,       n, dtype, p.rule, false, spikes.data(), keep.data_if(with_options), u_seq.data_if(saved),
                  x.data()};
    k.potential = u_prev.data_if(with_state);
    k.g_v_last = g_v.data_if(with_options), k.g_v_seq = v_seq.data_if(with_options);
    k.g_x = g_x.data(), k.g_v_first = v.data();
    driving.put(k.slots, with_state);
    driving.put(k.g_slots_last, with_options);
    driving.put(k.g_slots_first);
    Core::lif_backward_online(p, k);
    if (!kRules[p.rule].traced && (saved || Core::kRecomputes)) Core::lif_backward_bptt(p, LifBackwardBptt{k});
  }
}

template <class Core>
void standardize(Dtype dtype, int64_t rows, int64_t cols, int64_t skew) {
  const int64_t w = width(dtype);
  Buffer weight(rows * cols, w, skew), gain(rows, w, skew), out(rows * cols, w, skew);
  Buffer g_weight(rows * cols, w, skew), g_gain(rows, w, skew);
  std::vector<double> mean(rows), inverse(rows);
  const Standardize k{rows, cols, dtype, 1e-4, weight.data(), gain.data()};
  Core::standardize_forward(StandardizeForward{k, mean.data(), inverse.data(), out.data()});
  Core::standardize_backward(
      StandardizeBackward{k, mean.data(), inverse.data(), out.data(), g_weight.data(), g_gain.data()});
}

// channels of n neurons in all, side by side (inner = 1) or one after another; option: all that may be absent is there
template <class Core>
void empf(Dtype dtype, int64_t T, int64_t n, int64_t channels, bool innermost, int64_t skew, bool option) {
  const int64_t w = width(dtype), sw = state_width(dtype);
  const EmpfShape shape{T, n * channels, channels, innermost ? 1 : n, 1, dtype};
  const auto rows = [&](int64_t bytes) { return Buffer(T * shape.n, bytes, skew); };
  const auto row = [&](int64_t bytes) { return Buffer(shape.n, bytes, skew); };
  Buffer x = rows(w), spikes = rows(w), g_x = rows(w), v_seq = rows(sw), v = row(sw), v_last = row(sw), m = row(sw);
  Buffer value(T * channels, sw, 0), sums(T * channels, 8, 0), others(T * channels, 8, 0), shift(channels, 8, 0);
  for (const bool stateful : {true, false}) {
    Core::empf_forward(EmpfForward{shape, x.data(), v.data_if(option), value.data_if(stateful), value.data(),
                                   spikes.data(), v_last.data_if(!option), v_seq.data_if(option)});
    Core::empf_backward(EmpfBackward{shape, spikes.data(), v_seq.data_if(stateful), x.data(), v.data_if(option),
                                     value.data(), g_x.data(), sums.data_if(stateful), others.data()});
  }
  EmpfShape one = shape;
  one.T = 1;
  Core::empf_potential(EmpfPotential{one, x.data(), v.data_if(option), value.data(), m.data(), shift.data(),
                                     sums.data_if(option), others.data_if(option)});
  const EmpfNorm norm{one,          m.data(),     value.data(), value.data(), value.data(),
                      value.data(), value.data(), value.data(), value.data()};
  Core::empf_norm_forward(EmpfNormForward{norm, spikes.data(), v_last.data()});
  Core::empf_norm_sums(EmpfNormSums{norm, spikes.data(), v_last.data(), sums.data(), others.data()});
  Core::empf_norm_backward(EmpfNormBackward{norm, spikes.data(), v_last.data(), v.data_if(option), value.data(),
                                            value.data(), g_x.data(), sums.data()});
}

// OSR alone and with a neuron; option: a step that ends a sequence, with all that may be absent, whose own statistics
// normalise
template <class Core>
void osr(Dtype dtype, int64_t outer, int64_t channels, int64_t inner, int64_t parts, int64_t skew, bool option) {
  const int64_t n = outer * channels * inner, w = width(dtype), sw = state_width(dtype);
  const LifParams p = params(0, Rule::ndot, 0);
  const Channels k{outer, channels, inner, parts, dtype};
  std::vector<double> statistics(6 * channels, 1.0), total(2 * channels + 1), means(2 * channels),
      before(channels, 1.0);
  std::vector<double> workspace(2 * channels * parts), u_workspace(2 * channels * parts);
  double u_moments[2];
  double elements = 1.0, steps_before = 1.0, share = 0.5, earlier = 0.0, refused = 0.0;
  int64_t folds = 0;
  const auto like = [&](int64_t bytes) { return Buffer(n, bytes, skew); };
  const auto vector = [&](Dtype type) { return Buffer(channels, width(type), 0); };
  Buffer x = like(w), y = like(w), u = like(sw), state = like(sw), keep = like(sw);
  SlotBuffers slots(p.rule, 1, n, sw, skew), after(p.rule, 1, n, sw, skew);
  for (const Dtype type : {Dtype::f32, dtype}) {
    Buffer weight = vector(type), bias = vector(type), mean = vector(type), variance = vector(type);
    OsrForward forward{};
    static_cast<Channels&>(forward) = k;
    forward.learned = forward.running = type, forward.eps = 1e-4,
    forward.limit = std::numeric_limits<double>::infinity();
    forward.x = x.data(), forward.y = y.data(), forward.weight = weight.data(), forward.bias = bias.data();
    forward.mean = mean.data(), forward.variance = variance.data();
    Core::osr_forward(forward);
    forward.statistics = statistics.data(), forward.n_all = &elements, forward.workspace = workspace.data();
    if (option) {
      forward.limit = 0.0;
      forward.strict = forward.ends = true, forward.step = 2, forward.total = total.data(), forward.folds = &folds;
      forward.n_before = &steps_before, forward.mean_before = before.data(), forward.m2_before = before.data();
      forward.share = &share, forward.refused_before = &earlier, forward.refused = &refused;
    }
    Core::osr_forward(forward);
    OsrLifForward lif{forward, p.rule, false, false, state.data_if(option)};
    lif.keep = keep.data_if(option), lif.spikes = y.data(), lif.u = u.data();
    slots.put(lif.slots, option);
    after.put(lif.slots_out);
    Core::osr_lif_forward(p, lif);
    Core::osr_charge(p, OsrCharge{forward, state.data_if(option), u.data(), u_moments, u_workspace.data()});
    OsrReduce reduce{};
    static_cast<Channels&>(reduce) = k;
    reduce.learned = type, reduce.x = x.data(), reduce.g = y.data(), reduce.statistics = statistics.data();
    reduce.n_all = &elements, reduce.means = means.data(), reduce.workspace = workspace.data();
    reduce.g_weight = weight.data(), reduce.g_bias = bias.data();
    Core::osr_reduce(reduce);
    Core::osr_gradient(OsrGradient{k, x.data(), y.data(), statistics.data(), means.data(), y.data()});
    reduce.threshold = option ? &share : nullptr;
    Core::osr_lif_reduce(p, OsrLifReduce{reduce, y.data(), keep.data_if(option), u.data(), y.data()});
  }
}

template <class Core>
void ots(Dtype dtype, int64_t n, int64_t skew, bool option) {
  const int64_t w = width(dtype), sw = state_width(dtype);
  const LifParams p = params(0, Rule::ottt, 0);
  const double threshold = 1.0;
  std::vector<double> moments(2), workspace(2 * (n / 256 + 1));
  const auto row = [&](int64_t bytes) { return Buffer(n, bytes, skew); };
  Buffer x = row(w), spikes = row(w), u = row(sw), v = row(sw), trace = row(sw), keep = row(sw);
  Core::ots_charge(p, OtsCharge{n, dtype, x.data(), v.data_if(option), u.data(), moments.data(), workspace.data()});
  Core::ots_fire(p, OtsFire{n, dtype, p.rule, &threshold, u.data(), trace.data_if(option), keep.data_if(option),
                            spikes.data(), v.data(), trace.data()});
  Core::ots_backward(p, OtsBackward{n, dtype, &threshold, u.data(), spikes.data(), keep.data_if(option), x.data()});
}

template <class Core>
void mpdr(Dtype dtype, int reset, int64_t T, int64_t n, int64_t skew, bool option) {
  const int64_t w = width(dtype), sw = state_width(dtype);
  const LifParams p = params(reset, Rule::none, 1);
  const auto rows = [&](int64_t bytes) { return Buffer(T * n, bytes, skew); };
  Buffer x = rows(w), spikes = rows(w), g_x = rows(w), g_local = rows(w), u = rows(sw);
  std::vector<double> moments(2 * T), coefficients(3 * T, 0.5), workspace(2 * T * (n / 256 + 1));
  LifForward forward{T, n, dtype, p.rule, true, false, x.data()};
  forward.spikes = spikes.data();
  forward.u_seq = u.data();
  Core::mpdr_forward(p, MpdrForward{forward, moments.data(), workspace.data()});
  LifBackward backward{T, n, dtype, p.rule, false, spikes.data()};
  backward.x = x.data();
  backward.u = u.data_if(option);
  backward.g_x = g_x.data();
  const MpdrBackward whole{backward, coefficients.data(), nullptr},
      apart{backward, coefficients.data(), g_local.data()};
  Core::mpdr_backward_online(p, whole);
  Core::mpdr_backward_online(p, apart);
  if (option || Core::kRecomputes) Core::mpdr_backward_bptt(p, MpdrBackwardBptt{whole});
}

struct Sizes {
  std::vector<Dtype> dtypes;
  std::vector<int64_t> neurons, steps, columns, skews;
};

template <class Core>
int all(const Sizes& sizes) {
  int runs = 0;
  for (const Dtype dtype : sizes.dtypes) {
    for (int64_t skew : sizes.skews) {
      for (int64_t n : sizes.neurons) {
        for (const bool option : {false, true}) {
          ots<Core>(dtype, n, skew, option), runs++;
          if (n > 5000) continue;
          osr<Core>(dtype, 3, 2, n, option ? 2 : 1, skew, option), runs++;
          osr<Core>(dtype, n, 8, 1, option ? 2 : 1, skew, option), runs++;
        }
        for (int64_t T : sizes.steps) {
          if (n * T > Core::kMost) continue;
          for (const bool option : {false, true}) {
            for (const int reset : {0, 1}) mpdr<Core>(dtype, reset, T, n, skew, option), runs++;
            empf<Core>(dtype, T, n, 1, false, skew, option), runs++;
            for (const bool innermost : {false, true}) {
              if (n < 5000) empf<Core>(dtype, T, n, 3, innermost, skew, option), runs++;
            }
          }
          for (int rule = 0; rule < int(Rule::count); rule++) {
            for (int reset = 0; reset < int(Reset::count); reset++) {
              if (kRules[rule].soft_reset && Reset(reset) == Reset::hard) continue;
              const int surrogate = (rule * 2 + reset) % int(generic::Surrogate::count);
              for (bool option : {false, true}) {
                lif<Core>(params(reset, Rule(rule), surrogate), dtype, T, n, skew, option, option), runs++;
              }
            }
          }
        }
      }
      for (int64_t cols : sizes.columns) standardize<Core>(dtype, 3, cols, skew), runs++;
    }
  }
  return runs;
}

template <class Core>
void planted() {
  Buffer x(2048, 4, 0), spikes(2047, 4, 0);
  LifForward forward{1, 2048, Dtype::f32, int(Rule::none), true, false, x.data()};
  forward.spikes = spikes.data();
  Core::lif_forward(params(0, Rule::none, 0), forward);
}

template <class Core>
int main(int argc, char** argv) {
  const bool tiny = argc > 1 && std::strcmp(argv[1], "tiny") == 0;
  const Sizes sizes = tiny ? Sizes{{Dtype::f32, Dtype::f16}, {9}, {2}, {40}, {0}}
                           : Sizes{{Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16},
                                   {1, 17, 255, 2049, Core::kMany},
                                   {1, 3, 70},
                                   {2, 7, 8, 9, 4609},
                                   {0, 1}};
  if (argc > 1 && std::strcmp(argv[1], "plant") == 0) planted<Core>();
  std::printf("%d runs\n", all<Core>(sizes));
  return 0;
}

}  // namespace sanitize
