#include "parse_spec.h"

#include <cstdlib>

#include "spec_node.h"

namespace upgc {
namespace {

Argument parse_argument(const SpecNode& node) {
  const std::string kind = node.at("kind").string();
  Argument argument{ArgumentKind::position, "", "", node.at("index").integer(), node.at("bytes").integer()};
  const SpecNode name = node.at("name");
  if (!name.absent()) argument.name = name.string();
  if (kind == "buffer") argument.kind = ArgumentKind::buffer;
  else if (kind == "threadgroup") argument.kind = ArgumentKind::threadgroup;
  else if (is_position(kind)) argument.position = kind;
  else throw Error(code::bad_plan, concat(node.path(), ".kind is not a kind of kernel argument"));
  return argument;
}

uint64_t parse_size(const SpecNode& node) { return node.integer(); }

/// [x, y, z]
std::array<uint64_t, 3> parse_extent(const SpecNode& node) {
  const std::vector<uint64_t> sizes = node.list(parse_size);
  if (sizes.size() != 3) throw Error(code::bad_plan, concat(node.path(), " must have 3 elements"));
  return {sizes[0], sizes[1], sizes[2]};
}

/// An optional boolean.
bool flag(const SpecNode& node) { return !node.absent() && node.boolean(); }

Kernel parse_kernel(const SpecNode& node) {
  return {node.at("name").string(), parse_extent(node.at("threads")), node.at("arguments").list(parse_argument),
          flag(node.at("sequential"))};
}

Arena parse_arena(const SpecNode& node) {
  Arena arena{node.at("name").string(), node.at("bytes").integer(), std::nullopt};
  const SpecNode file = node.at("file");
  if (!file.absent()) arena.file = file.string();
  return arena;
}

Binding parse_binding(const SpecNode& node) {
  return {node.at("arena").integer(), node.at("offset").integer(), node.at("bytes").integer()};
}

Dispatch parse_dispatch(const SpecNode& node) {
  const SpecNode grid_threads = node.at("gridThreads");
  return {node.at("kernel").integer(), parse_extent(node.at("grid")),
          grid_threads.absent() ? std::nullopt : std::optional(parse_extent(grid_threads)),
          node.at("bindings").list(parse_binding), node.at("barrier").boolean()};
}

Entry parse_entry(const SpecNode& node) {
  return {node.at("name").string(), node.at("dispatches").list(parse_dispatch)};
}

struct FunctionConstantValue {
  uint64_t index;
  double value;
};

FunctionConstantValue parse_function_constant(const SpecNode& node) {
  return {node.at("index").integer(), node.at("value").scalar()};
}

std::map<std::string, std::string> compiler_environment() {
  std::map<std::string, std::string> environment;
  for (const char* name : {"PATH", "HOME", "TMPDIR", "SDKROOT", "DEVELOPER_DIR", "UPGC_NVRTC", "CUDA_HOME",
                           "CUDA_PATH"})
    if (const char* setting = std::getenv(name)) environment[name] = setting;
  return environment;
}

}  // namespace

uint64_t parse_integer(Napi::Value value, const char* what) {
  const std::optional<uint64_t> number = as_integer(value);
  if (!number) expected("an integer from 0 to 2^53", what, value);
  return *number;
}

ProgramSpec parse_program_spec(Napi::Value value) {
  const SpecNode node(value);
  ProgramSpec spec;
  spec.source = node.at("source").string();
  spec.source_name = node.at("sourceName").string();
  spec.simd_width = node.at("simdWidth").integer();
  spec.kernels = node.at("kernels").list(parse_kernel);
  spec.arenas = node.at("arenas").list(parse_arena);
  spec.entries = node.at("entries").list(parse_entry);
  spec.headers = node.at("headers").string();
  spec.cache = node.at("cache").string();
  const SpecNode clang = node.at("clang");
  if (!clang.absent()) spec.clang = clang.string();
  const SpecNode shuffle = node.at("shuffle");
  if (!shuffle.absent()) spec.shuffle = shuffle.integer();
  const SpecNode constants = node.at("functionConstants");
  if (!constants.absent())
    for (const auto& [index, value] : constants.list(parse_function_constant))
      if (!spec.function_constants.emplace(index, value).second)
        throw Error(code::bad_plan, concat("function constant ", index, " is given twice"));
  spec.sanitize = flag(node.at("sanitize"));
  const SpecNode threads = node.at("threads");
  if (!threads.absent()) spec.threads = threads.integer();
  spec.environment = compiler_environment();
  return spec;
}

ProgramSpec parse_inspection(Napi::Value source, Napi::Value source_name, Napi::Value options) {
  ProgramSpec spec;
  spec.source = SpecNode(source, "source").string();
  spec.source_name = SpecNode(source_name, "sourceName").string();
  const SpecNode node(options, "options");
  spec.headers = node.at("headers").string();
  spec.cache = node.at("cache").string();
  const SpecNode clang = node.at("clang");
  if (!clang.absent()) spec.clang = clang.string();
  spec.environment = compiler_environment();
  return spec;
}

}  // namespace upgc
