#include "kernel_cache.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iomanip>
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

#include "../error.h"
#include "clang.h"
#include "process.h"
#include "sanitized_assembly.h"
#include "simt.h"
#include "translation_unit.h"

namespace upgc {
namespace {

namespace fs = std::filesystem;

// Raise when the layout of the cache changes.
constexpr int cache_format = 1;
constexpr int compile_seconds = 120;
constexpr int max_diagnostic_lines = 40;
// A kernel of simdgroup width 1 runs on a pool thread's own stack, of at least 512 KiB everywhere.
constexpr size_t serial_frame_bytes = 128 * 1024;

std::string hash(const std::string& text) {
  uint64_t value = 0xcbf29ce484222325u;  // FNV-1a
  for (const unsigned char byte : text) value = (value ^ byte) * 0x100000001b3u;
  std::ostringstream out;
  out << std::hex << std::setw(16) << std::setfill('0') << value;
  return out.str();
}

/// The whole file; false when it cannot be read.
bool read_file(const fs::path& path, std::string& content) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  if (!file || !(out << file.rdbuf())) return false;
  content = out.str();
  return true;
}

void write_file(const fs::path& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  if (!(file << content) || !file.flush())
    throw Error(code::io, concat("cannot write ", path.string(), ": ", std::strerror(errno)));
}

/// What -march=native depends on: a cache folder may be shared by different machines.
std::string cpu_identity() {
#ifdef __APPLE__
  char brand[256] = "";
  size_t size = sizeof brand;
  sysctlbyname("machdep.cpu.brand_string", brand, &size, nullptr, 0);
  return brand;
#else
  static const char* const fields[] = {"vendor_id", "cpu family", "model",       "stepping", "flags",
                                       "Features",  "CPU impl",   "CPU variant", "CPU part", "isa"};
  std::ifstream file("/proc/cpuinfo");
  std::string identity, line;
  // The first processor's paragraph.
  while (std::getline(file, line) && !line.empty())
    for (const char* field : fields)
      if (line.rfind(field, 0) == 0) {
        identity += line + "\n";
        break;
      }
  return identity;
#endif
}

std::string headers_text(const std::string& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (const auto& file : fs::directory_iterator(folder, error)) paths.push_back(file.path());
  if (error) throw Error(code::io, concat("cannot read the headers in ", folder, ": ", error.message()));
  std::sort(paths.begin(), paths.end());
  std::string text;
  for (const fs::path& path : paths) {
    std::string content;
    if (!read_file(path, content)) throw Error(code::io, concat("cannot read ", path.string()));
    text += concat("--- ", path.filename().string(), "\n", content);
  }
  return text;
}

/// Little is optimised, so that accesses stay what the text says, and nothing is vectorised, so that each has its
/// place.
const std::vector<std::string> sanitizer_flags = {
    "-O1", "-fno-vectorize", "-fno-slp-vectorize", "-fno-unroll-loops", "-gline-tables-only", "-DUPGC_SANITIZE",
    // The address sanitizer with function calls in the place of everything else that it does.
    "-fsanitize=address",
    "-mllvm", "-asan-instrumentation-with-call-threshold=0", "-mllvm", "-asan-constructor-kind=none",
    "-mllvm", "-asan-stack=0", "-mllvm", "-asan-globals=0",
    // It does not care whether bytes that were read are then written, nor for accesses within variables of fixed size;
    // for those on the stack nor do we.
    "-mllvm", "-asan-opt-same-temp=0", "-mllvm", "-asan-opt-globals=0", "-mllvm", "-asan-opt-stack=1"};

std::vector<std::string> compiler_flags(const ProgramSpec& spec) {
  const size_t frame = spec.simd_width == 1 ? serial_frame_bytes : Simt::max_frame_bytes;
  std::vector<std::string> flags = {
      "-x", "c++", "-std=c++17", "-fdeclspec", "-O2", "-fPIC", "-fno-exceptions", "-fno-rtti",
      "-fno-math-errno", "-ffp-contract=on", "-fvisibility=hidden", "-nostdinc", "-Wno-everything",
      // A kernel's variables must fit its stack; without recursion in Metal this is all that can overflow it.
      concat("-Wframe-larger-than=", frame), "-Werror=frame-larger-than",
      "-fno-color-diagnostics", concat("-DUPGC_SIMD_WIDTH=", spec.simd_width)};
#ifdef __aarch64__
  flags.push_back("-mcpu=native");
#else
  flags.insert(flags.end(), {"-march=native", "-mprefer-vector-width=512"});
#endif
  // Clang unrolls short loops before it vectorises, and cannot vectorise what `float acc[4][16]` loops become then.
  // With only tiny loops unrolled a 64 x 64 matrix-vector product runs 5 to 10 times faster and compiles in half the
  // time.
  if (spec.simd_width == 1) flags.insert(flags.end(), {"-mllvm", "-unroll-full-max-count=4"});
  const auto several = [](const Kernel& kernel) { return kernel.thread_count() != 1; };
  if (spec.simd_width == 1 && std::any_of(spec.kernels.begin(), spec.kernels.end(), several))
    flags.push_back("-DUPGC_SERIAL_THREADS");
  if (spec.sanitize) flags.insert(flags.end(), sanitizer_flags.begin(), sanitizer_flags.end());
  return flags;
}

std::vector<std::string> linker_flags(const Clang& clang) {
  std::vector<std::string> flags = {"-shared", "-fPIC"};
  // Node has libm and libc loaded; a kernel module needs nothing that would have to be linked in.
  if (!clang.apple) flags.insert(flags.end(), {"-nostdlib", "-Wl,--build-id=none"});
  if (clang.lld) flags.push_back("-fuse-ld=lld");
  return flags;
}

std::string first_lines(const std::string& text, int lines) {
  size_t end = 0;
  for (int i = 0; i < lines && end != std::string::npos; i++) end = text.find('\n', end == 0 ? 0 : end + 1);
  return end == std::string::npos ? text : text.substr(0, end) + "\n...";
}

/// Makes the cache folder, private to the user: who can write there can run code as the user.
void prepare_folder(const std::string& folder) {
  std::error_code error;
  const fs::path path(folder);
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), error);
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    throw Error(code::io, concat("cannot create the cache folder ", folder, ": ", std::strerror(errno)));
  struct stat status;
  if (stat(folder.c_str(), &status) != 0 || !S_ISDIR(status.st_mode))
    throw Error(code::io, concat("the cache ", folder, " is not a folder"));
  if (status.st_uid != geteuid() || (status.st_mode & S_IWOTH) != 0)
    throw Error(code::io, concat("the cache folder ", folder, " can be written by other users; give another one"));
}

