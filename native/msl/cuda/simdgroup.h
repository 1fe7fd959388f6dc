// Simdgroup functions and barriers: a simdgroup is a warp. As in Metal, all threads of the simdgroup that live must
// reach a simdgroup function together. Where a threadgroup may end in an incomplete simdgroup, the loader defines
// UPGC_PARTIAL_SIMDGROUPS, and the functions work on the threads that arrive.
#pragma once

#include "../math.h"

namespace upgc {

constexpr unsigned simd_width = 32;
constexpr unsigned quad_width = 4;

/// The threads that take part: bit n is lane n.
UPGC_INLINE unsigned active_lanes() {
#ifdef UPGC_PARTIAL_SIMDGROUPS
  return ::__activemask();
#else
  return 0xffffffffu;
#endif
}

UPGC_INLINE unsigned lane_index() {
  unsigned lane;
  asm("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}

/// The value with each of its 32-bit words replaced by what `move` makes of it.
template <class T, class Move>
UPGC_INLINE T by_words(T value, Move move) {
  if constexpr (sizeof(T) == 1) {
    return __builtin_bit_cast(T, (unsigned char)(move(unsigned(__builtin_bit_cast(unsigned char, value)))));
  } else if constexpr (sizeof(T) == 2) {
    return __builtin_bit_cast(T, (unsigned short)(move(unsigned(__builtin_bit_cast(unsigned short, value)))));
  } else {
    struct Words {
      unsigned word[sizeof(T) / 4];
    };
    static_assert(sizeof(Words) == sizeof(T), "simdgroup functions take scalars and vectors");
    Words words = __builtin_bit_cast(Words, value);
    for (unsigned& word : words.word) word = move(word);
    return __builtin_bit_cast(T, words);
  }
}

/// What the lane named by `source` has. Its own where that one takes no part (Metal: undefined).
template <class T>
UPGC_INLINE T from_lane(T value, unsigned source, unsigned active = active_lanes()) {
  if (source >= simd_width || (active >> source & 1) == 0) source = lane_index();
  return by_words(value, [=](unsigned word) { return ::__shfl_sync(active, word, int(source)); });
}

struct Simdgroup {
  static constexpr unsigned width = simd_width;
  /// This thread's index in the group.
  static UPGC_INLINE unsigned index() { return lane_index(); }
  /// The lane of the simdgroup that has this index in the group; none when the index is too large.
  static UPGC_INLINE unsigned lane(unsigned index) { return index; }
  /// The bits of the group's lanes, in their places, of one bit per lane of the simdgroup.
  static UPGC_INLINE unsigned own(unsigned bits) { return bits; }
  /// The place of the first.
  static UPGC_INLINE unsigned start() { return 0; }
};

struct Quad {
  static constexpr unsigned width = quad_width;
  static UPGC_INLINE unsigned index() { return lane_index() % width; }
  static UPGC_INLINE unsigned lane(unsigned index) { return index < width ? start() + index : simd_width; }
  static UPGC_INLINE unsigned own(unsigned bits) { return bits & 0xfu << start(); }
  static UPGC_INLINE unsigned start() { return lane_index() / width * width; }
};

#define UPGC_OPERATION(name, expression, identity_expression) \
  struct name {                                               \
    template <class T>                                        \
    static UPGC_INLINE T identity() { return identity_expression; } \
    template <class T>                                        \
    static UPGC_INLINE T apply(T a, T b) { return T(expression); } \
  };
UPGC_OPERATION(Sum, a + b, T(0))
UPGC_OPERATION(Product, a * b, T(1))
UPGC_OPERATION(Minimum, metal::min(a, b), T(0))
UPGC_OPERATION(Maximum, metal::max(a, b), T(0))
UPGC_OPERATION(And, a & b, T(~0))
UPGC_OPERATION(Or, a | b, T(0))
UPGC_OPERATION(Xor, a ^ b, T(0))
#undef UPGC_OPERATION

/// Every lane gets the reduction of all in the group, as a balanced tree: the same on every run, and as on the CPU device.
template <class Group, class Operation, class T>
UPGC_INLINE T reduce(T value) {
#ifdef UPGC_PARTIAL_SIMDGROUPS
  const unsigned active = active_lanes(), own = Group::own(active);
  const unsigned members = unsigned(::__popc(own));
  // The lane's number among the active ones, and which lane has the number that is `step` above.
  const unsigned number = unsigned(::__popc(own & ((1u << lane_index()) - 1)));
  for (unsigned count = members; count > 1;) {
    const unsigned kept = (count + 1) / 2;
    const unsigned partner = number + kept;
    const T other = from_lane(value, ::__fns(own, Group::start(), int(partner) + 1), active);
    if (partner < count) value = Operation::apply(value, other);
    count = kept;
  }
  return from_lane(value, unsigned(::__ffs(int(own))) - 1, active);
#else
  for (unsigned step = Group::width / 2; step != 0; step /= 2)
    value = Operation::apply(value, by_words(value, [=](unsigned word) {
                               return ::__shfl_xor_sync(0xffffffffu, word, int(step));
                             }));
  return value;
#endif
}

/// A lane gets the reduction of the active lanes up to itself, itself included or not, from the first on.
template <class Group, class Operation, bool inclusive, class T>
UPGC_INLINE T prefix(T value) {
  const unsigned active = active_lanes();
  T total = Operation::template identity<T>();
  for (unsigned i = 0; i < Group::width; i++) {
    const unsigned source = Group::lane(i);
    const T other = from_lane(value, source, active);
    const bool counts = inclusive ? i <= Group::index() : i < Group::index();
    if (counts && (active >> source & 1) != 0) total = Operation::apply(total, other);
  }
  return total;
}

}  // namespace upgc

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

UPGC_INLINE void threadgroup_barrier(mem_flags) { ::__syncthreads(); }
UPGC_INLINE void simdgroup_barrier(mem_flags) { ::__syncwarp(upgc::active_lanes()); }

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

#define UPGC_REDUCTION(name, Group, Operation)                              \
  template <class T>                                                        \
  UPGC_INLINE T name(T value) {                                             \
    return upgc::reduce<upgc::Group, upgc::Operation>(value);               \
  }
#define UPGC_PREFIX(group, Group, function, Operation)                      \
  template <class T>                                                        \
  UPGC_INLINE T group##_prefix_inclusive_##function(T value) {              \
    return upgc::prefix<upgc::Group, upgc::Operation, true>(value);         \
  }                                                                         \
  template <class T>                                                        \
  UPGC_INLINE T group##_prefix_exclusive_##function(T value) {              \
    return upgc::prefix<upgc::Group, upgc::Operation, false>(value);        \
  }

