#include "cpu_device.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>

#include "../error.h"
#include "flush_denormals.h"
#include "kernel_cache.h"
#include "memory.h"
#include "module.h"
#include "shuffled_order.h"
#include "simt.h"

namespace upgc {
namespace {

/// The module's entry for a kernel. The table has the plan's order, and a damaged module must not pass.
const abi::Kernel& find_kernel(const abi::Module& module, const ProgramSpec& spec, size_t index) {
  const std::string& name = spec.kernels[index].name;
  if (module.simd_width != spec.simd_width || index >= module.kernel_count || module.kernels[index].name != name)
    throw Error(code::compile, concat("the compiled module has no kernel ", name));
  return module.kernels[index];
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
    allocate_threadgroups(spec);
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

  void run(size_t index, uint64_t steps) override {
    const PreparedEntry& entry = entries_[index];
    std::optional<Random> random;
    if (shuffle_) random.emplace(*shuffle_, submissions_);
    submissions_++;
    const FlushDenormals flush;
    if (simt_) simt_->prepare(module_.exports().current_lane(), random ? &*random : nullptr);
    for (uint64_t step = 0; step < steps; step++) {
      if (random) run_shuffled(entry, *random);
      else for (const Prepared& dispatch : entry.dispatches) execute(dispatch, dispatch.launch);
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
    abi::Launch launch;
    unsigned threads[3];
    unsigned threadgroup_bytes;
    std::vector<void*> buffers;
  };

  struct PreparedEntry {
    std::vector<Prepared> dispatches;
    /// Of a shuffled program only.
    std::vector<Epoch> epochs;
  };

  void allocate_arenas(const ProgramSpec& spec) {
    for (const Arena& arena : spec.arenas)
      arenas_.push_back(arena.file ? memory_.map_file(*arena.file, arena.bytes)
                                   : memory_.allocate(arena.bytes, "arena " + arena.name));
  }

  void allocate_threadgroups(const ProgramSpec& spec) {
    uint64_t bytes = 0, threads = 0;
    for (const Kernel& kernel : spec.kernels) {
      bytes = std::max(bytes, kernel.threadgroup_bytes());
      threads = std::max(threads, kernel.thread_count());
    }
    threadgroup_memory_ = memory_.allocate(bytes, "threadgroup memory");
    if (spec.simd_width == 1 || spec.kernels.empty()) return;
    simt_.emplace(memory_, threads, spec.source_name);
    const abi::Hooks hooks = Simt::hooks();
    module_.exports().bind(&hooks);
  }

  void prepare(const ProgramSpec& spec, const Entry& entry) {
    auto& [prepared, epochs] = entries_.emplace_back();
    prepared.reserve(entry.dispatches.size());
    for (size_t d = 0; d < entry.dispatches.size(); d++) {
      const Dispatch& dispatch = entry.dispatches[d];
      const Kernel& kernel = spec.kernels[dispatch.kernel];
      Prepared& p = prepared.emplace_back();
      p.kernel = &find_kernel(module_.exports(), spec, dispatch.kernel);
      p.threadgroup_bytes = kernel.threadgroup_bytes();
      for (size_t b = 0; b < dispatch.bindings.size(); b++) {
        const Binding& binding = dispatch.bindings[b];
        // A store to a mapped file would kill the process.
        if ((p.kernel->written_buffers >> b & 1) != 0 && spec.arenas[binding.arena].file)
          throw Error(code::bad_plan,
                      concat("entry ", entry.name, ", dispatch ", d, " (", kernel.name, "): binding ", b,
                             " is not const, but arena ", spec.arenas[binding.arena].name, " is a read-only file"));
        p.buffers.push_back(arenas_[binding.arena].data() + binding.offset);
      }
      p.launch = {p.buffers.data(), threadgroup_memory_.data(), {}, {}, {}, {}};
      for (int axis = 0; axis < 3; axis++) {
        const uint64_t whole = dispatch.grid[axis] * kernel.threads[axis];
        p.threads[axis] = kernel.threads[axis];
        p.launch.grid[axis] = p.launch.end[axis] = dispatch.grid[axis];
        p.launch.grid_threads[axis] = dispatch.grid_threads ? (*dispatch.grid_threads)[axis] : whole;
      }
      if (!spec.shuffle) continue;
      if (d == 0 || dispatch.barrier) epochs.emplace_back(d);
      epochs.back().append(dispatch.grid[0] * dispatch.grid[1] * dispatch.grid[2]);
    }
  }

  void execute(const Prepared& dispatch, const abi::Launch& launch) {
    const unsigned* const threads = dispatch.threads;
    if (simt_) {
      simt_->run({dispatch.kernel, &launch, {threads[0], threads[1], threads[2]}, dispatch.threadgroup_bytes});
    } else if (const unsigned barrier = dispatch.kernel->run_grid(&launch)) {
      throw Error(code::kernel, concat("kernel ", dispatch.kernel->name, ": the barrier at ",
                                       shown_site(source_name_, barrier), " in a threadgroup of ",
                                       threads[0] * threads[1] * threads[2],
                                       " threads needs 32-lane mode: simdWidth 32"));
    }
  }

  void run_shuffled(const PreparedEntry& entry, Random& random) {
    for (const Epoch& epoch : entry.epochs) {
      const Permutation order(epoch.size(), random);
      for (uint64_t i = 0; i < epoch.size(); i++) {
        const Epoch::Threadgroup group = epoch[order(i)];
        const Prepared& dispatch = entry.dispatches[group.dispatch];
        // At width 32 `Simt` does it; here the last threadgroup may have been another kernel's.
        if (!simt_ && dispatch.threadgroup_bytes != 0)
          std::memset(threadgroup_memory_.data(), 0xff, dispatch.threadgroup_bytes);
        execute(dispatch, one_threadgroup(dispatch.launch, group.number));
      }
    }
  }

  const std::string source_name_;
  Memory memory_;
  Module module_;
  std::vector<Mapping> arenas_;
  Mapping threadgroup_memory_;
  std::optional<Simt> simt_;
  std::vector<PreparedEntry> entries_;
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
