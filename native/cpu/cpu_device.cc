#include "cpu_device.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>

#include "../error.h"
#include "faults.h"
#include "flush_denormals.h"
#include "kernel_cache.h"
#include "memory.h"
#include "module.h"
#include "sanitizer.h"
#include "shuffled_order.h"
#include "simt.h"
#include "workers.h"

namespace upgc {
namespace {

/// The module's entry for a kernel. The table has the plan's order, and a damaged module must not pass.
const abi::Kernel& find_kernel(const abi::Module& module, const ProgramSpec& spec, size_t index) {
  const std::string& name = spec.kernels[index].name;
  if (module.simd_width != spec.simd_width || index >= module.kernel_count || module.kernels[index].name != name)
    throw Error(code::compile, concat("the compiled module has no kernel ", name));
  return module.kernels[index];
}

// Whether a dispatch is worth sharing out is decided by how long it takes at least on one core: the time to read its
// buffers once, and to start and end its lanes. Sharing saves half of that or more, and costs a hand-over and an
// answer, about 1 µs together; a dispatch must save twice as much.
constexpr double bytes_per_nanosecond = 8;
constexpr double nanoseconds_per_lane = 25;
constexpr double shared_nanoseconds = 4000;
/// More shares than cores, so that a core that is slow or busy with something else takes fewer.
constexpr uint64_t shares_per_core = 4;

bool worth_sharing(const ProgramSpec& spec, const Kernel& kernel, const Dispatch& dispatch) {
  double bytes = 0, lanes = 0;
  for (const Binding& binding : dispatch.bindings) bytes += binding.bytes;
  if (spec.simd_width != 1)
    lanes = double(dispatch.grid[0] * dispatch.grid[1] * dispatch.grid[2]) * kernel.thread_count();
  return bytes / bytes_per_nanosecond + lanes * nanoseconds_per_lane >= shared_nanoseconds;
}

const char* described(Fault fault) {
  switch (fault) {
    case Fault::access: return "access to memory outside of all buffers; a sanitized run tells where";
    case Fault::arithmetic: return "integer division by zero";
    default: return "an instruction that this processor does not have";
  }
}

/// The launch restricted to one threadgroup of its grid, counted x fastest.
abi::Launch one_threadgroup(abi::Launch launch, uint64_t number) {
  for (int axis = 0; axis < 3; axis++) {
    launch.begin[axis] = number % launch.grid[axis];
    launch.end[axis] = launch.begin[axis] + 1;
    number /= launch.grid[axis];
  }
  return launch;
}

class CpuProgram : public Program {
 public:
  explicit CpuProgram(const ProgramSpec& spec)
      : source_name_(spec.source_name), module_(compile_kernels(spec)), shuffle_(spec.shuffle) {
    allocate_arenas(spec);
    allocate_cores(spec);
    for (const Entry& entry : spec.entries) prepare(spec, entry);
  }

  void write(size_t arena, uint64_t offset, const void* data, size_t bytes) override {
    std::memcpy(arenas_[arena].data() + offset, data, bytes);
  }

  void read(size_t arena, uint64_t offset, void* into, size_t bytes) override {
    std::memcpy(into, arenas_[arena].data() + offset, bytes);
  }

  void clear(size_t arena) override {
    if (arenas_[arena].size() != 0) std::memset(arenas_[arena].data(), 0, arenas_[arena].size());
  }

  void reallocate(size_t index, const Arena& arena) override {
    if (sanitizer_) throw Error(code::bad_plan, "the arenas of a sanitized program stay where they are");
    arenas_[index] = memory_.allocate(arena.bytes, "arena " + arena.name);
    moves_++;
  }

  void run(size_t index, uint64_t steps) override {
    PreparedEntry& entry = entries_[index];
    if (entry.moves != moves_) bind(entry);
    std::optional<Random> random;
    if (shuffle_) random.emplace(*shuffle_, submissions_);
    submissions_++;
    const FlushDenormals flush;
    if (sanitizer_) return run_sanitized(entry, steps, random ? &*random : nullptr);
    Core& core = cores_[0];
    for (uint64_t step = 0; step < steps; step++) {
      if (random) run_shuffled(entry, *random);
      else
        for (const Prepared& dispatch : entry.dispatches)
          if (dispatch.shares == 1) execute(core, dispatch, dispatch.launch);
          else share_out(dispatch);
      dispatches_ += entry.dispatches.size();
    }
  }

