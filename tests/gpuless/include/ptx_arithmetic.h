#pragma once

#include <cfenv>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

// What PTX's arithmetic instructions compute. Approximate instructions (ex2.approx, rcp.approx, ...) give the value
// rounded from double here; hardware is a few units in the last place away.
namespace ptx {

template <class To, class From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "a register is read as a type of another size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// float16 and bfloat16: E exponent bits, M mantissa bits, calculated in double and rounded once
template <int E, int M>
struct Small {
  static constexpr int kBias = (1 << (E - 1)) - 1;
  uint16_t bits;

  Small() = default;
  Small(double x) {
    const uint16_t sign = uint16_t(__builtin_signbit(x) ? 0x8000 : 0);
    x = __builtin_fabs(x);
    if (x != x) {
      bits = 0x7fff;
      return;
    }
    const int lowest = 1 - kBias, exponent = x > 0 && x < __builtin_inf() ? __builtin_ilogb(x) : lowest;
    const double step = __builtin_ldexp(1.0, (exponent < lowest ? lowest : exponent) - M);
    const double rounded = __builtin_rint(x / step) * step;
    if (rounded >= __builtin_ldexp(1.0, kBias + 1)) {
      bits = uint16_t(((1 << E) - 1) << M | sign);
    } else if (rounded < __builtin_ldexp(1.0, lowest)) {
      bits = uint16_t(unsigned(rounded / step) | sign);
    } else {
      const int e = __builtin_ilogb(rounded);
      const unsigned mantissa = unsigned(__builtin_ldexp(rounded, M - e)) - (1u << M);
      bits = uint16_t(unsigned(e + kBias) << M | mantissa | sign);
    }
  }
  operator double() const {
    const int exponent = bits >> M & ((1 << E) - 1);
    const unsigned mantissa = bits & ((1u << M) - 1);
    double x;
    if (exponent == (1 << E) - 1) {
      x = mantissa ? __builtin_nan("") : __builtin_inf();
    } else if (exponent == 0) {
      x = __builtin_ldexp(double(mantissa), 1 - kBias - M);
    } else {
      x = __builtin_ldexp(double(mantissa + (1u << M)), exponent - kBias - M);
    }
    return bits & 0x8000 ? -x : x;
  }
};
using f16 = Small<5, 10>;
using bf16 = Small<8, 7>;

// f16x2 and bf16x2
template <class T>
struct Pair {
  T low, high;
};
template <class T>
Pair<T> operator+(Pair<T> a, Pair<T> b) {
  return Pair<T>{T(a.low + b.low), T(a.high + b.high)};
}
template <class T>
Pair<T> operator-(Pair<T> a, Pair<T> b) {
  return Pair<T>{T(a.low - b.low), T(a.high - b.high)};
}
template <class T>
Pair<T> operator*(Pair<T> a, Pair<T> b) {
  return Pair<T>{T(a.low * b.low), T(a.high * b.high)};
}

// Registers hold bits. An integer type may be narrower than the register, a wider one extends by its sign.
template <class T, class R>
T get(R reg) {
  if constexpr (!std::is_integral<T>::value) {
    return bits_as<T>(reg);
  } else {
    return T(reg);
  }
}

template <class R, class T>
void put(R& reg, T value) {
  if constexpr (!std::is_integral<T>::value) {
    reg = bits_as<R>(value);
  } else {
    reg = R(value);
  }
}

// Floating point

enum Round { rn, rz, rm, rp };

constexpr int kFenv[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};

// operation() in a rounding mode; what it reads must be volatile, so that it stays between the two calls
template <Round r, class Operation>
auto rounded(const Operation& operation) {
  std::fesetround(kFenv[r]);
  volatile auto result = operation();
  std::fesetround(FE_TONEAREST);
  return result;
}

template <bool ftz, class T>
T flush(T x) {
  if constexpr (ftz) return __builtin_fabs(x) < std::numeric_limits<T>::min() ? T(__builtin_copysign(T(0), x)) : x;
  return x;
}

template <Round r, bool ftz, class T, class Operation>
T arithmetic(T a, T b, const Operation& operation) {
  const T x = flush<ftz>(a), y = flush<ftz>(b);
  if constexpr (r == rn) {
    return flush<ftz>(T(operation(x, y)));
  } else {
    volatile T vx = x, vy = y;
    return flush<ftz>(T(rounded<r>([&] { return operation(T(vx), T(vy)); })));
  }
}

template <Round r, bool ftz, class T>
T add(T a, T b) {
  return arithmetic<r, ftz>(a, b, [](T x, T y) { return x + y; });
}
template <Round r, bool ftz, class T>
T sub(T a, T b) {
  return arithmetic<r, ftz>(a, b, [](T x, T y) { return x - y; });
}
template <Round r, bool ftz, class T>
T mul(T a, T b) {
  return arithmetic<r, ftz>(a, b, [](T x, T y) { return x * y; });
}
template <Round r, bool ftz, class T>
T div(T a, T b) {
  return arithmetic<r, ftz>(a, b, [](T x, T y) { return x / y; });
}
template <Round r, bool ftz, class T>
T rcp(T a) {
  return div<r, ftz>(T(1), a);
}
inline float square_root(float x) { return __builtin_sqrtf(x); }
inline double square_root(double x) { return __builtin_sqrt(x); }
template <Round r, bool ftz, class T>
T sqrt(T a) {
  return arithmetic<r, ftz>(a, a, [](T x, T) { return square_root(x); });
}

template <class T>
T saturate(T x) {
  return x > T(0) ? (x < T(1) ? x : T(1)) : T(0);
}

// The sum with its last bit set where it is inexact, so that rounding it again to far fewer bits is right
inline double add_to_odd(double a, double b) {
  const double sum = a + b, part = sum - a, error = (a - (sum - part)) + (b - part);
  const uint64_t bits = bits_as<uint64_t>(sum);
  if (!(error < 0 || error > 0) || bits & 1) return sum;
  return bits_as<double>((error > 0) == (sum > 0) ? bits + 1 : bits - 1);
}

template <int E, int M>
Small<E, M> fused(Small<E, M> a, Small<E, M> b, Small<E, M> c) {
  return add_to_odd(double(a) * double(b), c);
}
template <class T>
Pair<T> fused(Pair<T> a, Pair<T> b, Pair<T> c) {
  return Pair<T>{fused(a.low, b.low, c.low), fused(a.high, b.high, c.high)};
}
inline float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }

