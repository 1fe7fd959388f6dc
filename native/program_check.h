#pragma once

#include "program_spec.h"

namespace upgc {

/// What every device can rely on; a Metal GPU asks for no more.
constexpr uint64_t offset_alignment = 16;
constexpr uint64_t max_threads = 1024;
constexpr uint64_t max_threadgroup_bytes = 32768;
/// `[[buffer(n)]]` and `[[threadgroup(n)]]` go up to this n.
constexpr uint64_t max_argument_index = 30;
/// Threadgroups of a dispatch, and threads of its x axis: what fits a kernel's `uint` positions with room to spare.
constexpr uint64_t max_grid = 0x7fffffff;
/// OS threads of a program: as many as the largest machines have cores.
constexpr uint64_t max_os_threads = 1024;
/// How often one submission may run its entry. Nothing can stop it on the way, so a wild number is refused.
constexpr uint64_t max_steps = 1 << 20;

/// Throws UPGC_BAD_PLAN unless every name, index, offset and size of the spec is in range.
void check_program(const ProgramSpec& spec);

/// Throws UPGC_BAD_PLAN unless the texts and paths of the spec can be written into other texts. Part of `check_program`.
void check_paths(const ProgramSpec& spec);

/// Whether `bytes` bytes at `offset` lie in the arena. Both are at most 2^53, so their sum cannot overflow.
inline bool in_range(const Arena& arena, uint64_t offset, uint64_t bytes) { return offset + bytes <= arena.bytes; }

/// Throws UPGC_BAD_PLAN: `what`, which ends at byte `end`, is not `in_range`.
[[noreturn]] void refuse_range(const std::string& what, uint64_t end, const Arena& arena);

}  // namespace upgc
