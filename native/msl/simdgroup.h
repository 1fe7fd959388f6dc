// Simdgroup functions and barriers. With UPGC_SIMD_WIDTH 1 a simdgroup is one thread: every function folds to its
// operand and barriers to nothing. With 32, a lane leaves its operand in its slot and blocks; when all lanes that take
// part are there, the runtime calls the function's `Combine` once for all of them.
#pragma once

#ifdef UPGC_CUDA
#include "cuda/simdgroup.h"
#else

#include "abi.h"
#include "math.h"

#ifndef UPGC_SIMD_WIDTH
#error "UPGC_SIMD_WIDTH must be 1 or 32"
#endif

namespace upgc {

constexpr unsigned simd_width = UPGC_SIMD_WIDTH;
static_assert(simd_width == 1 || simd_width == 32);
constexpr unsigned quad_width = simd_width == 1 ? 1 : 4;

#if UPGC_SIMD_WIDTH != 1
static thread_local abi::Lane* current_lane;
static abi::Hooks hooks;
#endif

#ifdef UPGC_SERIAL_THREADS
// In modules of simdgroup width 1 with kernels of several threads, which run one after another: whether the running
// kernel is such a one, and the first barrier that it has met. There it cannot wait for the others.
static thread_local bool serial_threads;
static thread_local unsigned serial_barrier;
#endif

/// Runs `combine` for this lane and the others at `site`; returns what it left in this lane's slot.
template <class T>
UPGC_INLINE T rendezvous([[maybe_unused]] abi::Combine combine, T value, [[maybe_unused]] unsigned operand,
                         [[maybe_unused]] unsigned site) {
  static_assert(sizeof(T) <= sizeof(abi::Slot::value), "simdgroup functions take scalars and vectors");
#if UPGC_SIMD_WIDTH != 1
  abi::Lane* const lane = current_lane;
  __builtin_memcpy(lane->slot->value, &value, sizeof(T));
  lane->slot->operand = operand;
  hooks.simdgroup(lane, combine, site);
  __builtin_memcpy(&value, lane->slot->value, sizeof(T));
#endif
  return value;
}

// For loops of at most 32 rounds: vectorised they are no faster, and every kernel would carry the code.
#define UPGC_SCALAR_LOOP _Pragma("clang loop vectorize(disable) unroll(disable)")

// The operands of the active lanes, packed in lane order.
template <class T>
struct Operands {
  T value[abi::max_simd_width];
  unsigned char lane[abi::max_simd_width];
  unsigned count = 0;

