// The CUDA driver and NVRTC as this device uses them, loaded at run time: building needs neither headers nor libraries of
// CUDA. Names and meanings are those of NVIDIA's documentation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace upgc::cuda {

using Result = int;
using DevicePointer = unsigned long long;
using Device = int;
using Context = struct ContextObject*;
using Module = struct ModuleObject*;
using Function = struct FunctionObject*;
using Stream = struct StreamObject*;
using Event = struct EventObject*;
using Graph = struct GraphObject*;
using GraphExec = struct GraphExecObject*;

constexpr Result success = 0;
constexpr Result out_of_memory = 2;
constexpr int attribute_major = 75;
constexpr int attribute_minor = 76;
constexpr unsigned stream_non_blocking = 1;
constexpr unsigned event_disable_timing = 2;
constexpr int capture_thread_local = 1;

constexpr int programmatic_serialization = 6;

/// CUlaunchAttribute: an id, and from byte 8 on a value of 64 bytes.
struct LaunchAttribute {
  int id;
  int padding;
  int allowed;
  int rest[15];
};
static_assert(sizeof(LaunchAttribute) == 72);

/// CUlaunchConfig.
struct LaunchConfig {
  unsigned grid[3];
  unsigned block[3];
  unsigned shared_bytes;
  Stream stream;
  LaunchAttribute* attributes;
  unsigned attribute_count;
};
static_assert(sizeof(LaunchConfig) == 56);

// Member, symbol, parameters; each returns a Result.
#define UPGC_CUDA_DRIVER(M)                                                                        \
  M(init, "cuInit", (unsigned flags))                                                              \
  M(error_name, "cuGetErrorName", (Result, const char**))                                          \
  M(error_string, "cuGetErrorString", (Result, const char**))                                      \
  M(device_count, "cuDeviceGetCount", (int*))                                                      \
  M(device_get, "cuDeviceGet", (Device*, int ordinal))                                             \
  M(device_attribute, "cuDeviceGetAttribute", (int*, int attribute, Device))                       \
  M(context_create, "cuCtxCreate_v2", (Context*, unsigned flags, Device))                          \
  M(context_destroy, "cuCtxDestroy_v2", (Context))                                                 \
  M(context_push, "cuCtxPushCurrent_v2", (Context))                                                \
  M(context_pop, "cuCtxPopCurrent_v2", (Context*))                                                 \
  M(memory_allocate, "cuMemAlloc_v2", (DevicePointer*, size_t))                                    \
  M(memory_free, "cuMemFree_v2", (DevicePointer))                                                  \
  M(host_allocate, "cuMemAllocHost_v2", (void**, size_t))                                          \
  M(host_free, "cuMemFreeHost", (void*))                                                           \
  M(copy_in, "cuMemcpyHtoDAsync_v2", (DevicePointer, const void*, size_t, Stream))                 \
  M(copy_out, "cuMemcpyDtoHAsync_v2", (void*, DevicePointer, size_t, Stream))                      \
  M(set_bytes, "cuMemsetD8Async", (DevicePointer, unsigned char, size_t, Stream))                  \
  M(stream_create, "cuStreamCreate", (Stream*, unsigned flags))                                    \
  M(stream_destroy, "cuStreamDestroy_v2", (Stream))                                                \
  M(stream_synchronize, "cuStreamSynchronize", (Stream))                                           \
  M(stream_begin_capture, "cuStreamBeginCapture_v2", (Stream, int mode))                           \
  M(stream_end_capture, "cuStreamEndCapture", (Stream, Graph*))                                    \
  M(event_create, "cuEventCreate", (Event*, unsigned flags))                                       \
  M(event_record, "cuEventRecord", (Event, Stream))                                                \
  M(event_synchronize, "cuEventSynchronize", (Event))                                              \
  M(event_destroy, "cuEventDestroy_v2", (Event))                                                   \
  M(graph_instantiate, "cuGraphInstantiateWithFlags", (GraphExec*, Graph, unsigned long long))     \
  M(graph_launch, "cuGraphLaunch", (GraphExec, Stream))                                            \
  M(graph_exec_destroy, "cuGraphExecDestroy", (GraphExec))                                         \
  M(graph_destroy, "cuGraphDestroy", (Graph))                                                      \
  M(module_load, "cuModuleLoadData", (Module*, const void* image))                                 \
  M(module_unload, "cuModuleUnload", (Module))                                                     \
  M(module_function, "cuModuleGetFunction", (Function*, Module, const char* name))                 \
  M(launch, "cuLaunchKernelEx", (const LaunchConfig*, Function, void** arguments, void** extra))

using Program = struct ProgramObject*;

#define UPGC_NVRTC(M)                                                                              \
  M(version, "nvrtcVersion", (int* major, int* minor))                                             \
  M(create, "nvrtcCreateProgram",                                                                  \
    (Program*, const char* source, const char* name, int headers, const char* const*, const char* const*)) \
  M(compile, "nvrtcCompileProgram", (Program, int count, const char* const* options))              \
  M(destroy, "nvrtcDestroyProgram", (Program*))                                                    \
  M(log_size, "nvrtcGetProgramLogSize", (Program, size_t*))                                        \
  M(log, "nvrtcGetProgramLog", (Program, char*))                                                   \
  M(cubin_size, "nvrtcGetCUBINSize", (Program, size_t*))                                           \
  M(cubin, "nvrtcGetCUBIN", (Program, char*))

#define UPGC_MEMBER(member, symbol, parameters) Result(*member) parameters;
struct Driver {
  UPGC_CUDA_DRIVER(UPGC_MEMBER)
  /// Throws UPGC_BAD_PLAN when the GPU's memory does not suffice, else `code` with what was tried and CUDA's words.
  void check(Result result, const char* code, const std::string& what) const;
};
struct Nvrtc {
  UPGC_NVRTC(UPGC_MEMBER)
};
#undef UPGC_MEMBER

using Environment = std::map<std::string, std::string>;

/// The variables of this process's environment that `nvrtc` reads. Only on the JavaScript thread, see ProgramSpec.
Environment environment();

/// The driver, initialised, on a machine with a GPU; loaded once. UPGC_NO_CUDA says what is missing and what to do.
const Driver& driver();

/// The compiler, loaded once: of the file that UPGC_NVRTC names, or the newest that the system's search path,
/// CUDA_HOME, CUDA_PATH or /usr/local/cuda has. UPGC_NO_CUDA when there is none.
const Nvrtc& nvrtc(const Environment& environment);

}  // namespace upgc::cuda