template <bool ftz>
float approximate(double (*function)(double), float a) {
  return flush<ftz>(float(function(double(flush<ftz>(a)))));
}
template <bool ftz>
float quotient(float a, float b) {
  return flush<ftz>(float(double(flush<ftz>(a)) / double(flush<ftz>(b))));
}
inline double approx_rcp(double x) { return 1.0 / x; }
inline double approx_sqrt(double x) { return __builtin_sqrt(x); }
inline double approx_rsqrt(double x) { return 1.0 / __builtin_sqrt(x); }
inline double approx_ex2(double x) { return __builtin_exp2(x); }
inline double approx_lg2(double x) { return __builtin_log2(x); }
inline double approx_sin(double x) { return __builtin_sin(x); }
inline double approx_cos(double x) { return __builtin_cos(x); }
inline double approx_tanh(double x) { return __builtin_tanh(x); }

template <class T>
bool is_nan(T x) {
  return double(x) != double(x);
}
// -0 is less than +0; a NaN gives way to the other operand unless nan is set
template <bool nan, class T>
T min_float(T a, T b) {
  if (is_nan(a) || is_nan(b)) return nan ? T(__builtin_nan("")) : is_nan(a) ? b : a;
  return a < b || (a == b && __builtin_signbit(double(a))) ? a : b;
}
template <bool nan, class T>
T max_float(T a, T b) {
  if (is_nan(a) || is_nan(b)) return nan ? T(__builtin_nan("")) : is_nan(a) ? b : a;
  return a > b || (a == b && __builtin_signbit(double(b))) ? a : b;
}

// Integers wrap

template <class T>
using Unsigned = typename std::make_unsigned<T>::type;
template <class T>
using Wide = typename std::conditional<
    sizeof(T) == 2, typename std::conditional<std::is_signed<T>::value, int32_t, uint32_t>::type,
    typename std::conditional<
        sizeof(T) == 4, typename std::conditional<std::is_signed<T>::value, int64_t, uint64_t>::type,
        typename std::conditional<std::is_signed<T>::value, __int128, unsigned __int128>::type>::type>::type;