  Operands(const abi::Slot* slots, unsigned active) {
    UPGC_SCALAR_LOOP
    for (; active != 0; active &= active - 1, count++) {
      lane[count] = __builtin_ctz(active);
      __builtin_memcpy(&value[count], slots[lane[count]].value, sizeof(T));
    }
  }
};

template <class T>
UPGC_INLINE void store(abi::Slot& slot, T value) {
  __builtin_memcpy(slot.value, &value, sizeof(T));
}

/// Every active lane gets the reduction of all, summed as a balanced tree in lane order: the same on every run.
template <class T, class Operation>
void combine_reduction(abi::Slot* slots, unsigned active) {
  Operands<T> operands(slots, active);
  UPGC_SCALAR_LOOP
  for (unsigned count = operands.count; count > 1;) {
    const unsigned kept = (count + 1) / 2;
    UPGC_SCALAR_LOOP
    for (unsigned i = 0; i < count - kept; i++)
      operands.value[i] = Operation::apply(operands.value[i], operands.value[i + kept]);
    count = kept;
  }
  UPGC_SCALAR_LOOP
  for (unsigned i = 0; i < operands.count; i++) store(slots[operands.lane[i]], operands.value[0]);
}

/// A lane gets the reduction of the active lanes up to itself, itself included or not.
template <class T, class Operation, bool inclusive>
void combine_prefix(abi::Slot* slots, unsigned active) {
  Operands<T> operands(slots, active);
  T total = Operation::template identity<T>();
  UPGC_SCALAR_LOOP
  for (unsigned i = 0; i < operands.count; i++) {
    const T next = Operation::apply(total, operands.value[i]);
    store(slots[operands.lane[i]], inclusive ? next : total);
    total = next;
  }
}

/// A lane gets the value of the lane its operand names; where that one takes no part, its own (Metal: undefined).
template <class T>
void combine_shuffle(abi::Slot* slots, unsigned active) {
  const Operands<T> operands(slots, active);
  T value[abi::max_simd_width];
  UPGC_SCALAR_LOOP
  for (unsigned i = 0; i < operands.count; i++) value[operands.lane[i]] = operands.value[i];
  UPGC_SCALAR_LOOP
  for (unsigned i = 0; i < operands.count; i++) {
    const unsigned source = slots[operands.lane[i]].operand;
    if (source < abi::max_simd_width && (active >> source & 1)) store(slots[operands.lane[i]], value[source]);
  }
}

/// Every active lane gets the first active lane's value.
template <class T>
void combine_broadcast_first(abi::Slot* slots, unsigned active) {
  const Operands<T> operands(slots, active);
  UPGC_SCALAR_LOOP
  for (unsigned i = 0; i < operands.count; i++) store(slots[operands.lane[i]], operands.value[0]);
}

/// Every active lane gets the bits of those whose operand is true.
inline void combine_ballot(abi::Slot* slots, unsigned active) {
  const Operands<unsigned long> operands(slots, active);
  unsigned long bits = 0;
  UPGC_SCALAR_LOOP
  for (unsigned i = 0; i < operands.count; i++) bits |= operands.value[i] << operands.lane[i];
  UPGC_SCALAR_LOOP
  for (unsigned i = 0; i < operands.count; i++) store(slots[operands.lane[i]], bits);
}

/// Does the same in every quad, the four lanes from a multiple of 4 on.
template <abi::Combine combine>
void by_quads(abi::Slot* slots, unsigned active) {
  UPGC_SCALAR_LOOP
  for (unsigned quad = 0xfu; quad != 0; quad <<= 4)
    if ((active & quad) != 0) combine(slots, active & quad);
}

#undef UPGC_SCALAR_LOOP

/// Only waits: simdgroup_barrier.
inline void combine_nothing(abi::Slot*, unsigned) {}

/// This thread's index in its simdgroup.
UPGC_INLINE unsigned lane_index() {
#if UPGC_SIMD_WIDTH != 1
  return current_lane->slot->lane;
#else
  return 0;
#endif
}

struct Simdgroup {
  static constexpr unsigned width = simd_width;
  /// `combine`, for one group, as what a rendezvous of the simdgroup calls.
  template <abi::Combine combine>
  static constexpr abi::Combine whole = combine;
  /// This thread's index in the group.
  static UPGC_INLINE unsigned index() { return lane_index(); }
  /// The lane of the simdgroup that has this index in the group; none when the index is too large.
  static UPGC_INLINE unsigned lane(unsigned index) { return index; }
  /// The bits of the group's lanes, from bit 0 on, of one bit per lane of the simdgroup.
  static UPGC_INLINE ulong own_bits(ulong bits) { return bits; }
};

/// In a simdgroup of one thread a quad is one thread as well.
struct Quad {
  static constexpr unsigned width = simd_width == 1 ? 1 : 4;
  template <abi::Combine combine>
  static constexpr abi::Combine whole = by_quads<combine>;
  static UPGC_INLINE unsigned index() { return lane_index() % width; }
  static UPGC_INLINE unsigned lane(unsigned index) {
    return index < width ? lane_index() / width * width + index : unsigned(abi::max_simd_width);
  }
  static UPGC_INLINE ulong own_bits(ulong bits) { return bits >> lane_index() / width * width; }
};

#define UPGC_OPERATION(name, expression, identity_expression) \
  struct name {                                               \
    template <class T>                                        \
    static T identity() { return identity_expression; }       \
    template <class T>                                        \
    static T apply(T a, T b) { return T(expression); }        \
  };
UPGC_OPERATION(Sum, a + b, T(0))
UPGC_OPERATION(Product, a * b, T(1))
UPGC_OPERATION(Minimum, metal::min(a, b), T(0))
UPGC_OPERATION(Maximum, metal::max(a, b), T(0))
UPGC_OPERATION(And, a & b, T(~0))
UPGC_OPERATION(Or, a | b, T(0))
UPGC_OPERATION(Xor, a ^ b, T(0))
#undef UPGC_OPERATION

}  // namespace upgc

// As a default argument this is the place of the call in the kernel text: it identifies the simdgroup function that
// lanes wait at. Code addresses would not do, because the optimiser copies calls when it unrolls loops.
#define UPGC_SITE unsigned site = upgc::abi::site_of(__builtin_LINE(), __builtin_COLUMN())

namespace metal {

enum class mem_flags : uint {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
  mem_texture = 4,
  mem_threadgroup_imageblock = 8,
  mem_object_data = 16
};
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(uint(a) | uint(b)); }
constexpr mem_flags operator&(mem_flags a, mem_flags b) { return mem_flags(uint(a) & uint(b)); }

