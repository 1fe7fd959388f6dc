// ProgramSpec of src/runtime/native.ts in C++. The parser guarantees types and integer ranges; `check_program`
// guarantees that every index, offset and size fits what it refers to.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace upgc {

enum class ArgumentKind { buffer, threadgroup, position };

struct Argument {
  ArgumentKind kind;
  /// For a position: the MSL attribute, one of `is_position`.
  std::string position;
  /// For people; empty when it has none.
  std::string name;
  uint64_t index;
  uint64_t bytes;
};

struct Kernel {
  std::string name;
  /// Threads of a threadgroup.
  std::array<uint64_t, 3> threads;
  std::vector<Argument> arguments;
  /// Whether its threadgroups must run in order.
  bool sequential;

  uint64_t thread_count() const { return threads[0] * threads[1] * threads[2]; }
  uint64_t buffer_count() const;
  /// Of all threadgroup arguments; they lie one after another.
  uint64_t threadgroup_bytes() const;
};

struct Arena {
  std::string name;
  uint64_t bytes;
  std::optional<std::string> file;
};

struct Binding {
  uint64_t arena;
  uint64_t offset;
  uint64_t bytes;
};

struct Dispatch {
  uint64_t kernel;
  /// Threadgroups per grid.
  std::array<uint64_t, 3> grid;
  /// Threads per grid; without it, whole threadgroups.
  std::optional<std::array<uint64_t, 3>> grid_threads;
  std::vector<Binding> bindings;
  bool barrier;
};

struct Entry {
  std::string name;
  std::vector<Dispatch> dispatches;
};

struct ProgramSpec {
  std::string source;
  std::string source_name;
  uint64_t simd_width;
  std::vector<Kernel> kernels;
  std::vector<Arena> arenas;
  std::vector<Entry> entries;
  std::string headers;
  std::string cache;
  std::optional<std::string> clang;
  /// At most 2^32 - 1.
  std::optional<uint64_t> shuffle;
  /// By index; booleans are 0 and 1.
  std::map<uint64_t, double> function_constants;
  /// Whether every access of a kernel is checked.
  bool sanitize = false;
  /// OS threads that kernels run on.
  uint64_t threads = 1;
  /// The environment variables that a compiler may see, captured on the JavaScript thread: reading the environment
  /// on a worker thread would race with `process.env` writes.
  std::map<std::string, std::string> environment;
};

/// Whether `name` is an MSL thread-position attribute that kernels may take as an argument.
bool is_position(const std::string& name);

}  // namespace upgc