template <class T>
T add_int(T a, T b) {
  return T(uint64_t(a) + uint64_t(b));
}
template <class T>
T sub_int(T a, T b) {
  return T(uint64_t(a) - uint64_t(b));
}
template <class T>
T mul_lo(T a, T b) {
  return T(uint64_t(a) * uint64_t(b));
}
template <class T>
T mul_hi(T a, T b) {
  return T(Wide<T>(a) * Wide<T>(b) >> (sizeof(T) * 8));
}
template <class T>
Wide<T> mul_wide(T a, T b) {
  return Wide<T>(a) * Wide<T>(b);
}

template <class T>
T shl(T x, unsigned by) {
  return by < sizeof(T) * 8 ? T(uint64_t(x) << by) : T(0);
}
template <class T>
T shr(T x, unsigned by) {
  const unsigned last = sizeof(T) * 8 - 1;
  if (by > last) return std::is_signed<T>::value ? T(x >> last) : T(0);
  return T(x >> by);
}

inline uint32_t funnel(uint64_t both, unsigned by, bool left) {
  return left ? uint32_t(both << by >> 32) : uint32_t(both >> by);
}
template <bool left, bool wrap>
uint32_t shf(uint32_t low, uint32_t high, uint32_t by) {
  const uint64_t both = uint64_t(high) << 32 | low;
  by = wrap ? by & 31 : (by > 32 ? 32 : by);
  return funnel(both, by, left);
}

inline uint32_t prmt(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t(b) << 32 | a;
  uint32_t out = 0;
  for (int i = 0; i < 4; i++) {
    const unsigned pick = selector >> (4 * i) & 15;
    uint8_t byte = uint8_t(bytes >> (8 * (pick & 7)));
    if (pick & 8) byte = byte & 0x80 ? 0xff : 0;
    out |= uint32_t(byte) << (8 * i);
  }
  return out;
}

inline uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
  uint32_t out = 0;
  for (int i = 0; i < 8; i++) {
    if (table >> i & 1) out |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  }
  return out;
}

template <class T>
T bfe(T x, uint32_t position, uint32_t length) {
  constexpr uint32_t kLast = sizeof(T) * 8 - 1;
  position &= 255;
  length &= 255;
  const uint32_t top = position + length - 1;
  const bool sign = std::is_signed<T>::value && length && x >> (top < kLast ? top : kLast) & 1;
  Unsigned<T> out = 0;
  for (uint32_t i = 0; i <= kLast; i++) {
    const bool bit = i < length && position + i <= kLast ? x >> (position + i) & 1 : sign;
    out |= Unsigned<T>(bit) << i;
  }
  return T(out);
}
template <class T>
T bfi(T insert, T into, uint32_t position, uint32_t length) {
  position &= 255;
  length &= 255;
  for (uint32_t i = 0; i < length && position + i < sizeof(T) * 8; i++) {
    const T bit = T(T(1) << (position + i));
    into = insert >> i & 1 ? into | bit : into & ~bit;
  }
  return into;
}
template <class T>
uint32_t popc(T x) {
  return uint32_t(__builtin_popcountll(x));
}
template <class T>
uint32_t clz(T x) {
  return x ? uint32_t(__builtin_clzll(x)) - (64 - sizeof(T) * 8) : sizeof(T) * 8;
}
template <class T>
T brev(T x) {
  T out = 0;
  for (unsigned i = 0; i < sizeof(T) * 8; i++) out = T(out << 1 | (x >> i & 1));
  return out;
}

// Conversions

template <Round r, class To, class From>
To convert(From x) {
  if constexpr (r == rn) return To(x);
  volatile From from = x;
  return rounded<r>([&] { return To(From(from)); });
}

template <Round r>
double integral(double x) {
  return r == rn ? __builtin_rint(x) : r == rz ? __builtin_trunc(x) : r == rm ? __builtin_floor(x) : __builtin_ceil(x);
}

// Saturates; NaN becomes 0.
template <Round r, class To>
To to_integer(double x) {
  const double whole = integral<r>(x), end = __builtin_ldexp(1.0, std::numeric_limits<To>::digits);
  if (whole != whole) return 0;
  if (whole >= end) return std::numeric_limits<To>::max();
  if (whole <= double(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
  return To(whole);
}

template <class T>
uint32_t pack(double high, double low) {
  return uint32_t(T(high).bits) << 16 | T(low).bits;
}

}  // namespace ptx
