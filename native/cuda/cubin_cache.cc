#include "cubin_cache.h"

#include <cstdio>
#include <vector>

#include "../cpu/files.h"
#include "../error.h"
#include "driver.h"
#include "translation_unit.h"

namespace upgc::cuda {
namespace {

// Raise when the layout of the cache changes.
constexpr int cache_format = 1;
constexpr int max_diagnostic_lines = 40;

/// Finds truncated and mixed-up files. Against forged ones the folder protects, which only the user can write.
std::string hash(const std::string& text) {
  uint64_t value = 0xcbf29ce484222325u;  // FNV-1a
  for (const unsigned char byte : text) value = (value ^ byte) * 0x100000001b3u;
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(value));
  return digits;
}

std::string headers_text(const std::string& folder) {
  std::string text;
  for (const std::string& part : {folder, folder + "/cuda"})
    for (const HeaderFile& header : read_headers(part)) text += concat("--- ", header.name, "\n", header.content);
  return text;
}

std::vector<std::string> options_for(const ProgramSpec& spec, int capability) {
  // Neither fast-math nor flushing of subnormal numbers; products are fused into sums, as clang does on the CPU device.
  return {concat("--gpu-architecture=sm_", capability),
          "--std=c++17",
          "--device-as-default-execution-space",
          "--device-int128",
          "--disable-warnings",
          "--include-path=" + spec.headers};
}

std::string file_content(const std::string& key, const std::string& cubin) {
  return concat(key.size(), " ", cubin.size(), " ", hash(cubin), "\n", key, cubin);
}

/// The cubin of a cache file, or nothing when it is not there or another's.
std::string load_cached(const std::string& path, const std::string& key) {
  std::string content;
  if (!check_private(path) || !read_file(path, content)) return "";
  const size_t line = content.find('\n');
  if (line == std::string::npos || content.compare(line + 1, key.size(), key) != 0) return "";
  const std::string cubin = content.substr(std::min(content.size(), line + 1 + key.size()));
  return content == file_content(key, cubin) ? cubin : "";
}

/// Moves the finished file to its place in one step.
void publish(const std::string& path, const std::string& content, const std::string& cache) {
  const TemporaryFolder temporary(cache);
  const std::string made = temporary.path + "/made";
  write_file(made, content);
  if (std::rename(made.c_str(), path.c_str()) != 0) throw Error(code::io, concat("cannot write ", path));
}

std::string run_nvrtc(const Nvrtc& compiler, const ProgramSpec& spec, const std::string& unit,
                      const std::vector<std::string>& options) {
  Program program = nullptr;
  if (compiler.create(&program, unit.c_str(), "kernels.cu", 0, nullptr, nullptr) != success)
    throw Error(code::compile, "NVRTC cannot read the kernels");
  struct Destroy {
    const Nvrtc& compiler;
    Program program;
    ~Destroy() { compiler.destroy(&program); }
  } const destroy{compiler, program};
  std::vector<const char*> arguments;
  for (const std::string& option : options) arguments.push_back(option.c_str());
  if (compiler.compile(program, int(arguments.size()), arguments.data()) != success) {
    size_t size = 0;
    compiler.log_size(program, &size);
    std::string log(size, '\0');
    if (size != 0) compiler.log(program, log.data());
    log.resize(log.find('\0') == std::string::npos ? log.size() : log.find('\0'));
    throw Error(code::compile, concat(spec.source_name, " does not compile with NVRTC:\n",
                                      first_lines(log, max_diagnostic_lines)));
  }
  size_t size = 0;
  if (compiler.cubin_size(program, &size) != success || size == 0)
    throw Error(code::compile, "NVRTC gives no machine code; one of CUDA 12 or newer does");
  std::string cubin(size, '\0');
  compiler.cubin(program, cubin.data());
  return cubin;
}

}  // namespace

std::string compile_cubin(const ProgramSpec& spec, int capability) {
  const Nvrtc& compiler = nvrtc(spec.environment);
  int major = 0, minor = 0;
  compiler.version(&major, &minor);
  const std::string unit = cuda_translation_unit(spec);
  const std::vector<std::string> options = options_for(spec, capability);
  std::string key = concat("upgc cubin cache ", cache_format, "\nNVRTC ", major, ".", minor, "\n");
  for (const std::string& option : options) key += option + "\n";
  key += concat(headers_text(spec.headers), "--- kernels.cu\n", unit);

  prepare_private_folder(spec.cache);
  const std::string path = concat(spec.cache, "/", hash(key), ".cubin");
  if (std::string cubin = load_cached(path, key); !cubin.empty()) return cubin;
  std::string cubin = run_nvrtc(compiler, spec, unit, options);
  publish(path, file_content(key, cubin), spec.cache);
  return cubin;
}

}  // namespace upgc::cuda