// Everything that Metal has for simdgroups and for quads; ../simdgroup.h has the same list.
#define UPGC_GROUP_FUNCTIONS(group, Group)                                                                        \
  UPGC_REDUCTION(group##_sum, Group, Sum)                                                                         \
  UPGC_REDUCTION(group##_product, Group, Product)                                                                 \
  UPGC_REDUCTION(group##_min, Group, Minimum)                                                                     \
  UPGC_REDUCTION(group##_max, Group, Maximum)                                                                     \
  UPGC_REDUCTION(group##_and, Group, And)                                                                         \
  UPGC_REDUCTION(group##_or, Group, Or)                                                                           \
  UPGC_REDUCTION(group##_xor, Group, Xor)                                                                         \
  UPGC_PREFIX(group, Group, sum, Sum)                                                                             \
  UPGC_PREFIX(group, Group, product, Product)                                                                     \
  template <class T>                                                                                              \
  UPGC_INLINE T group##_shuffle(T value, ushort lane) { return upgc::from_lane(value, upgc::Group::lane(lane)); } \
  template <class T>                                                                                              \
  UPGC_INLINE T group##_broadcast(T value, ushort lane) { return group##_shuffle(value, lane); }                  \
  template <class T>                                                                                              \
  UPGC_INLINE T group##_broadcast_first(T value) {                                                                \
    return upgc::from_lane(value, unsigned(::__ffs(int(upgc::Group::own(upgc::active_lanes())))) - 1);            \
  }                                                                                                               \
  template <class T>                                                                                              \
  UPGC_INLINE T group##_shuffle_xor(T value, ushort mask) {                                                       \
    return upgc::from_lane(value, upgc::lane_index() ^ mask);                                                     \
  }                                                                                                               \
  template <class T>                                                                                              \
  UPGC_INLINE T group##_shuffle_up(T value, ushort delta) {                                                       \
    return upgc::from_lane(value, upgc::Group::lane(upgc::Group::index() - delta));                               \
  }                                                                                                               \
  template <class T>                                                                                              \
  UPGC_INLINE T group##_shuffle_down(T value, ushort delta) {                                                     \
    return upgc::from_lane(value, upgc::Group::lane(upgc::Group::index() + delta));                               \
  }                                                                                                               \
  template <class T>                                                                                              \
  UPGC_INLINE T group##_shuffle_rotate_up(T value, ushort delta) {                                                \
    return upgc::from_lane(value, upgc::Group::lane((upgc::Group::index() - delta) % upgc::Group::width));        \
  }                                                                                                               \
  template <class T>                                                                                              \
  UPGC_INLINE T group##_shuffle_rotate_down(T value, ushort delta) {                                              \
    return upgc::from_lane(value, upgc::Group::lane((upgc::Group::index() + delta) % upgc::Group::width));        \
  }                                                                                                               \
  template <class T>                                                                                              \
  UPGC_INLINE T group##_shuffle_and_fill_up(T data, type_identity_t<T> filling, ushort delta,                     \
                                            ushort modulo = upgc::Group::width) {                                 \
    const unsigned width = min(unsigned(modulo), upgc::Group::width);                                             \
    const unsigned index = upgc::Group::index() % width;                                                          \
    const T sent = index + delta < width ? data : filling;                                                        \
    return upgc::from_lane(sent, upgc::lane_index() - index + (index - delta) % width);                           \
  }                                                                                                               \
  template <class T>                                                                                              \
  UPGC_INLINE T group##_shuffle_and_fill_down(T data, type_identity_t<T> filling, ushort delta,                   \
                                              ushort modulo = upgc::Group::width) {                               \
    const unsigned width = min(unsigned(modulo), upgc::Group::width);                                             \
    const unsigned index = upgc::Group::index() % width;                                                          \
    const T sent = index < delta ? filling : data;                                                                \
    return upgc::from_lane(sent, upgc::lane_index() - index + (index + delta) % width);                           \
  }                                                                                                               \
  UPGC_INLINE group##_vote group##_ballot(bool predicate) {                                                       \
    const unsigned bits = ::__ballot_sync(upgc::active_lanes(), predicate);                                       \
    return group##_vote(ulong(upgc::Group::own(bits) >> upgc::Group::start()));                                   \
  }                                                                                                               \
  UPGC_INLINE group##_vote group##_active_threads_mask() { return group##_ballot(true); }                         \
  UPGC_INLINE bool group##_any(bool predicate) { return ulong(group##_ballot(predicate)) != 0; }                  \
  UPGC_INLINE bool group##_all(bool predicate) { return ulong(group##_ballot(!predicate)) == 0; }                 \
  UPGC_INLINE bool group##_is_first() {                                                                           \
    return uint(::__ffs(int(ulong(group##_ballot(true))))) - 1 == upgc::Group::index();                           \
  }

UPGC_GROUP_FUNCTIONS(simd, Simdgroup)
#ifdef UPGC_USES_QUAD
UPGC_GROUP_FUNCTIONS(quad, Quad)
#endif
#undef UPGC_GROUP_FUNCTIONS
#undef UPGC_PREFIX
#undef UPGC_REDUCTION

}  // namespace metal