UPGC_INLINE void threadgroup_barrier(mem_flags, [[maybe_unused]] UPGC_SITE) {
#if UPGC_SIMD_WIDTH != 1
  upgc::hooks.barrier(upgc::current_lane, site);
#elif defined(UPGC_SERIAL_THREADS)
  if (upgc::serial_threads && upgc::serial_barrier == 0) upgc::serial_barrier = site;
#endif
}
UPGC_INLINE void simdgroup_barrier(mem_flags, UPGC_SITE) { upgc::rendezvous(upgc::combine_nothing, 0, 0, site); }

/// What simd_ballot and quad_ballot return: one bit per lane of the group.
template <class Group>
struct upgc_vote {
  using vote_t = ulong;
  UPGC_INLINE explicit constexpr upgc_vote(vote_t bits = 0) : bits(bits) {}
  UPGC_INLINE explicit constexpr operator vote_t() const { return bits; }
  UPGC_INLINE constexpr bool any() const { return bits != 0; }
  UPGC_INLINE constexpr bool all() const { return bits == (1ul << Group::width) - 1; }

 private:
  vote_t bits;
};
using simd_vote = upgc_vote<upgc::Simdgroup>;
using quad_vote = upgc_vote<upgc::Quad>;

#ifdef UPGC_STRICT  // has but types
#define UPGC_RENDEZVOUS(Group, combine, value, operand) value
#else
#define UPGC_RENDEZVOUS(Group, combine, ...) upgc::rendezvous(upgc::Group::whole<combine>, __VA_ARGS__, site)
#endif

#define UPGC_REDUCTION(name, Group, Operation)                                                                  \
  template <class T>                                                                                            \
  UPGC_INLINE T name(T value, UPGC_SITE) {                                                                      \
    return UPGC_RENDEZVOUS(Group, (upgc::combine_reduction<T, upgc::Operation>), value, 0);                     \
  }

#define UPGC_PREFIX(group, Group, function, Operation)                                                          \
  template <class T>                                                                                            \
  UPGC_INLINE T group##_prefix_inclusive_##function(T value, UPGC_SITE) {                                       \
    return UPGC_RENDEZVOUS(Group, (upgc::combine_prefix<T, upgc::Operation, true>), value, 0);                  \
  }                                                                                                             \
  template <class T>                                                                                            \
  UPGC_INLINE T group##_prefix_exclusive_##function(T value, UPGC_SITE) {                                       \
    if constexpr (upgc::simd_width == 1) return upgc::Operation::identity<T>();                                 \
    else return UPGC_RENDEZVOUS(Group, (upgc::combine_prefix<T, upgc::Operation, false>), value, 0);            \
  }

