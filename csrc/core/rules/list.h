#pragma once

#include <stdexcept>
#include <type_traits>

#include "alif.h"
#include "ndot.h"
#include "ndot_released.h"
#include "ottt.h"

// Every rule's step: the name by which fastsnn/rules and triton_kernels know it, its type, its file. Codes are places
// in this list.
#define FASTSNN_RULES(RULE)                          \
  RULE(none, Untraced, rule.h)                       \
  RULE(ottt, Ottt, ottt.h)                           \
  RULE(ndot, Ndot, ndot.h)                           \
  RULE(ndot_released, NdotReleased, ndot_released.h) \
  RULE(alif_untraced, AlifUntraced, alif.h)          \
  RULE(alif, Alif, alif.h)

namespace fastsnn {

#define FASTSNN_NAME(name, type, file) name,
enum class Rule : int { FASTSNN_RULES(FASTSNN_NAME) count };
#undef FASTSNN_NAME

namespace FASTSNN_ISA {

template <Rule rule>
struct TypeOf;
#define FASTSNN_TYPE(name, rule_type, file) \
  template <>                               \
  struct TypeOf<Rule::name> {               \
    using type = rule_type;                 \
  };
FASTSNN_RULES(FASTSNN_TYPE)
#undef FASTSNN_TYPE

template <Rule rule>
using RuleType = typename TypeOf<rule>::type;

struct RuleTraits {
  const char* name;
  const Slot* slots;
  int count, driving, parameters;  // slots, those that spikes depend on, parameters
  bool traced, soft_reset;
};

#define FASTSNN_TRAITS(name, type, file) \
  {#name, type::slots, type::count, type::Dynamics::count, type::parameters, type::traced, type::soft_reset},
inline constexpr RuleTraits kRules[] = {FASTSNN_RULES(FASTSNN_TRAITS)};
#undef FASTSNN_TRAITS

constexpr int most_of(int RuleTraits::* number) {
  int most = 1;
  for (const RuleTraits& rule : kRules) most = rule.*number > most ? rule.*number : most;
  return most;
}
constexpr int kMostSlots = most_of(&RuleTraits::count), kMostParameters = most_of(&RuleTraits::parameters);

// Calls f(rule, reset) of a rule's code, as integral constants.
template <class F>
void with_rule(int code, bool hard, const F& f) {
  constexpr std::integral_constant<Reset, Reset::soft> soft_reset{};
  switch (Rule(code)) {
#define FASTSNN_CASE(name, type, file)                                                             \
  case Rule::name: {                                                                               \
    constexpr std::integral_constant<Rule, Rule::name> rule{};                                     \
    if (!hard) return f(rule, soft_reset);                                                         \
    if constexpr (!type::soft_reset) return f(rule, std::integral_constant<Reset, Reset::hard>()); \
    throw std::invalid_argument("rule " #name " needs soft reset");                                \
  }
    FASTSNN_RULES(FASTSNN_CASE)
#undef FASTSNN_CASE
    default:
      throw std::invalid_argument("rule: unknown code");
  }
}

// Calls f(rule, reset) of a rule without a trace, which alone goes back in time.
template <class F>
void with_dynamics(int code, bool hard, const F& f) {
  with_rule(code, hard, [&](auto rule, auto reset) {
    if constexpr (std::is_same_v<RuleType<decltype(rule)::value>, typename RuleType<decltype(rule)::value>::Dynamics>) {
      f(rule, reset);
    } else {
      throw std::invalid_argument("a rule with a trace has no gradient through time");
    }
  });
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
