#include "positions.h"

#include <set>

namespace upgc {

bool is_position_attribute(std::string_view name) {
  static const std::set<std::string_view> names = {
      "dispatch_quadgroups_per_threadgroup", "dispatch_simdgroups_per_threadgroup",
      "dispatch_threads_per_threadgroup",    "grid_origin",
      "grid_size",                           "quadgroup_index_in_threadgroup",
      "quadgroups_per_threadgroup",          "simdgroup_index_in_threadgroup",
      "simdgroups_per_threadgroup",          "thread_execution_width",
      "thread_index_in_quadgroup",           "thread_index_in_simdgroup",
      "thread_index_in_threadgroup",         "thread_position_in_grid",
      "thread_position_in_threadgroup",      "threadgroup_position_in_grid",
      "threadgroups_per_grid",               "threads_per_grid",
      "threads_per_simdgroup",               "threads_per_threadgroup",
  };
  return names.count(name) != 0;
}

bool is_attribute(std::string_view name) {
  static const std::set<std::string_view> others = {
      "kernel",        "host_name",   "max_total_threads_per_threadgroup",
      "buffer",        "threadgroup", "function_constant",
      "unroll",        "fallthrough", "maybe_unused",
      "nodiscard",     "likely",      "unlikely",
      "deprecated",    "noreturn",
  };
  return is_position_attribute(name) || others.count(name) != 0;
}

}  // namespace upgc
