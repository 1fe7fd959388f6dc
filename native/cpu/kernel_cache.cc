#include "kernel_cache.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iomanip>
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

#include "../error.h"
#include "clang.h"
#include "files.h"
#include "process.h"
#include "sanitized_assembly.h"
#include "simt.h"
#include "translation_unit.h"

namespace upgc {
namespace {

// Raise when the layout of the cache changes.
constexpr int cache_format = 2;
constexpr int compile_seconds = 120;
constexpr int max_diagnostic_lines = 40;
// A kernel of simdgroup width 1 runs on a pool thread's own stack, of at least 512 KiB everywhere.
constexpr size_t serial_frame_bytes = 128 * 1024;

/// Finds truncated and mixed-up files. Against forged ones the folder protects, which only the user can write.
std::string hash(const std::string& text) {
  uint64_t value = 0xcbf29ce484222325u;  // FNV-1a
  for (const unsigned char byte : text) value = (value ^ byte) * 0x100000001b3u;
  std::ostringstream out;
  out << std::hex << std::setw(16) << std::setfill('0') << value;
  return out.str();
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
  std::string text;
  for (const HeaderFile& header : read_headers(folder)) text += concat("--- ", header.name, "\n", header.content);
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
      // Their code would run when the module is loaded, before any kernel is asked for. Metal has none either.
      "-Werror=global-constructors", "-fno-crash-diagnostics",
      "-fno-color-diagnostics", concat("-DUPGC_SIMD_WIDTH=", spec.simd_width)};
#ifdef __aarch64__
  // char is signed in Metal.
  flags.insert(flags.end(), {"-mcpu=native", "-fsigned-char"});
#else
  flags.insert(flags.end(), {"-march=native", "-mprefer-vector-width=512"});
#endif
  // Clang unrolls short loops before it vectorises, and cannot vectorise what loops over 16 partial sums become then. The
  // halves of a pairwise sum, at most 8 long, must be unrolled all the same, or the partial sums stay in memory.
  if (spec.simd_width == 1) flags.insert(flags.end(), {"-mllvm", "-unroll-full-max-count=8"});
  const auto several = [](const Kernel& kernel) { return kernel.thread_count() != 1; };
  if (spec.simd_width == 1 && std::any_of(spec.kernels.begin(), spec.kernels.end(), several))
    flags.push_back("-DUPGC_SERIAL_THREADS");
  if (spec.sanitize) flags.insert(flags.end(), sanitizer_flags.begin(), sanitizer_flags.end());
  return flags;
}

std::vector<std::string> linker_flags(const Clang& clang) {
  // Node has libm and libc loaded; a kernel module needs nothing that would have to be linked in.
  std::vector<std::string> flags = {"-shared", "-fPIC"};
  if (clang.apple) flags.push_back("-nostdlib++");
  else flags.insert(flags.end(), {"-nostdlib", "-Wl,--build-id=none"});
  if (clang.lld) flags.push_back("-fuse-ld=lld");
  return flags;
}

Module load_cached(const std::string& folder, const std::string& key) {
  if (!check_private(folder) || !check_private(folder + "/kernels.so")) return Module();
  std::string found, library, checksum, ignored;
  if (!read_file(folder + "/key", found) || found != key) return Module();
  if (!read_file(folder + "/kernels.so", library) || !read_file(folder + "/checksum", checksum)) return Module();
  if (checksum != hash(library)) return Module();
  return Module::load(folder + "/kernels.so", ignored);
}

/// The function that a linker misses, as `ld.lld: error: undefined hidden symbol: f(int)` and others name it; or nothing.
std::string undefined_function(const std::string& output) {
  for (const char* start : {"undefined hidden symbol: ", "undefined symbol: ", "undefined reference to `"}) {
    const size_t at = output.find(start);
    if (at == std::string::npos) continue;
    const size_t begin = at + std::strlen(start);
    return output.substr(begin, output.find_first_of("'\n", begin) - begin);
  }
  return "";
}

/// Runs the compiler, whose own temporary files go to `temporary`.
void run_clang(const ProgramSpec& spec, const std::vector<std::string>& arguments, const std::string& temporary) {
  std::map<std::string, std::string> environment = spec.environment;
  environment["TMPDIR"] = temporary;
  const ProcessResult run = run_process(arguments, environment, compile_seconds);
  if (run.timed_out)
    throw Error(code::compile, concat(spec.source_name, ": the compiler took longer than ", compile_seconds, " s"));
  if (const std::string function = undefined_function(run.output); run.status != 0 && !function.empty())
    throw Error(code::compile, concat(spec.source_name, " declares ", function, " and does not define it"));
  if (run.status != 0)
    throw Error(code::compile, concat(spec.source_name, " does not compile:\n", run.start_error,
                                      first_lines(run.output, max_diagnostic_lines)));
}

/// Makes kernels.so of kernels.cpp, and of kernels.s between them when the program is sanitized.
void compile(const ProgramSpec& spec, const Clang& clang, const std::vector<std::string>& flags,
             const std::string& unit, const std::string& folder, const std::string& temporary) {
  const std::string source = folder + "/kernels.cpp", assembly = folder + "/kernels.s";
  const std::string library = folder + "/kernels.so";
  write_file(source, unit);
  std::vector<std::string> compiling = {clang.path}, linking = {clang.path};
  compiling.insert(compiling.end(), flags.begin(), flags.end());
  compiling.insert(compiling.end(), {"-isystem", spec.headers});
  std::vector<std::string>& last = spec.sanitize ? linking : compiling;
  if (spec.sanitize) {
    compiling.insert(compiling.end(), {"-S", "-o", assembly, source});
    run_clang(spec, compiling, temporary);
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
  last.insert(last.end(), {"-o", library});
  run_clang(spec, last, temporary);
  chmod(library.c_str(), 0600);  // whatever the user's umask
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
  const std::vector<std::string> flags = compiler_flags(spec);
  const std::string unit = translation_unit(spec);
  std::string common = concat("upgc kernel cache ", cache_format, "\n");
  for (const std::string& flag : flags) common += flag + "\n";
  common += concat(cpu_identity(), "\n", headers_text(spec.headers), "--- kernels.cpp\n", unit);

  prepare_private_folder(spec.cache);
  const auto folder_of = [&](const std::string& key) { return spec.cache + "/" + hash(key); };
  // What a compiler made, it need not be run again to find.
  for (const std::string& compiler : installed_compilers(spec)) {
    const std::string key = compiler_identity(compiler, spec) + common;
    if (Module module = load_cached(folder_of(key), key)) return module;
  }

  const Clang clang = find_clang(spec);
  const std::string key = compiler_identity(clang.path, spec) + common;
  const TemporaryFolder temporary(spec.cache);
  const std::string made = temporary.path + "/made";
  if (mkdir(made.c_str(), 0700) != 0) throw Error(code::io, concat("cannot create ", made));
  compile(spec, clang, flags, unit, made, temporary.path);
  std::string library;
  if (!read_file(made + "/kernels.so", library)) throw Error(code::io, concat("cannot read ", made, "/kernels.so"));
  write_file(made + "/key", key);
  write_file(made + "/checksum", hash(library));
  return publish(made, folder_of(key), key, spec.cache);
}

}  // namespace upgc