// Everything that Metal has for simdgroups and for quads. Lanes whose source of a shuffle falls off the end keep their
// value. Of shuffle_and_fill each lane reads one value, its source's `data` or, past the end, that lane's `filling`; so
// each lane sends the one of the two that is wanted of it.
#define UPGC_GROUP_FUNCTIONS(group, Group)                                                                      \
  UPGC_REDUCTION(group##_sum, Group, Sum)                                                                       \
  UPGC_REDUCTION(group##_product, Group, Product)                                                               \
  UPGC_REDUCTION(group##_min, Group, Minimum)                                                                   \
  UPGC_REDUCTION(group##_max, Group, Maximum)                                                                   \
  UPGC_REDUCTION(group##_and, Group, And)                                                                       \
  UPGC_REDUCTION(group##_or, Group, Or)                                                                         \
  UPGC_REDUCTION(group##_xor, Group, Xor)                                                                       \
  UPGC_PREFIX(group, Group, sum, Sum)                                                                           \
  UPGC_PREFIX(group, Group, product, Product)                                                                   \
  template <class T>                                                                                            \
  UPGC_INLINE T group##_shuffle(T value, ushort lane, UPGC_SITE) {                                              \
    return UPGC_RENDEZVOUS(Group, upgc::combine_shuffle<T>, value, upgc::Group::lane(lane));                    \
  }                                                                                                             \
  template <class T>                                                                                            \
  UPGC_INLINE T group##_broadcast(T value, ushort lane, UPGC_SITE) {                                            \
    return UPGC_RENDEZVOUS(Group, upgc::combine_shuffle<T>, value, upgc::Group::lane(lane));                    \
  }                                                                                                             \
  template <class T>                                                                                            \
  UPGC_INLINE T group##_broadcast_first(T value, UPGC_SITE) {                                                   \
    return UPGC_RENDEZVOUS(Group, upgc::combine_broadcast_first<T>, value, 0);                                  \
  }                                                                                                             \
  template <class T>                                                                                            \
  UPGC_INLINE T group##_shuffle_xor(T value, ushort mask, UPGC_SITE) {                                          \
    return UPGC_RENDEZVOUS(Group, upgc::combine_shuffle<T>, value, upgc::lane_index() ^ mask);                  \
  }                                                                                                             \
  template <class T>                                                                                            \
  UPGC_INLINE T group##_shuffle_up(T value, ushort delta, UPGC_SITE) {                                          \
    return UPGC_RENDEZVOUS(Group, upgc::combine_shuffle<T>, value,                                              \
                           upgc::Group::lane(upgc::Group::index() - delta));                                    \
  }                                                                                                             \
  template <class T>                                                                                            \
  UPGC_INLINE T group##_shuffle_down(T value, ushort delta, UPGC_SITE) {                                        \
    return UPGC_RENDEZVOUS(Group, upgc::combine_shuffle<T>, value,                                              \
                           upgc::Group::lane(upgc::Group::index() + delta));                                    \
  }                                                                                                             \
  template <class T>                                                                                            \
  UPGC_INLINE T group##_shuffle_rotate_up(T value, ushort delta, UPGC_SITE) {                                   \
    return UPGC_RENDEZVOUS(Group, upgc::combine_shuffle<T>, value,                                              \
                           upgc::Group::lane((upgc::Group::index() - delta) % upgc::Group::width));             \
  }                                                                                                             \
  template <class T>                                                                                            \
  UPGC_INLINE T group##_shuffle_rotate_down(T value, ushort delta, UPGC_SITE) {                                 \
    return UPGC_RENDEZVOUS(Group, upgc::combine_shuffle<T>, value,                                              \
                           upgc::Group::lane((upgc::Group::index() + delta) % upgc::Group::width));             \
  }                                                                                                             \
  template <class T>                                                                                            \
  UPGC_INLINE T group##_shuffle_and_fill_up(T data, type_identity_t<T> filling, ushort delta,                   \
                                            ushort modulo = upgc::Group::width, UPGC_SITE) {                    \
    const unsigned width = min(unsigned(modulo), upgc::Group::width);                                           \
    const unsigned index = upgc::Group::index() % width;                                                        \
    const T sent = index + delta < width ? data : filling;                                                      \
    return UPGC_RENDEZVOUS(Group, upgc::combine_shuffle<T>, sent,                                               \
                           upgc::lane_index() - index + (index - delta) % width);                               \
  }                                                                                                             \
  template <class T>                                                                                            \
  UPGC_INLINE T group##_shuffle_and_fill_down(T data, type_identity_t<T> filling, ushort delta,                 \
                                              ushort modulo = upgc::Group::width, UPGC_SITE) {                  \
    const unsigned width = min(unsigned(modulo), upgc::Group::width);                                           \
    const unsigned index = upgc::Group::index() % width;                                                        \
    const T sent = index < delta ? filling : data;                                                              \
    return UPGC_RENDEZVOUS(Group, upgc::combine_shuffle<T>, sent,                                               \
                           upgc::lane_index() - index + (index + delta) % width);                               \
  }                                                                                                             \
  UPGC_INLINE group##_vote group##_ballot(bool predicate, UPGC_SITE) {                                          \
    const ulong bits = UPGC_RENDEZVOUS(Group, upgc::combine_ballot, ulong(predicate), 0);                       \
    return group##_vote(upgc::Group::own_bits(bits));                                                           \
  }                                                                                                             \
  UPGC_INLINE group##_vote group##_active_threads_mask(UPGC_SITE) { return group##_ballot(true, site); }        \
  UPGC_INLINE bool group##_any(bool predicate, UPGC_SITE) { return ulong(group##_ballot(predicate, site)) != 0; }   \
  UPGC_INLINE bool group##_all(bool predicate, UPGC_SITE) { return ulong(group##_ballot(!predicate, site)) == 0; }  \
  UPGC_INLINE bool group##_is_first(UPGC_SITE) {                                                                \
    return uint(__builtin_ctzl(ulong(group##_ballot(true, site)))) == upgc::Group::index();                     \
  }

UPGC_GROUP_FUNCTIONS(simd, Simdgroup)
#ifdef UPGC_USES_QUAD
UPGC_GROUP_FUNCTIONS(quad, Quad)
#endif
#undef UPGC_GROUP_FUNCTIONS
#undef UPGC_PREFIX
#undef UPGC_REDUCTION
#undef UPGC_RENDEZVOUS

}  // namespace metal
#undef UPGC_SITE

#endif  // UPGC_CUDA
