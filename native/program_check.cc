#include "program_check.h"

#include <algorithm>
#include <set>

#include "error.h"

namespace upgc {
namespace {

// Far above any real plan; they keep a damaged one from filling the machine's memory.
constexpr size_t max_kernels = 4096;
constexpr size_t max_arenas = 1024;
constexpr size_t max_entries = 1 << 16;
constexpr size_t max_dispatches = 1 << 20;
constexpr size_t max_name_length = 256;

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  throw Error(code::bad_plan, concat(parts...));
}

bool is_identifier(const std::string& name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  return !name.empty() && name.size() <= max_name_length && letter(name[0]) &&
         std::all_of(name.begin(), name.end(), [&](char c) { return letter(c) || digit(c); });
}

bool is_printable(const std::string& text) {
  return std::none_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

void check_name(const char* what, size_t index, const std::string& name) {
  if (name.empty() || name.size() > max_name_length || !is_printable(name))
    refuse(what, " ", index, " needs a name of 1 to ", max_name_length, " printable characters");
}

void check_path(const char* what, const std::string& path) {
  if (path.empty() || !is_printable(path)) refuse(what, " must be a path without control characters");
}

void check_count(const char* what, size_t count, size_t limit) {
  if (count > limit) refuse("the plan has ", count, " ", what, "; at most ", limit, " are supported");
}

void check_argument(const Kernel& kernel, size_t index, const Argument& argument) {
  const auto where = [&] { return concat("kernel ", kernel.name, ", argument ", index, ": "); };
  if (argument.kind == ArgumentKind::position) return;
  if (argument.index > max_argument_index)
    refuse(where(), "index ", argument.index, " is above ", max_argument_index);
  if (argument.kind != ArgumentKind::threadgroup) return;
  if (argument.bytes % offset_alignment != 0)
    refuse(where(), argument.bytes, " bytes of threadgroup memory are not a multiple of ", offset_alignment);
  // Bounds each size, so that their sum below cannot overflow.
  if (argument.bytes > max_threadgroup_bytes)
    refuse(where(), argument.bytes, " bytes of threadgroup memory; a threadgroup has ", max_threadgroup_bytes);
}

std::string shown(const std::array<uint64_t, 3>& extent) {
  return concat(extent[0], " x ", extent[1], " x ", extent[2]);
}

/// Whether each size is at least 1, and their product at most `limit`, which is below 2^31.
bool is_extent(const std::array<uint64_t, 3>& extent, uint64_t limit) {
  uint64_t product = 1;
  for (const uint64_t size : extent)
    // Both factors stay below 2^31, so the product cannot overflow.
    if (size < 1 || size > limit || (product *= size) > limit) return false;
  return true;
}

void check_kernel(const Kernel& kernel) {
  if (!is_extent(kernel.threads, max_threads))
    refuse("kernel ", kernel.name, " has ", shown(kernel.threads), " threads; it can have 1 to ", max_threads);
  check_count(concat("arguments in kernel ", kernel.name).c_str(), kernel.arguments.size(), 64);
  std::set<std::pair<ArgumentKind, uint64_t>> seen;
  for (size_t i = 0; i < kernel.arguments.size(); i++) {
    const Argument& argument = kernel.arguments[i];
    check_argument(kernel, i, argument);
    if (argument.kind != ArgumentKind::position && !seen.insert({argument.kind, argument.index}).second)
      refuse("kernel ", kernel.name, ", argument ", i, ": index ", argument.index, " is used twice");
  }
  if (kernel.threadgroup_bytes() > max_threadgroup_bytes)
    refuse("kernel ", kernel.name, " needs ", kernel.threadgroup_bytes(), " bytes of threadgroup memory; there are ",
           max_threadgroup_bytes);
}

void check_dispatch(const ProgramSpec& spec, const Entry& entry, size_t index) {
  const Dispatch& dispatch = entry.dispatches[index];
  if (dispatch.kernel >= spec.kernels.size())
    refuse("entry ", entry.name, ", dispatch ", index, ": kernel ", dispatch.kernel, " of ", spec.kernels.size(),
           " does not exist");
  const Kernel& kernel = spec.kernels[dispatch.kernel];
  const auto where = [&] { return concat("entry ", entry.name, ", dispatch ", index, " (", kernel.name, "): "); };
  if (!is_extent(dispatch.grid, max_grid))
    refuse(where(), "grid ", shown(dispatch.grid), " is not between 1 and ", max_grid, " threadgroups");
  for (int axis = 0; axis < 3; axis++) {
    const uint64_t threads = kernel.threads[axis], whole = dispatch.grid[axis] * threads;
    const char name = "xyz"[axis];
    if (whole > max_grid)
      refuse(where(), dispatch.grid[axis], " threadgroups of ", threads, " threads exceed ", max_grid,
             " threads along ", name);
    if (!dispatch.grid_threads) continue;
    const uint64_t grid_threads = (*dispatch.grid_threads)[axis];
    if (grid_threads > whole || grid_threads + threads <= whole)
      refuse(where(), grid_threads, " threads along ", name, " are not ", dispatch.grid[axis], " threadgroups of ",
             threads);
  }
  if (dispatch.bindings.size() != kernel.buffer_count())
    refuse(where(), dispatch.bindings.size(), " bindings for ", kernel.buffer_count(), " buffer arguments");
  auto buffer = kernel.arguments.begin();
  for (size_t i = 0; i < dispatch.bindings.size(); i++, ++buffer) {
    const Binding& binding = dispatch.bindings[i];
    buffer = std::find_if(buffer, kernel.arguments.end(),
                          [](const Argument& a) { return a.kind == ArgumentKind::buffer; });
    if (binding.bytes < buffer->bytes)
      refuse(where(), "binding ", i, " has ", binding.bytes, " bytes; the kernel needs ", buffer->bytes);
    if (binding.arena >= spec.arenas.size())
      refuse(where(), "binding ", i, " names arena ", binding.arena, " of ", spec.arenas.size());
    if (binding.offset % offset_alignment != 0)
      refuse(where(), "binding ", i, " starts at byte ", binding.offset, ", which is not a multiple of ",
             offset_alignment);
    const Arena& arena = spec.arenas[binding.arena];
    if (!in_range(arena, binding.offset, binding.bytes))
      refuse_range(concat(where(), "binding ", i), binding.offset + binding.bytes, arena);
  }
}

}  // namespace

uint64_t Kernel::buffer_count() const {
  return std::count_if(arguments.begin(), arguments.end(),
                       [](const Argument& a) { return a.kind == ArgumentKind::buffer; });
}

uint64_t Kernel::threadgroup_bytes() const {
  uint64_t total = 0;
  for (const Argument& argument : arguments)
    if (argument.kind == ArgumentKind::threadgroup) total += argument.bytes;
  return total;
}

bool is_position(const std::string& name) {
  static const std::set<std::string> positions = {
      "dispatch_quadgroups_per_threadgroup",
      "dispatch_simdgroups_per_threadgroup",
      "dispatch_threads_per_threadgroup",
      "quadgroup_index_in_threadgroup",
      "quadgroups_per_threadgroup",
      "simdgroup_index_in_threadgroup",
      "simdgroups_per_threadgroup",
      "thread_execution_width",
      "thread_index_in_quadgroup",
      "thread_index_in_simdgroup",
      "thread_index_in_threadgroup",
      "thread_position_in_grid",
      "thread_position_in_threadgroup",
      "threadgroup_position_in_grid",
      "threadgroups_per_grid",
      "threads_per_grid",
      "threads_per_simdgroup",
      "threads_per_threadgroup"};
  return positions.count(name) != 0;
}

void refuse_range(const std::string& what, uint64_t end, const Arena& arena) {
  refuse(what, " ends at byte ", end, " of arena ", arena.name, ", which has ", arena.bytes, " bytes");
}

void check_paths(const ProgramSpec& spec) {
  check_path("sourceName", spec.source_name);
  check_path("headers", spec.headers);
  check_path("cache", spec.cache);
}

void check_program(const ProgramSpec& spec) {
  if (spec.simd_width != 1 && spec.simd_width != 32)
    refuse("simdWidth is ", spec.simd_width, "; it can be 1 or 32");
  if (spec.shuffle && *spec.shuffle > UINT32_MAX)
    refuse("shuffle is ", *spec.shuffle, "; a seed is at most ", UINT32_MAX);
  if (spec.threads < 1 || spec.threads > max_os_threads)
    refuse("threads is ", spec.threads, "; it can be 1 to ", max_os_threads);
  check_paths(spec);
  check_count("kernels", spec.kernels.size(), max_kernels);
  check_count("arenas", spec.arenas.size(), max_arenas);
  check_count("entries", spec.entries.size(), max_entries);
  std::set<std::string> names;
  for (size_t i = 0; i < spec.kernels.size(); i++) {
    const Kernel& kernel = spec.kernels[i];
    if (!is_identifier(kernel.name)) refuse("the name of kernel ", i, " is not an identifier");
    if (!names.insert(kernel.name).second) refuse("the plan has two kernels named ", kernel.name);
    check_kernel(kernel);
  }
  for (size_t i = 0; i < spec.arenas.size(); i++) {
    check_name("arena", i, spec.arenas[i].name);
    if (spec.arenas[i].file) check_path("an arena's file", *spec.arenas[i].file);
  }
  for (size_t i = 0; i < spec.entries.size(); i++) {
    const Entry& entry = spec.entries[i];
    check_name("entry", i, entry.name);
    check_count(concat("dispatches in entry ", entry.name).c_str(), entry.dispatches.size(), max_dispatches);
    for (size_t d = 0; d < entry.dispatches.size(); d++) check_dispatch(spec, entry, d);
  }
}

}  // namespace upgc