  Stats stats() const override {
    return {memory_.allocations(), memory_.allocated_bytes(), submissions_, dispatches_};
  }

 private:
  /// A dispatch with nothing left to look up.
  struct Prepared {
    const abi::Kernel* kernel;
    /// As planned.
    Dispatch dispatch;
    abi::Launch launch;
    unsigned threads[3];
    unsigned threadgroup_bytes;
    std::vector<void*> buffers;
    /// Into how many parts of this axis of the grid it is cut; 1 when it runs on one OS thread.
    unsigned shares;
    int shared_axis;
  };

  /// What each OS thread has for itself.
  struct Core {
    /// Of a program of simdgroup width 32 only.
    std::unique_ptr<Simt> simt;
    Mapping threadgroup_memory;
    /// How its first failing share of a dispatch failed, and in which threadgroup, counted x fastest.
    std::optional<Error> error;
    uint64_t failed_group;
  };

  struct PreparedEntry {
    std::vector<Prepared> dispatches;
    /// Of a shuffled or sanitized program only.
    std::vector<Epoch> epochs;
    /// `moves_` when its buffers were looked up.
    uint64_t moves = 0;
  };

  void allocate_arenas(const ProgramSpec& spec) {
    for (const Arena& arena : spec.arenas) {
      if (spec.sanitize) {
        // The files are shared with the sanitizer's views.
        files_.push_back(arena.file ? memory_.open_file(*arena.file, arena.bytes)
                                    : memory_.shareable(arena.bytes, "arena " + arena.name));
        arenas_.push_back(memory_.map(files_.back(), arena.bytes, !arena.file));
        continue;
      }
      arenas_.push_back(arena.file ? memory_.map_file(*arena.file, arena.bytes)
                                   : memory_.allocate(arena.bytes, "arena " + arena.name));
    }
  }

  void allocate_cores(const ProgramSpec& spec) {
    uint64_t bytes = 0, threads = 0;
    for (const Kernel& kernel : spec.kernels) {
      bytes = std::max(bytes, kernel.threadgroup_bytes());
      threads = std::max(threads, kernel.thread_count());
    }
    cores_.resize(spec.shuffle || spec.sanitize ? 1 : spec.threads);
    for (Core& core : cores_) {
      core.threadgroup_memory = memory_.allocate(bytes, "threadgroup memory");
      if (spec.simd_width != 1 && !spec.kernels.empty())
        core.simt = std::make_unique<Simt>(memory_, threads, spec.source_name);
    }
    workers_.emplace(cores_.size() - 1);
    const abi::Hooks hooks = Simt::hooks();
    module_.exports().bind(&hooks);
    if (!spec.sanitize) return;
    const abi::Sanitized* const sanitized = module_.sanitized();
    if (sanitized == nullptr) throw Error(code::compile, "the compiled module cannot be sanitized");
    sanitizer_.emplace(memory_, spec, files_, module_.exports(), *sanitized, cores_[0].simt.get());
  }

