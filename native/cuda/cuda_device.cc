#include "cuda_device.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <utility>

#include "../cpu/memory.h"
#include "../error.h"
#include "cubin_cache.h"
#include "driver.h"
#include "translation_unit.h"

namespace upgc {
namespace {

using cuda::driver;

// Two of these carry files to the GPU: while one travels, the other is filled.
constexpr size_t staging_bytes = size_t{16} << 20;
constexpr size_t shown_kernels = 4;
// GPUs from this compute capability on can launch a kernel while the one before it runs.
constexpr int first_to_overlap = 90;

/// Whether a kernel of this process has failed: CUDA then answers everything with that error until the process ends, new
/// contexts included.
std::atomic<bool> broken{false};

void check_unbroken() {
  if (broken)
    throw Error(code::kernel, "a kernel has failed on the GPU, and CUDA does nothing more in this process: close the "
                              "programs of this device, and start the process again or use another device");
}

/// The process's context on the first GPU, which all its programs share. The last one closes it.
class Context {
 public:
  static std::shared_ptr<Context> current() {
    static std::mutex mutex;
    static std::weak_ptr<Context> shared;
    const std::lock_guard<std::mutex> lock(mutex);
    std::shared_ptr<Context> context = shared.lock();
    if (context == nullptr) shared = context = std::make_shared<Context>();
    return context;
  }

  Context() {
    cuda::Device device = 0;
    check(driver().device_get(&device, 0), "cannot use the GPU");
    int major = 0, minor = 0;
    check(driver().device_attribute(&major, cuda::attribute_major, device), "cannot use the GPU");
    check(driver().device_attribute(&minor, cuda::attribute_minor, device), "cannot use the GPU");
    capability = 10 * major + minor;
    check(driver().context_create(&context_, 0, device), "cannot use the GPU");
    cuda::Context popped = nullptr;
    driver().context_pop(&popped);
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() { driver().context_destroy(context_); }

  /// Makes the context the calling thread's as long as it lives.
  struct Use {
    explicit Use(const Context& context) {
      check(driver().context_push(context.context_), "cannot use the GPU");
    }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    ~Use() {
      cuda::Context popped = nullptr;
      driver().context_pop(&popped);
    }
  };

  static void check(cuda::Result result, const std::string& what) { driver().check(result, code::no_cuda, what); }

  /// 10 times the compute capability.
  int capability = 0;

 private:
  cuda::Context context_ = nullptr;
};

/// Memory of the host that the GPU reads by itself.
class Staging {
 public:
  explicit Staging(size_t bytes) {
    Context::check(driver().host_allocate(&data_, bytes), "cannot allocate memory for copies");
    Context::check(driver().event_create(&free_, cuda::event_disable_timing), "cannot use the GPU");
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging() {
    driver().event_synchronize(free_);
    driver().event_destroy(free_);
    driver().host_free(data_);
  }

  /// Starts a copy of bytes that may change once this returns.
  void send(cuda::DevicePointer to, const void* from, size_t bytes, cuda::Stream stream) {
    Context::check(driver().event_synchronize(free_), "a copy to the GPU failed");
    std::memcpy(data_, from, bytes);
    Context::check(driver().copy_in(to, data_, bytes, stream), "a copy to the GPU failed");
    Context::check(driver().event_record(free_, stream), "a copy to the GPU failed");
  }

 private:
  void* data_ = nullptr;
  cuda::Event free_ = nullptr;
};

class CudaProgram : public Program {
 public:
  explicit CudaProgram(const ProgramSpec& spec)
      : context_(Context::current()), planned_entries_(spec.entries), kernels_(spec.kernels) {
    const std::string cubin = cuda::compile_cubin(spec, context_->capability);
    const Context::Use use(*context_);
    try {
      Context::check(driver().stream_create(&stream_, cuda::stream_non_blocking), "cannot use the GPU");
      load_kernels(spec, cubin);
      for (const Arena& arena : spec.arenas) {
        sizes_.push_back(arena.bytes);
        allocate(arena, arenas_.emplace_back(0));
      }
      for (const Entry& entry : spec.entries) {
        entries_.push_back({nullptr, described(spec, entry)});
        record(entries_.size() - 1);
      }
      Context::check(driver().stream_synchronize(stream_), "a copy to the GPU failed");
    } catch (...) {
      release();
      throw;
    }
  }

  ~CudaProgram() override {
    try {
      const Context::Use use(*context_);
      release();
    } catch (const Error&) {
      // CUDA frees everything when the process ends.
    }
  }

  void write(size_t arena, uint64_t offset, const void* data, size_t bytes) override {
    const Context::Use use(check_alive());
    // The driver has read pageable memory when this returns.
    check(driver().copy_in(arenas_[arena] + offset, data, bytes, stream_), "a copy to the GPU failed");
  }