/// A folder that is removed with everything in it.
struct TemporaryFolder {
  explicit TemporaryFolder(const std::string& parent) : path(parent + "/tmp-XXXXXX") {
    if (mkdtemp(path.data()) == nullptr)
      throw Error(code::io, concat("cannot write to the cache folder ", parent, ": ", std::strerror(errno)));
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  std::string path;
};

Module load_cached(const std::string& folder, const std::string& key) {
  std::string found, library, checksum, ignored;
  if (!read_file(folder + "/key", found) || found != key) return Module();
  if (!read_file(folder + "/kernels.so", library) || !read_file(folder + "/checksum", checksum)) return Module();
  if (checksum != hash(library)) return Module();
  return Module::load(folder + "/kernels.so", ignored);
}

void run_clang(const ProgramSpec& spec, std::vector<std::string> arguments) {
  const ProcessResult run = run_process(arguments, spec.environment, compile_seconds);
  if (run.timed_out)
    throw Error(code::compile, concat(spec.source_name, ": the compiler took longer than ", compile_seconds, " s"));
  if (run.status != 0)
    throw Error(code::compile, concat(spec.source_name, " does not compile:\n", run.start_error,
                                      first_lines(run.output, max_diagnostic_lines)));
}

/// Makes kernels.so of kernels.cpp, and of kernels.s between them when the program is sanitized.
void compile(const ProgramSpec& spec, const Clang& clang, const std::vector<std::string>& flags,
             const std::string& unit, const std::string& folder) {
  const std::string source = folder + "/kernels.cpp", assembly = folder + "/kernels.s";
  write_file(source, unit);
  std::vector<std::string> compiling = {clang.path}, linking = {clang.path};
  compiling.insert(compiling.end(), flags.begin(), flags.end());
  compiling.insert(compiling.end(), {"-isystem", spec.headers});
  std::vector<std::string>& last = spec.sanitize ? linking : compiling;
  if (spec.sanitize) {
    compiling.insert(compiling.end(), {"-S", "-o", assembly, source});
    run_clang(spec, compiling);
    std::string text;
    if (!read_file(assembly, text)) throw Error(code::io, concat("cannot read ", assembly));
    write_file(assembly, sanitized_assembly(text, spec.source_name));
    linking.insert(linking.end(), {"-O2", "-fvisibility=hidden", "-std=c++17", assembly});
    linking.push_back(spec.headers + "/sanitizer.cc");
  } else {
    compiling.push_back(source);
  }
  const std::vector<std::string> link = linker_flags(clang);
  last.insert(last.end(), link.begin(), link.end());
  last.insert(last.end(), {"-o", folder + "/kernels.so"});
  run_clang(spec, last);
}

/// Puts a finished folder in its place. Another process may do the same at the same time; whoever comes second finds
/// an equal folder there and leaves it.
Module publish(const std::string& made, const std::string& folder, const std::string& key, const std::string& cache) {
  for (int attempt = 0; attempt < 10; attempt++) {
    if (rename(made.c_str(), folder.c_str()) == 0) {
      std::string why;
      Module module = Module::load(folder + "/kernels.so", why);
      if (!module) throw Error(code::compile, concat("the compiled kernels do not load: ", why));
      return module;
    }
    if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR) break;
    if (Module module = load_cached(folder, key)) return module;
    // What lies there is damaged: move it away, in one step, and try again.
    const TemporaryFolder trash(cache);
    rename(folder.c_str(), (trash.path + "/old").c_str());
  }
  throw Error(code::io, concat("cannot write ", folder, ": ", std::strerror(errno)));
}

}  // namespace

