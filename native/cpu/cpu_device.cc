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

class CpuProgram : public Program {
 public:
  explicit CpuProgram(const ProgramSpec& spec) : module_(compile_kernels(spec)) {
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

  void run(size_t entry) override {
    submissions_++;
    const FlushDenormals flush;
    if (simt_) run_lanes(entries_[entry]);
    else for (const Prepared& dispatch : entries_[entry]) dispatch.kernel->run_grid(&dispatch.launch);
    dispatches_ += entries_[entry].size();
  }

  Stats stats() const override {
    return {memory_.allocations(), memory_.allocated_bytes(), submissions_, dispatches_};
  }

 private:
  /// A dispatch with nothing left to look up.
  struct Prepared {
    const abi::Kernel* kernel;
    abi::Launch launch;
    unsigned threads;
    unsigned threadgroup_bytes;
    std::vector<void*> buffers;
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
      threads = std::max(threads, kernel.threads);
    }
    threadgroup_memory_ = memory_.allocate(bytes, "threadgroup memory");
    if (spec.simd_width == 1 || spec.kernels.empty()) return;
    simt_.emplace(memory_, threads, spec.source_name);
    const abi::Hooks hooks = Simt::hooks();
    module_.exports().bind(&hooks);
  }

  void prepare(const ProgramSpec& spec, const Entry& entry) {
    std::vector<Prepared>& prepared = entries_.emplace_back();
    prepared.reserve(entry.dispatches.size());
    for (size_t d = 0; d < entry.dispatches.size(); d++) {
      const Dispatch& dispatch = entry.dispatches[d];
      const Kernel& kernel = spec.kernels[dispatch.kernel];
      Prepared& p = prepared.emplace_back();
      p.kernel = &find_kernel(module_.exports(), spec, dispatch.kernel);
      p.threads = kernel.threads;
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
      p.launch = {p.buffers.data(), threadgroup_memory_.data(),
                  {unsigned(dispatch.grid[0]), unsigned(dispatch.grid[1]), unsigned(dispatch.grid[2])}};
    }
  }

  void run_lanes(const std::vector<Prepared>& dispatches) {
    abi::Lane** const current_lane = module_.exports().current_lane();
    for (const Prepared& dispatch : dispatches)
      simt_->run({dispatch.kernel, &dispatch.launch, dispatch.threads, dispatch.threadgroup_bytes}, current_lane);
  }

  Memory memory_;
  Module module_;
  std::vector<Mapping> arenas_;
  Mapping threadgroup_memory_;
  std::optional<Simt> simt_;
  std::vector<std::vector<Prepared>> entries_;
  // Atomic because stats() may be asked during a submission.
  std::atomic<uint64_t> submissions_{0};
  std::atomic<uint64_t> dispatches_{0};
};

}  // namespace

std::unique_ptr<Program> CpuDevice::create(const ProgramSpec& spec) const {
  return std::make_unique<CpuProgram>(spec);
}

}  // namespace upgc
