#include "driver.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <optional>
#include <vector>

#include "../error.h"

namespace upgc::cuda {
namespace {

constexpr const char* advice =
    "; the CUDA device needs an NVIDIA GPU, its driver, and NVRTC of CUDA 12 or newer: run on another device, e.g. --device "
    "cpu, or install what is missing";

[[noreturn]] void refuse(const std::string& what) { throw Error(code::no_cuda, concat(what, advice)); }

void* find_symbol(void* library, const char* symbol, const char* of) {
  void* const address = dlsym(library, symbol);
  if (address == nullptr) refuse(concat(of, " has no ", symbol, ": it is too old"));
  return address;
}

#define UPGC_LOAD(member, symbol, parameters) \
  table.member = reinterpret_cast<Result(*) parameters>(find_symbol(library, symbol, of));

Driver load_driver() {
  void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) refuse("there is no NVIDIA driver (libcuda.so.1)");
  const char* const of = "the NVIDIA driver";
  Driver table;
  UPGC_CUDA_DRIVER(UPGC_LOAD)
  const Result result = table.init(0);
  int count = 0;
  if (result != success) {
    const char* text = nullptr;
    table.error_string(result, &text);
    refuse(concat("the NVIDIA driver does not start (", text == nullptr ? "unknown error" : text, ")"));
  }
  if (table.device_count(&count) != success || count == 0) refuse("the NVIDIA driver has no GPU");
  return table;
}

/// A library of a folder. NVRTC looks for a second one by its name alone, and finds it when it is open already.
void* open_in(const std::string& folder, const std::string& name) {
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(folder, error))
    if (file.path().filename().string().rfind("libnvrtc-builtins.so", 0) == 0)
      dlopen(file.path().c_str(), RTLD_NOW | RTLD_LOCAL);
  return dlopen((folder + name).c_str(), RTLD_NOW | RTLD_LOCAL);
}

/// CUDA's folders of libraries, as its own tools find them.
std::vector<std::string> library_folders(const Environment& environment) {
  std::vector<std::string> roots, folders;
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"})
    if (const auto found = environment.find(name); found != environment.end()) roots.push_back(found->second);
  roots.push_back("/usr/local/cuda");
  for (const std::string& root : roots)
    for (const char* folder : {"/lib64/", "/lib/"}) folders.push_back(root + folder);
  return folders;
}

void* open_nvrtc(const Environment& environment) {
  if (const auto given = environment.find("UPGC_NVRTC"); given != environment.end()) {
    const size_t name = given->second.rfind('/') + 1;
    void* const library = open_in(given->second.substr(0, name), given->second.substr(name));
    if (library == nullptr) refuse(concat("UPGC_NVRTC is ", given->second, ", which does not load"));
    return library;
  }
  const char* const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
  for (const char* name : names)
    if (void* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  for (const std::string& folder : library_folders(environment))
    for (const char* name : names)
      if (void* const library = open_in(folder, name)) return library;
  refuse("there is no NVRTC (libnvrtc.so), the compiler of CUDA kernels; UPGC_NVRTC can name the file");
}

Nvrtc load_nvrtc(const Environment& environment) {
  void* const library = open_nvrtc(environment);
  const char* const of = "NVRTC";
  Nvrtc table;
  UPGC_NVRTC(UPGC_LOAD)
  return table;
}

/// The table, loaded at the first call; a failure is the same at every call.
template <class Table, class Load>
const Table& once(std::mutex& mutex, std::optional<Table>& table, std::optional<Error>& error, Load load) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (error) throw *error;
  if (table) return *table;
  try {
    table = load();
  } catch (const Error& caught) {
    error = caught;
    throw;
  }
  return *table;
}

}  // namespace

void Driver::check(Result result, const char* code, const std::string& what) const {
  if (result == success) return;
  const char *name = nullptr, *text = nullptr;
  error_name(result, &name);
  error_string(result, &text);
  if (result == out_of_memory) throw Error(code::bad_plan, concat(what, ": the GPU has not that much memory left"));
  throw Error(code, concat(what, ": ", text == nullptr ? "unknown error" : text, " (", name == nullptr ? "?" : name, ")"));
}

Environment environment() {
  Environment environment;
  for (const char* name : {"UPGC_NVRTC", "CUDA_HOME", "CUDA_PATH"})
    if (const char* setting = std::getenv(name)) environment[name] = setting;
  return environment;
}

const Driver& driver() {
  static std::mutex mutex;
  static std::optional<Driver> table;
  static std::optional<Error> error;
  return once(mutex, table, error, load_driver);
}

const Nvrtc& nvrtc(const Environment& environment) {
  static std::mutex mutex;
  static std::optional<Nvrtc> table;
  static std::optional<Error> error;
  return once(mutex, table, error, [&] { return load_nvrtc(environment); });
}

}  // namespace upgc::cuda
