// Checks every access of a program compiled with `ProgramSpec.sanitize`.
//
// Whose memory an access means is known by its address. Every arena is mapped once for each ordinal of a buffer
// argument that it is bound to, far from any other memory, and kernels get pointers into the mapping of the argument:
// an access that leaves its buffer is found even where another buffer of the same kernel lies beside it, and no bytes
// are copied. Threadgroup arguments and variables have gaps between them for the same reason.
//
// Races are found by what an access has to do with earlier ones, not by when it happened to run: every byte has records
// of its last write and reads, and two accesses to it, of which one writes and one is not atomic, must be by one
// thread, or have a barrier between them: of the threadgroup within one threadgroup, of the simdgroup within one
// simdgroup, of the entry between threadgroups. Simdgroup functions order nothing.
#pragma once

#include <csetjmp>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "../error.h"
#include "../program_spec.h"
#include "memory.h"
#include "simt.h"

namespace upgc {

class Sanitizer {
 public:
  /// `arenas` are their files, and `simt` null at simdgroup width 1. All must live as long as this object.
  Sanitizer(Memory& memory, const ProgramSpec& spec, const std::vector<Descriptor>& arenas,
            const abi::Module& module, const abi::Sanitized& sanitized, Simt* simt);

  /// Where the `ordinal`-th buffer argument of a kernel sees an arena.
  unsigned char* arena(size_t arena, size_t ordinal) const;
  unsigned char* threadgroup_memory() const { return threadgroup_memory_.data(); }

  /// Sanitized programs run one at a time: modules keep what they tell the sanitizer in global variables.
  std::unique_lock<std::mutex> begin();
  /// All that has run so far comes before all that follows.
  void begin_epoch();
  /// Runs `run`, one threadgroup of a dispatch. False when it was left in the middle: it would have crashed.
  template <class Run>
  bool threadgroup(const Dispatch& dispatch, const abi::Launch& launch, Run run) {
    begin_threadgroup(dispatch, launch);
    if (simt_ == nullptr) {
      // A kernel of simdgroup width 1 runs on this stack and owns nothing.
      if (setjmp(leave_) != 0) return false;
      run();
      return true;
    }
    try {
      run();
    } catch (const Simt::Abandoned&) {
      return false;
    }
    return true;
  }
  /// What has been found since `begin`, if anything.
  std::optional<Error> findings() const;

 private:
  /// One access as later ones see it.
  struct Record {
    /// Of the threadgroup; 0 for none.
    uint32_t group = 0;
    uint32_t thread : 10;
    // Modulo 2^12 and 2^10: a race with an access exactly so many barriers ago would be imagined.
    uint32_t barriers : 12;
    uint32_t simdgroup_barriers : 10;
    uint32_t site : 31;
    uint32_t atomic : 1;
  };

  /// What is known of one byte: enough reads that of any two that a write may race with, one is there.
  struct Shadow {
    Record write, read;
    /// By another thread of the threadgroup, and by another threadgroup of the epoch, than `read`.
    Record read_by_thread, read_by_group;
  };

  struct Access {
    uint64_t bytes;
    bool write;
    Record record;
  };

  struct Group {
    const Dispatch* dispatch;
    unsigned position[3];
    unsigned size[3];
  };

  /// A piece of memory as a finding names it: a buffer argument, a threadgroup argument, or a variable of a function.
  struct Region {
    enum Kind { buffer, argument, variable } kind;
    /// Which argument of the kernel or variable of the module.
    size_t index;
    uint64_t bytes;
  };

  struct View {
    size_t arena, ordinal;
    unsigned char* begin;
  };

  /// A buffer argument of the dispatch that is running.
  struct Buffer {
    Region region;
    size_t arena;
    const unsigned char* begin;
    /// Of its first byte; null when nothing ever writes the arena.
    Shadow* shadow;
  };

  struct Party {
    Group group;
    Record record;
  };

  struct Finding {
    enum Kind { bounds, race, uninitialised } kind;
    Region region;
    int64_t offset;
    uint64_t bytes;
    bool write;
    Party party;
    /// Of a race.
    Party other;
    bool other_wrote;
  };

  static constexpr size_t most_findings = 10;

  void begin_threadgroup(const Dispatch& dispatch, const abi::Launch& launch);
  static void on_access(const void* address, size_t bytes, bool write, unsigned site);
  Access access(const unsigned char* address, size_t bytes, bool write, unsigned site);
  void check_view(const unsigned char* address, const Access& access);
  void check_threadgroup_argument(const unsigned char* address, const Access& access);
  void check_shared_variable(const unsigned char* address, const Access& access);
  void check_region(const Region& region, int64_t offset, const Access& access, Shadow* shadow);
  bool races(const Record& earlier, const Record& now) const;
  [[noreturn]] void leave();
  void note(const Region& region, int64_t offset, const Access& access, Finding::Kind kind,
            const Record* other = nullptr, bool other_wrote = false);
  std::string described(const Finding& finding) const;
  std::string name_of(const Region& region, const Kernel& kernel) const;
  const Kernel& kernel_of(const Party& party) const { return kernels_[party.group.dispatch->kernel]; }
  std::string place_of(const Party& party) const;

  static Sanitizer* active_;

  const std::vector<Kernel> kernels_;
  const std::vector<Arena> arenas_;
  const std::string source_name_;
  const abi::Sanitized& sanitized_;
  Simt* const simt_;
  /// Address space for all views; each lies in the middle of 2^view_bits_ bytes.
  Mapping views_memory_;
  unsigned view_bits_;
  std::vector<View> views_;
  std::map<std::pair<size_t, size_t>, size_t> view_of_;
  Mapping threadgroup_memory_;
  size_t shared_variables_ = 0;
  // Where the three kinds of memory lie that kernels share.
  const unsigned char *views_begin_, *threadgroup_begin_, *shared_begin_ = nullptr;
  size_t views_bytes_, threadgroup_bytes_, shared_bytes_;
  // One Shadow for each byte; pages that nothing touches take no memory.
  std::vector<Mapping> arena_shadows_;
  Mapping threadgroup_shadow_;
  Mapping shared_shadow_;
  std::jmp_buf leave_;
  /// Threadgroups are counted from 1; those of the epoch are `groups_`, from `first_group_` on.
  uint32_t first_group_ = 1;
  std::vector<Group> groups_;
  uint32_t group_ = 0;
  std::vector<Buffer> buffers_;
  std::vector<Finding> findings_;
  bool more_findings_ = false;
};

}  // namespace upgc