  void read(size_t arena, uint64_t offset, void* into, size_t bytes) override {
    const Context::Use use(check_alive());
    check(driver().copy_out(into, arenas_[arena] + offset, bytes, stream_), "a copy from the GPU failed");
    check(driver().stream_synchronize(stream_), "a copy from the GPU failed");
  }

  void clear(size_t arena) override {
    const Context::Use use(check_alive());
    if (sizes_[arena] != 0)
      check(driver().set_bytes(arenas_[arena], 0, sizes_[arena], stream_), "memory of the GPU cannot be cleared");
  }

  void reallocate(size_t index, const Arena& arena) override {
    const Context::Use use(check_alive());
    cuda::DevicePointer address = 0;
    allocate(arena, address);
    std::swap(address, arenas_[index]);
    moves_++;
    if (address != 0) check(driver().memory_free(address), "memory of the GPU cannot be freed");
  }

  void run(size_t index, uint64_t steps) override {
    const Context::Use use(check_alive());
    const RecordedEntry& entry = entries_[index];
    const std::vector<Dispatch>& dispatches = planned_entries_[index].dispatches;
    // After a move, one dispatch is launched sooner than recorded.
    const bool recorded = entry.moves == moves_ || dispatches.size() > 1;
    if (entry.moves != moves_ && recorded) record(index);
    submissions_++;
    cuda::Result result = cuda::success;
    for (uint64_t step = 0; step < steps && !dispatches.empty() && result == cuda::success; step++)
      result = recorded ? driver().graph_launch(entry.graph, stream_) : launch(dispatches[0], false);
    if (result == cuda::success) result = driver().stream_synchronize(stream_);
    check(result, entry.kernels);
    dispatches_ += steps * dispatches.size();
  }

  Stats stats() const override { return {allocations_, allocated_bytes_, submissions_, dispatches_}; }

 private:
  struct RecordedEntry {
    /// Null when there is nothing to do.
    cuda::GraphExec graph;
    /// What has failed when it fails.
    std::string kernels;
    /// `moves_` when it was recorded.
    uint64_t moves = 0;
  };

  const Context& check_alive() const {
    check_unbroken();
    return *context_;
  }

  /// After an error of a kernel, CUDA gives the same error for everything.
  void check(cuda::Result result, const std::string& what) {
    if (result == cuda::success) return;
    broken = true;
    driver().check(result, code::kernel, what);
  }

  void load_kernels(const ProgramSpec& spec, const std::string& cubin) {
    driver().check(driver().module_load(&module_, cubin.data()), code::compile, "the compiled kernels do not load");
    for (const Kernel& kernel : spec.kernels) {
      cuda::Function& function = functions_.emplace_back();
      driver().check(driver().module_function(&function, module_, cuda_name(kernel).c_str()), code::compile,
                     concat("the compiled kernels have no ", kernel.name));
      flat_.push_back(is_flat(spec, flat_.size()));
    }
  }

  void allocate(const Arena& arena, cuda::DevicePointer& address) {
    if (arena.bytes == 0) return;
    driver().check(driver().memory_allocate(&address, arena.bytes), code::bad_plan,
                   concat("arena ", arena.name, " of ", arena.bytes, " bytes"));
    allocations_++;
    allocated_bytes_ += arena.bytes;
    if (arena.file) upload(arena, address);
    else Context::check(driver().set_bytes(address, 0, arena.bytes, stream_), "memory of the GPU cannot be cleared");
  }

  void upload(const Arena& arena, cuda::DevicePointer to) {
    Memory memory;
    const Mapping file = memory.map_file(*arena.file, arena.bytes);
    const size_t part = std::min<uint64_t>(staging_bytes, arena.bytes);
    Staging staging[] = {Staging(part), Staging(part)};
    for (uint64_t at = 0, turn = 0; at < arena.bytes; at += part, turn++)
      staging[turn % 2].send(to + at, file.data() + at, std::min<uint64_t>(part, arena.bytes - at), stream_);
  }

  /// The dispatches of an entry as a graph, one after another. From the second on each may be launched while the one
  /// before still runs, and waits for its end by itself (native/msl/cuda/entry.h): that hides the launch.
  void record(size_t index) {
    RecordedEntry& recorded = entries_[index];
    const Entry& entry = planned_entries_[index];
    if (entry.dispatches.empty()) return;
    if (recorded.graph != nullptr) driver().graph_exec_destroy(std::exchange(recorded.graph, nullptr));
    const std::string failed = concat("entry ", entry.name, " cannot be recorded");
    Context::check(driver().stream_begin_capture(stream_, cuda::capture_thread_local), failed);
    cuda::Result result = cuda::success;
    const Dispatch* last = nullptr;
    for (const Dispatch& dispatch : entry.dispatches) {
      result = launch(dispatch, last != nullptr);
      last = &dispatch;
      if (result != cuda::success) break;
    }
    cuda::Graph graph = nullptr;
    const cuda::Result ended = driver().stream_end_capture(stream_, &graph);
    driver().check(result, code::bad_plan, concat(failed, ", kernel ", kernels_[last->kernel].name));
    Context::check(ended, failed);
    const cuda::Result made = driver().graph_instantiate(&recorded.graph, graph, 0);
    driver().graph_destroy(graph);
    Context::check(made, failed);
    recorded.moves = moves_;
  }