  void prepare(const ProgramSpec& spec, const Entry& entry) {
    PreparedEntry& made = entries_.emplace_back();
    std::vector<Prepared>& prepared = made.dispatches;
    std::vector<Epoch>& epochs = made.epochs;
    prepared.reserve(entry.dispatches.size());
    for (size_t d = 0; d < entry.dispatches.size(); d++) {
      const Dispatch& dispatch = entry.dispatches[d];
      const Kernel& kernel = spec.kernels[dispatch.kernel];
      Prepared& p = prepared.emplace_back();
      p.kernel = &find_kernel(module_.exports(), spec, dispatch.kernel);
      p.dispatch = dispatch;
      // The sanitizer knows what has been written; in other programs this much of it is filled with ones.
      p.threadgroup_bytes = spec.sanitize ? 0 : kernel.threadgroup_bytes();
      for (size_t b = 0; b < dispatch.bindings.size(); b++) {
        const Binding& binding = dispatch.bindings[b];
        // A store to a mapped file would kill the process.
        if ((p.kernel->written_buffers >> b & 1) != 0 && spec.arenas[binding.arena].file)
          throw Error(code::bad_plan,
                      concat("entry ", entry.name, ", dispatch ", d, " (", kernel.name, "): binding ", b,
                             " is not const, but arena ", spec.arenas[binding.arena].name, " is a read-only file"));
      }
      p.buffers.resize(dispatch.bindings.size());
      unsigned char* const scratch =
          sanitizer_ ? sanitizer_->threadgroup_memory() : cores_[0].threadgroup_memory.data();
      p.launch = {p.buffers.data(), scratch, {}, {}, {}, {}};
      for (int axis = 0; axis < 3; axis++) {
        const uint64_t whole = dispatch.grid[axis] * kernel.threads[axis];
        p.threads[axis] = kernel.threads[axis];
        p.launch.grid[axis] = p.launch.end[axis] = dispatch.grid[axis];
        p.launch.grid_threads[axis] = dispatch.grid_threads ? (*dispatch.grid_threads)[axis] : whole;
      }
      const auto& grid = dispatch.grid;
      p.shared_axis = std::max_element(grid.begin(), grid.end()) - grid.begin();
      const bool share = !kernel.sequential && worth_sharing(spec, kernel, dispatch);
      const uint64_t most = cores_.size() == 1 ? 1 : shares_per_core * cores_.size();
      p.shares = share ? std::min(most, grid[p.shared_axis]) : 1;
      if (!spec.shuffle && !spec.sanitize) continue;
      if (d == 0 || dispatch.barrier) epochs.emplace_back(d);
      epochs.back().append(dispatch.grid[0] * dispatch.grid[1] * dispatch.grid[2]);
    }
    bind(made);
  }

  /// Looks up where the buffers of an entry are.
  void bind(PreparedEntry& entry) {
    for (Prepared& p : entry.dispatches)
      for (size_t b = 0; b < p.buffers.size(); b++) {
        const Binding& binding = p.dispatch.bindings[b];
        unsigned char* const arena = sanitizer_ ? sanitizer_->arena(binding.arena, b) : arenas_[binding.arena].data();
        p.buffers[b] = arena + binding.offset;
      }
    entry.moves = moves_;
  }

  /// Runs the threadgroups of the launch on the calling OS thread.
  void execute(Core& core, const Prepared& dispatch, const abi::Launch& launch, Random* random = nullptr) {
    const unsigned* const threads = dispatch.threads;
    unsigned barrier = 0;
    const std::optional<Fault> fault = catch_fault([&] {
      if (!core.simt) {
        barrier = dispatch.kernel->run_grid(&launch);
        return;
      }
      core.simt->prepare(module_.exports().current_lane(), random);
      core.simt->run({dispatch.kernel, &launch, {threads[0], threads[1], threads[2]}, dispatch.threadgroup_bytes});
    });
    if (fault) throw Error(code::kernel, concat("kernel ", dispatch.kernel->name, ": ", described(*fault)));
    if (barrier == 0) return;
    throw Error(code::kernel, concat("kernel ", dispatch.kernel->name, ": the barrier at ",
                                     shown_site(source_name_, barrier), " in a threadgroup of ",
                                     threads[0] * threads[1] * threads[2],
                                     " threads needs 32-lane mode: simdWidth 32"));
  }

