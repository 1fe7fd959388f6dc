#include "clang.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <mutex>
#include <optional>

#include "../error.h"
#include "process.h"

namespace upgc {
namespace {

namespace fs = std::filesystem;

// clang 16 is the first with _Float16 arithmetic on every x86-64; Apple's numbers run differently.
constexpr int min_version = 16;
constexpr int min_apple_version = 15;
constexpr int version_seconds = 20;

const char* const install_hint =
    "The CPU device compiles kernels with clang 16 or newer. Install it with\n"
    "  Debian, Ubuntu:  apt-get install clang-16   (or any newer clang)\n"
    "  macOS:           xcode-select --install     (Apple clang 15 or newer)";

const char* const candidates[] = {"clang++",    "clang++-21", "clang++-20", "clang++-19", "clang++-18",
                                  "clang++-17", "clang++-16", "clang",      "clang-21",   "clang-20",
                                  "clang-19",   "clang-18",   "clang-17",   "clang-16"};

bool is_executable(const std::string& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored) && access(path.c_str(), X_OK) == 0;
}

/// The full path of a program on PATH; empty when it is not there.
std::string search_path(const std::string& name, const std::string& path) {
  for (size_t start = 0; start < path.size();) {
    const size_t end = std::min(path.find(':', start), path.size());
    const std::string folder = path.substr(start, end - start);
    // An empty element means the working folder to a shell; running a compiler from there would be a trap.
    if (!folder.empty() && is_executable(folder + "/" + name)) return folder + "/" + name;
    start = end + 1;
  }
  return "";
}

/// The major version in "… clang version 16.0.6 …"; 0 when this is not clang.
int major_version(const std::string& text) {
  const std::string before = "clang version ";
  const size_t at = text.find(before);
  return at == std::string::npos ? 0 : std::atoi(text.c_str() + at + before.size());
}

std::string path_setting(const ProgramSpec& spec) {
  const auto setting = spec.environment.find("PATH");
  return setting == spec.environment.end() ? "" : setting->second;
}

/// The full path of the compiler that the spec names; empty when it is not there.
std::string named_compiler(const ProgramSpec& spec) {
  const bool is_path = spec.clang->find('/') != std::string::npos;
  const std::string found = is_path ? *spec.clang : search_path(*spec.clang, path_setting(spec));
  return is_executable(found) ? found : "";
}

bool has_lld(const std::string& clang, const std::string& path) {
  std::error_code ignored;
  const fs::path real = fs::canonical(clang, ignored);
  return is_executable((real.parent_path() / "ld.lld").string()) || !search_path("ld.lld", path).empty();
}

/// Asks the compiler at `path` for its version. Says in `why` when it does not suit.
std::optional<Clang> examine(const std::string& path, const ProgramSpec& spec, std::string& why) {
  const ProcessResult run = run_process({path, "--version"}, spec.environment, version_seconds);
  if (run.status != 0) {
    why = concat("does not run", run.start_error.empty() ? "" : ": ", run.start_error);
    return std::nullopt;
  }
  const bool apple = run.output.rfind("Apple", 0) == 0;
  const int version = major_version(run.output);
  if (version < (apple ? min_apple_version : min_version)) {
    why = version == 0 ? "is not clang" : concat("is clang ", version);
    return std::nullopt;
  }
  return Clang{path, apple, !apple && has_lld(path, path_setting(spec))};
}

Clang search(const ProgramSpec& spec) {
  std::string why;
  if (spec.clang) {
    const std::string found = named_compiler(spec);
    if (found.empty())
      throw Error(code::no_clang, concat("the compiler ", *spec.clang, " does not exist\n", install_hint));
    if (const auto clang = examine(found, spec, why)) return *clang;
    throw Error(code::no_clang, concat("the compiler ", found, " ", why, "\n", install_hint));
  }
  std::string looked_at;
  for (const std::string& found : installed_compilers(spec)) {
    if (const auto clang = examine(found, spec, why)) return *clang;
    looked_at += concat("\n  ", found, " ", why);
  }
  std::string names;
  for (const char* name : candidates) names += concat(names.empty() ? "" : ", ", name);
  throw Error(code::no_clang, concat("no suitable compiler on PATH (looked for ", names, ")", looked_at, "\n",
                                     install_hint));
}

}  // namespace

Clang find_clang(const ProgramSpec& spec) {
  static std::mutex mutex;
  static std::map<std::pair<std::string, std::string>, Clang> known;
  const std::pair<std::string, std::string> key(spec.clang.value_or(""), path_setting(spec));
  const std::lock_guard<std::mutex> lock(mutex);
  auto found = known.find(key);
  if (found == known.end()) found = known.emplace(key, search(spec)).first;
  return found->second;
}

std::vector<std::string> installed_compilers(const ProgramSpec& spec) {
  std::vector<std::string> found;
  if (spec.clang) found.push_back(named_compiler(spec));
  else for (const char* name : candidates) found.push_back(search_path(name, path_setting(spec)));
  found.erase(std::remove(found.begin(), found.end(), ""), found.end());
  return found;
}

std::string compiler_identity(const std::string& path, const ProgramSpec& spec) {
  struct stat status = {};
  stat(path.c_str(), &status);
  return concat(path, ", ", status.st_size, " bytes, inode ", status.st_ino, ", changed ", status.st_mtime,
                has_lld(path, path_setting(spec)) ? ", lld\n" : "\n");
}

}  // namespace upgc
