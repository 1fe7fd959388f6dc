#include "translation_unit.h"

#include <algorithm>

#include "../error.h"
#include "../kernel_calls.h"
#include "../language/admit.h"
#include "../language/library_use.h"
#include "../language/lower.h"
#include "../language/preprocess.h"
#include "../language/reflect.h"

namespace upgc {
namespace {

constexpr uint64_t max_threadgroups_yz = 65535;
constexpr uint64_t warp = 32;

/// Calls `visit` for each dispatch of the kernel.
template <class Visit>
void each_dispatch(const ProgramSpec& spec, size_t kernel, Visit visit) {
  for (const Entry& entry : spec.entries)
    for (const Dispatch& dispatch : entry.dispatches)
      if (dispatch.kernel == kernel) visit(dispatch);
}

/// Whether a dispatch has smaller threadgroups at the edge of its grid.
bool has_edges(const ProgramSpec& spec, size_t kernel) {
  bool result = false;
  each_dispatch(spec, kernel, [&](const Dispatch& dispatch) {
    for (int axis = 0; axis < 3; axis++)
      result |= dispatch.grid_threads &&
                (*dispatch.grid_threads)[axis] != dispatch.grid[axis] * spec.kernels[kernel].threads[axis];
  });
  return result;
}

/// A store to a file's copy on the GPU would do no harm, but what is a file on one device is one on all.
void check_files(const ProgramSpec& spec, const Reflection& reflection) {
  for (const Entry& entry : spec.entries)
    for (size_t d = 0; d < entry.dispatches.size(); d++) {
      const Dispatch& dispatch = entry.dispatches[d];
      const std::string& name = spec.kernels[dispatch.kernel].name;
      for (const KernelReflection& kernel : reflection.kernels) {
        if (kernel.name != name) continue;
        size_t b = 0;
        for (const KernelParameter& parameter : kernel.parameters) {
          if (parameter.kind != "buffer" || b == dispatch.bindings.size()) continue;
          const Arena& arena = spec.arenas[dispatch.bindings[b++].arena];
          if (parameter.written && arena.file)
            throw Error(code::bad_plan, concat("entry ", entry.name, ", dispatch ", d, " (", name, "): binding ", b - 1,
                                               " is not const, but arena ", arena.name, " is a read-only file"));
        }
      }
    }
}

/// Gives `wait_for_inputs`, which does nothing in Metal text, the meaning that it has here.
std::string with_waiting(std::string text) {
  const std::string definition = "void wait_for_inputs() {";
  const size_t at = text.find(definition);
  if (at != std::string::npos) text.insert(at + definition.size(), " ::upgc::wait_for_inputs();");
  return text;
}

/// Kernels that wait for their inputs themselves hold work in registers meanwhile, and fill a multiprocessor with this many
/// threads. Small threadgroups do not, and may have as many registers as they need.
constexpr uint64_t waiting_threads = 640;
constexpr uint64_t small_threadgroup = 128;

std::string launch_bounds(const Kernel& kernel, const Reference& reference) {
  const bool fills = reference.waits && kernel.thread_count() > small_threadgroup;
  const uint64_t blocks = fills ? std::max<uint64_t>(1, waiting_threads / kernel.thread_count()) : 1;
  return concat(kernel.thread_count(), blocks > 1 ? concat(", ", blocks) : "");
}

std::string extent(const char* name) { return concat("const upgc::Extent ", name); }

}  // namespace

std::string cuda_name(const Kernel& kernel) { return "upgc_" + kernel.name; }

bool is_flat(const ProgramSpec& spec, size_t kernel) {
  bool result = false;
  each_dispatch(spec, kernel, [&](const Dispatch& dispatch) {
    result |= dispatch.grid[1] > max_threadgroups_yz || dispatch.grid[2] > max_threadgroups_yz;
  });
  return result;
}

std::string cuda_translation_unit(const ProgramSpec& spec) {
  if (spec.simd_width != warp)
    throw Error(code::bad_plan,
                "the CUDA device runs simdgroups of 32 lanes; this build's have one: compile with --target cuda or metal");
  if (spec.sanitize || spec.shuffle) throw Error(code::bad_plan, "only the CPU device can sanitize and shuffle");
  const MetalText text = preprocess(spec);
  const Syntax syntax(text);
  admit(text, syntax);
  check_files(spec, reflect(syntax));
  bool partial = false;
  for (size_t k = 0; k < spec.kernels.size(); k++) {
    partial |= spec.kernels[k].thread_count() % warp != 0 || has_edges(spec, k);
  }
  // Within a namespace of namespace metal: there the names of CUDA's own vectors and functions are hidden by Metal's.
  std::string unit = concat("#define UPGC_CUDA\n", partial ? "#define UPGC_PARTIAL_SIMDGROUPS\n" : "", library_use(text),
                            "#include <msl.h>\nnamespace metal { namespace upgc_text {\n#line 1 ",
                            quoted(spec.source_name), "\n", 
                            with_waiting(lower(syntax, spec.function_constants, AddressSpaces::erased, Swizzles::functions)), "\n");
  const std::vector<Reference> references = refer_to_kernels(spec, text, syntax);
  for (size_t k = 0; k < references.size(); k++)
    if (!references[k].preparation.empty())
      unit += concat("#line 1 ", quoted("plan, kernel " + spec.kernels[k].name), "\n", references[k].preparation, "\n");
  for (size_t k = 0; k < spec.kernels.size(); k++) {
    const Kernel& kernel = spec.kernels[k];
    unit += concat("#line 1 ", quoted("plan, kernel " + kernel.name), "\nextern \"C\" __global__ void __launch_bounds__(",
                   launch_bounds(kernel, references[k]), ") ", cuda_name(kernel), "(");
    std::string buffers;
    for (uint64_t b = 0; b < kernel.buffer_count(); b++) {
      unit += concat("void* const b", b, ", ");
      buffers += concat(b == 0 ? "" : ", ", "b", b);
    }
    if (buffers.empty()) buffers = "nullptr";
    unit += concat(extent("grid"), ", ", extent("grid_threads"), ") {\n  void* const buffers[] = {", buffers,
                   "};\n  upgc::Thunk<", references[k].expression, ", upgc::Threads<", kernel.threads[0], ", ",
                   kernel.threads[1], ", ", kernel.threads[2], ">, ", is_flat(spec, k) ? "true" : "false", ", ",
                   has_edges(spec, k) ? "false" : "true", ", ", references[k].waits ? "true" : "false");
    for (size_t i = 0; i < kernel.arguments.size(); i++) unit += ", " + argument_source(kernel, i);
    unit += ">::run(buffers, grid, grid_threads);\n}\n";
  }
  return unit + "}}\n";
}

}  // namespace upgc