  cuda::Result launch(const Dispatch& dispatch, bool follows) {
    const Kernel& kernel = kernels_[dispatch.kernel];
    std::vector<cuda::DevicePointer> buffers;
    for (const Binding& binding : dispatch.bindings) buffers.push_back(arenas_[binding.arena] + binding.offset);
    unsigned grid[3], grid_threads[3];
    for (int axis = 0; axis < 3; axis++) {
      grid[axis] = unsigned(dispatch.grid[axis]);
      grid_threads[axis] = unsigned(dispatch.grid_threads ? (*dispatch.grid_threads)[axis]
                                                          : dispatch.grid[axis] * kernel.threads[axis]);
    }
    std::vector<void*> arguments;
    for (cuda::DevicePointer& buffer : buffers) arguments.push_back(&buffer);
    arguments.push_back(grid);
    arguments.push_back(grid_threads);
    cuda::LaunchAttribute early = {cuda::programmatic_serialization, 0, 1, {}};
    const bool overlaps = follows && context_->capability >= first_to_overlap;
    cuda::LaunchConfig config = {{grid[0], grid[1], grid[2]},
                                 {unsigned(kernel.thread_count()), 1, 1},
                                 unsigned(kernel.threadgroup_bytes()),
                                 stream_,
                                 &early,
                                 overlaps ? 1u : 0u};
    if (flat_[dispatch.kernel]) {
      config.grid[0] = unsigned(dispatch.grid[0] * dispatch.grid[1] * dispatch.grid[2]);
      config.grid[1] = config.grid[2] = 1;
    }
    return driver().launch(&config, functions_[dispatch.kernel], arguments.data(), nullptr);
  }

  /// What a user can be told of a failure: CUDA does not say which kernel it was.
  static std::string described(const ProgramSpec& spec, const Entry& entry) {
    std::vector<std::string> names;
    for (const Dispatch& dispatch : entry.dispatches) {
      const std::string& name = spec.kernels[dispatch.kernel].name;
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
    if (names.size() == 1) return concat("kernel ", names[0], " failed on the GPU");
    std::string list;
    for (size_t i = 0; i < std::min(names.size(), shown_kernels); i++) list += concat(i == 0 ? "" : ", ", names[i]);
    if (names.size() > shown_kernels) list += concat(" and ", names.size() - shown_kernels, " more");
    return concat("entry ", entry.name, " failed on the GPU in one of its kernels (", list,
                  "); a run on the CPU device with --sanitize finds the place");
  }

  /// With the context in use. Errors do not matter any more.
  void release() {
    if (stream_ != nullptr) driver().stream_synchronize(stream_);
    for (const RecordedEntry& entry : entries_)
      if (entry.graph != nullptr) driver().graph_exec_destroy(entry.graph);
    for (const cuda::DevicePointer arena : arenas_)
      if (arena != 0) driver().memory_free(arena);
    if (module_ != nullptr) driver().module_unload(module_);
    if (stream_ != nullptr) driver().stream_destroy(stream_);
  }

  const std::shared_ptr<Context> context_;
  const std::vector<Entry> planned_entries_;
  const std::vector<Kernel> kernels_;
  /// Whether the grid of a kernel is launched along x alone.
  std::vector<bool> flat_;
  cuda::Stream stream_ = nullptr;
  cuda::Module module_ = nullptr;
  std::vector<cuda::Function> functions_;
  std::vector<cuda::DevicePointer> arenas_;
  std::vector<uint64_t> sizes_;
  std::vector<RecordedEntry> entries_;
  /// Counts arenas that went elsewhere.
  uint64_t moves_ = 0;
  uint64_t allocations_ = 0;
  uint64_t allocated_bytes_ = 0;
  // Atomic because stats() may be asked during a submission.
  std::atomic<uint64_t> submissions_{0};
  std::atomic<uint64_t> dispatches_{0};
};

}  // namespace

bool CudaDevice::present() const {
  if (broken) return false;
  try {
    driver();
    cuda::nvrtc(cuda::environment());
    return true;
  } catch (const Error&) {
    return false;
  }
}

std::unique_ptr<Program> CudaDevice::create(const ProgramSpec& spec) const {
  driver();
  check_unbroken();
  return std::make_unique<CudaProgram>(spec);
}

}  // namespace upgc