Module compile_kernels(const ProgramSpec& spec) {
  const Clang clang = find_clang(spec);
  const std::vector<std::string> flags = compiler_flags(spec);
  const std::string unit = translation_unit(spec);
  std::string key = concat("upgc kernel cache ", cache_format, "\n", clang.path, "\n", clang.version, "\n");
  for (const std::string& flag : flags) key += flag + "\n";
  for (const std::string& flag : linker_flags(clang)) key += flag + "\n";
  key += concat(cpu_identity(), "\n", headers_text(spec.headers), "--- kernels.cpp\n", unit);

  prepare_folder(spec.cache);
  const std::string folder = spec.cache + "/" + hash(key);
  if (Module module = load_cached(folder, key)) return module;

  const TemporaryFolder temporary(spec.cache);
  const std::string made = temporary.path + "/made";
  if (mkdir(made.c_str(), 0700) != 0) throw Error(code::io, concat("cannot create ", made));
  compile(spec, clang, flags, unit, made);
  std::string library;
  if (!read_file(made + "/kernels.so", library)) throw Error(code::io, concat("cannot read ", made, "/kernels.so"));
  write_file(made + "/key", key);
  write_file(made + "/checksum", hash(library));
  return publish(made, folder, key, spec.cache);
}

}  // namespace upgc