  /// The cores run the parts of the grid. Of several errors the one in the first threadgroup counts, as on one core.
  void share_out(const Prepared& dispatch) {
    workers_->run(dispatch.shares, [&](unsigned share, unsigned thread) {
      // A fault resets what the worker has set for itself.
      const FlushDenormals flush;
      Core& core = cores_[thread];
      const int axis = dispatch.shared_axis;
      const uint64_t size = dispatch.launch.grid[axis];
      abi::Launch launch = dispatch.launch;
      launch.threadgroup_memory = core.threadgroup_memory.data();
      launch.begin[axis] = size * share / dispatch.shares;
      launch.end[axis] = size * (share + 1) / dispatch.shares;
      try {
        execute(core, dispatch, launch);
      } catch (const Error& error) {
        const unsigned* const group = core.simt ? core.simt->group() : launch.begin;
        const uint64_t number = group[0] + launch.grid[0] * (group[1] + uint64_t{launch.grid[1]} * group[2]);
        if (core.error && core.failed_group < number) return;
        core.failed_group = number;
        core.error = error;
      }
    });
    Core* first = nullptr;
    for (Core& core : cores_)
      if (core.error && (first == nullptr || core.failed_group < first->failed_group)) first = &core;
    if (first == nullptr) return;
    const Error error = *first->error;
    for (Core& core : cores_) core.error.reset();
    throw error;
  }

  void run_shuffled(const PreparedEntry& entry, Random& random) {
    Core& core = cores_[0];
    for (const Epoch& epoch : entry.epochs) {
      const Permutation order(epoch.size(), random);
      for (uint64_t i = 0; i < epoch.size(); i++) {
        const Epoch::Threadgroup group = epoch[order(i)];
        const Prepared& dispatch = entry.dispatches[group.dispatch];
        // At width 32 `Simt` does it; here the last threadgroup may have been another kernel's.
        if (!core.simt && dispatch.threadgroup_bytes != 0)
          std::memset(core.threadgroup_memory.data(), 0xff, dispatch.threadgroup_bytes);
        execute(core, dispatch, one_threadgroup(dispatch.launch, group.number), &random);
      }
    }
  }

  /// The threadgroups of each epoch one by one, in random order if there is one. After a step with findings the kernels
  /// have done who knows what: it is the last.
  void run_sanitized(const PreparedEntry& entry, uint64_t steps, Random* random) {
    const auto lock = sanitizer_->begin();
    for (uint64_t step = 0; step < steps; step++) {
      std::optional<Error> stopped;
      try {
        sanitize_step(entry, random);
      } catch (const Error& error) {
        stopped = error;
      }
      const std::optional<Error> found = sanitizer_->findings();
      if (found && stopped) throw Error(found->code(), concat(found->what(), "\n", stopped->what()));
      if (found) throw *found;
      if (stopped) throw *stopped;
      dispatches_ += entry.dispatches.size();
    }
  }

  void sanitize_step(const PreparedEntry& entry, Random* random) {
    for (const Epoch& epoch : entry.epochs) {
      sanitizer_->begin_epoch();
      std::optional<Permutation> order;
      if (random != nullptr) order.emplace(epoch.size(), *random);
      for (uint64_t i = 0; i < epoch.size(); i++) {
        const Epoch::Threadgroup group = epoch[order ? (*order)(i) : i];
        const Prepared& dispatch = entry.dispatches[group.dispatch];
        const abi::Launch launch = one_threadgroup(dispatch.launch, group.number);
        if (!sanitizer_->threadgroup(dispatch.dispatch, launch, [&] { execute(cores_[0], dispatch, launch, random); }))
          return;
      }
    }
  }

  const std::string source_name_;
  Memory memory_;
  Module module_;
  /// Of a sanitized program only: what backs its arenas.
  std::vector<Descriptor> files_;
  std::vector<Mapping> arenas_;
  std::vector<Core> cores_;
  /// One less than cores: the submitting thread is the first.
  std::optional<Workers> workers_;
  std::optional<Sanitizer> sanitizer_;
  std::vector<PreparedEntry> entries_;
  /// Counts arenas that went elsewhere.
  uint64_t moves_ = 0;
  const std::optional<uint32_t> shuffle_;
  // Atomic because stats() may be asked during a submission.
  std::atomic<uint64_t> submissions_{0};
  std::atomic<uint64_t> dispatches_{0};
};

}  // namespace

std::unique_ptr<Program> CpuDevice::create(const ProgramSpec& spec) const {
  return std::make_unique<CpuProgram>(spec);
}

}  // namespace upgc
