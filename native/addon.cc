// The Node-API surface: NativeAddon and NativeProgram of src/runtime/native.ts. Everything that can fail for a reason
// of its own throws upgc::Error elsewhere and becomes a JavaScript Error with a code here.
#include <napi.h>

#include "cuda/translation_unit.h"
#include "device.h"
#include "error.h"
#include "language/admit.h"
#include "language/check.h"
#include "language/preprocess.h"
#include "language/reflect.h"
#include "pack/io_error.h"
#include "pack/pack.h"
#include "parse_pack.h"
#include "parse_spec.h"
#include "program_check.h"

namespace upgc {
namespace {

Napi::Error to_javascript(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  if (code != nullptr) error.Set("code", Napi::String::New(env, code));
  return error;
}

/// Runs `body` and turns what it throws into JavaScript exceptions.
template <class Body>
auto translated(Napi::Env env, Body body) {
  try {
    return body();
  } catch (const Error& error) {
    throw to_javascript(env, error.code(), error.what());
  } catch (const std::bad_alloc&) {
    throw to_javascript(env, nullptr, "out of memory");
  }
}

/// Work on a libuv pool thread that settles a promise.
class Task : public Napi::AsyncWorker {
 public:
  explicit Task(Napi::Env env) : AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  /// On the pool thread; may throw.
  virtual void work() = 0;
  /// On the JavaScript thread after `work`, whether it threw or not.
  virtual void settle() {}
  /// What the promise resolves to.
  virtual Napi::Value result() { return Env().Undefined(); }
  /// Adds properties to the error that the promise rejects with.
  virtual void describe(Napi::Error&) {}

  void Execute() final {
    try {
      work();
    } catch (const Error& error) {
      code_ = error.code();
      SetError(error.what());
    } catch (const std::bad_alloc&) {
      SetError("out of memory");
    } catch (const std::exception& error) {
      SetError(error.what());
    }
  }
  void OnOK() final {
    settle();
    try {
      deferred_.Resolve(result());
    } catch (const Napi::Error& error) {
      deferred_.Reject(error.Value());
    }
  }
  void OnError(const Napi::Error& error) final {
    settle();
    Napi::Error rejection = to_javascript(Env(), code_, error.Message());
    describe(rejection);
    deferred_.Reject(rejection.Value());
  }

 private:
  Napi::Promise::Deferred deferred_;
  const char* code_ = nullptr;
};

/// A promise rejected with what `start` throws, or the one it returns.
template <class Start>
Napi::Value promised(Napi::Env env, Start start) {
  try {
    return translated(env, start);
  } catch (const Napi::Error& error) {
    const auto deferred = Napi::Promise::Deferred::New(env);
    deferred.Reject(error.Value());
    return deferred.Promise();
  }
}

/// The JavaScript object behind NativeProgram. Without a program it is closed; `new` from JavaScript gives such a one.
class ProgramObject : public Napi::ObjectWrap<ProgramObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Program",
                       {InstanceMethod<&ProgramObject::write>("write"), InstanceMethod<&ProgramObject::read>("read"),
                        InstanceMethod<&ProgramObject::clear>("clear"),
                        InstanceMethod<&ProgramObject::reallocate>("reallocate"),
                        InstanceMethod<&ProgramObject::submit>("submit"),
                        InstanceMethod<&ProgramObject::stats>("stats"),
                        InstanceMethod<&ProgramObject::close>("close")});
  }

  explicit ProgramObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {}

  void adopt(std::unique_ptr<Program> program, ProgramSpec spec) {
    program_ = std::move(program);
    spec_ = std::move(spec);
  }

 private:
  class Submission;

  Program& idle() const {
    if (program_ == nullptr) throw Error(code::closed, "the program is closed");
    if (busy_) throw Error(code::busy, "a submission is running; await it first");
    return *program_;
  }

  size_t arena_argument(const Napi::CallbackInfo& info, bool writable) const {
    const uint64_t index = parse_integer(info[0], "arena");
    if (index >= spec_.arenas.size())
      throw Error(code::bad_plan, concat("arena ", index, " of ", spec_.arenas.size(), " does not exist"));
    const Arena& arena = spec_.arenas[index];
    if (writable && arena.file)
      throw Error(code::bad_plan, concat("arena ", arena.name, " is the file ", *arena.file, ", mapped read-only"));
    return index;
  }

  /// Calls `copy(arena, offset, bytes pointer, byte count)` with the checked arguments of write and read.
  template <class Copy>
  void transfer(const Napi::CallbackInfo& info, bool writable, Copy copy) {
    translated(info.Env(), [&] {
      idle();
      const size_t arena = arena_argument(info, writable);
      const uint64_t offset = parse_integer(info[1], "offset");
      if (!info[2].IsTypedArray() || info[2].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
        throw Error(code::bad_plan, "the bytes must be a Uint8Array");
      auto bytes = info[2].As<Napi::Uint8Array>();
      if (!in_range(spec_.arenas[arena], offset, bytes.ByteLength()))
        refuse_range(writable ? "write" : "read", offset + bytes.ByteLength(), spec_.arenas[arena]);
      if (bytes.ByteLength() != 0) copy(arena, offset, bytes.Data(), bytes.ByteLength());
    });
  }

  void write(const Napi::CallbackInfo& info) {
    transfer(info, true, [&](size_t arena, uint64_t offset, uint8_t* bytes, size_t count) {
      program_->write(arena, offset, bytes, count);
    });
  }

  void read(const Napi::CallbackInfo& info) {
    transfer(info, false, [&](size_t arena, uint64_t offset, uint8_t* bytes, size_t count) {
      program_->read(arena, offset, bytes, count);
    });
  }

  void clear(const Napi::CallbackInfo& info) {
    translated(info.Env(), [&] {
      Program& program = idle();
      program.clear(arena_argument(info, true));
    });
  }

  void reallocate(const Napi::CallbackInfo& info) {
    translated(info.Env(), [&] {
      Program& program = idle();
      const size_t arena = arena_argument(info, true);
      program.reallocate(arena, spec_.arenas[arena]);
    });
  }

  Napi::Value submit(const Napi::CallbackInfo& info);

  Napi::Value stats(const Napi::CallbackInfo& info) {
    return translated(info.Env(), [&] {
      if (program_ == nullptr) throw Error(code::closed, "the program is closed");
      const Stats stats = program_->stats();
      Napi::Object result = Napi::Object::New(info.Env());
      result.Set("allocations", double(stats.allocations));
      result.Set("allocatedBytes", double(stats.allocated_bytes));
      result.Set("submissions", double(stats.submissions));
      result.Set("dispatches", double(stats.dispatches));
      return result;
    });
  }

  void close(const Napi::CallbackInfo& info) {
    translated(info.Env(), [&] {
      idle();
      program_.reset();
    });
  }

  std::shared_ptr<Program> program_;
  ProgramSpec spec_;
  bool busy_ = false;
};

class ProgramObject::Submission : public Task {
 public:
  Submission(ProgramObject& owner, size_t entry, uint64_t steps)
      : Task(owner.Env()),
        owner_(owner),
        keep_alive_(Napi::Persistent(owner.Value())),
        program_(owner.program_),
        entry_(entry),
        steps_(steps) {
    owner_.busy_ = true;
  }

 private:
  void work() override { program_->run(entry_, steps_); }
  void settle() override { owner_.busy_ = false; }

  ProgramObject& owner_;
  Napi::ObjectReference keep_alive_;
  std::shared_ptr<Program> program_;
  size_t entry_;
  uint64_t steps_;
};

Napi::Value ProgramObject::submit(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    idle();
    const uint64_t entry = parse_integer(info[0], "entry");
    if (entry >= spec_.entries.size())
      throw Error(code::bad_plan, concat("entry ", entry, " of ", spec_.entries.size(), " does not exist"));
    const uint64_t steps = info[1].IsUndefined() ? 1 : parse_integer(info[1], "steps");
    if (steps < 1 || steps > max_steps)
      throw Error(code::bad_plan, concat("steps is ", steps, "; a submission has 1 to ", max_steps));
    auto* submission = new Submission(*this, entry, steps);  // deletes itself when it has settled
    submission->Queue();
    return submission->promise();
  });
}

/// One per JavaScript environment, so that the addon works in worker threads.
struct Instance {
  Napi::FunctionReference program_class;
};

class Creation : public Task {
 public:
  Creation(Napi::Env env, const Device& device, ProgramSpec spec)
      : Task(env), device_(device), spec_(std::move(spec)) {}

 private:
  void work() override {
    check_program(spec_);
    program_ = device_.create(spec_);
  }
  Napi::Value result() override {
    const Napi::Object object = Env().GetInstanceData<Instance>()->program_class.New({});
    // The text can be large and is compiled by now.
    spec_.source.clear();
    ProgramObject::Unwrap(object)->adopt(std::move(program_), std::move(spec_));
    return object;
  }

  const Device& device_;
  ProgramSpec spec_;
  std::unique_ptr<Program> program_;
};

const Device& find_device(Napi::Value name) {
  std::string known;
  for (const Device* device : devices()) {
    if (name.IsString() && name.As<Napi::String>().Utf8Value() == device->name()) return *device;
    known += concat(known.empty() ? "" : ", ", device->name());
  }
  const std::string asked = name.IsString() ? concat("\"", name.As<Napi::String>().Utf8Value(), "\"") : "that";
  throw Error(code::unknown_device, concat("this build has no device ", asked, "; it has: ", known));
}

Napi::Value create_program(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    const Device& device = find_device(info[0]);
    auto* creation = new Creation(info.Env(), device, parse_program_spec(info[1]));
    creation->Queue();
    return creation->promise();
  });
}

/// `cudaSource` of NativeAddon.
class CudaSource : public Task {
 public:
  CudaSource(Napi::Env env, ProgramSpec spec) : Task(env), spec_(std::move(spec)) {}

 private:
  void work() override {
    check_program(spec_);
    unit_ = cuda_translation_unit(spec_);
  }
  Napi::Value result() override { return Napi::String::New(Env(), unit_); }

  ProgramSpec spec_;
  std::string unit_;
};

Napi::Value cuda_source(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    auto* source = new CudaSource(info.Env(), parse_program_spec(info[0]));
    source->Queue();
    return source->promise();
  });
}

/// `inspectKernels` of NativeAddon.
class Inspection : public Task {
 public:
  Inspection(Napi::Env env, ProgramSpec spec) : Task(env), spec_(std::move(spec)) {}

 private:
  void work() override {
    check_paths(spec_);
    const MetalText text = preprocess(spec_);
    const Syntax syntax(text);
    admit(text, syntax);
    reflection_ = reflect(syntax);
  }

  Napi::Value result() override {
    Napi::Object result = Napi::Object::New(Env());
    result.Set("kernels", list(reflection_.kernels, [&](const KernelReflection& kernel) {
      Napi::Object object = Napi::Object::New(Env());
      object.Set("name", kernel.name);
      object.Set("function", kernel.function);
      object.Set("parameters", list(kernel.parameters, [&](const KernelParameter& p) { return describe(p); }));
      if (kernel.max_total_threads) object.Set("maxTotalThreads", double(*kernel.max_total_threads));
      return object;
    }));
    result.Set("functionConstants", list(reflection_.function_constants, [&](const FunctionConstant& constant) {
      Napi::Object object = Napi::Object::New(Env());
      object.Set("name", constant.name);
      object.Set("index", double(constant.index));
      object.Set("type", constant.type);
      return object;
    }));
    result.Set("usesAtomics", reflection_.uses_atomics);
    return result;
  }

  template <class T, class Convert>
  Napi::Array list(const std::vector<T>& values, Convert convert) {
    Napi::Array array = Napi::Array::New(Env(), values.size());
    for (size_t i = 0; i < values.size(); i++) array.Set(uint32_t(i), convert(values[i]));
    return array;
  }

  Napi::Object describe(const KernelParameter& parameter) {
    Napi::Object object = Napi::Object::New(Env());
    object.Set("name", parameter.name);
    object.Set("kind", parameter.kind);
    object.Set("index", double(parameter.index));
    object.Set("type", parameter.type);
    if (!parameter.address_space.empty()) object.Set("addressSpace", parameter.address_space);
    object.Set("access", parameter.written ? "write" : "read");
    object.Set("line", double(parameter.at.line));
    object.Set("column", double(parameter.at.column));
    return object;
  }

  ProgramSpec spec_;
  Reflection reflection_;
};

Napi::Value inspect_kernels(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    auto* inspection = new Inspection(info.Env(), parse_inspection(info[0], info[1], info[2]));
    inspection->Queue();
    return inspection->promise();
  });
}

/// `checkKernels` of NativeAddon.
class Check : public Task {
 public:
  Check(Napi::Env env, ProgramSpec spec) : Task(env), spec_(std::move(spec)) {}

 private:
  void work() override {
    check_paths(spec_);
    findings_ = check_kernels(spec_);
  }

  Napi::Value result() override {
    Napi::Array array = Napi::Array::New(Env(), findings_.size());
    for (size_t i = 0; i < findings_.size(); i++) {
      const Finding& finding = findings_[i];
      Napi::Object object = Napi::Object::New(Env());
      object.Set("rule", finding.rule->id);
      object.Set("severity", finding.rule->is_error ? "error" : "warning");
      object.Set("message", finding.message);
      object.Set("fix", finding.fix);
      object.Set("line", double(finding.line));
      object.Set("column", double(finding.column));
      object.Set("length", double(finding.length));
      array.Set(uint32_t(i), object);
    }
    return array;
  }

  ProgramSpec spec_;
  std::vector<Finding> findings_;
};

Napi::Value check_text(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    auto* check = new Check(info.Env(), parse_inspection(info[0], info[1], info[2]));
    check->Queue();
    return check->promise();
  });
}

Napi::Value list_rules(const Napi::CallbackInfo& info) {
  Napi::Array array = Napi::Array::New(info.Env());
  for (const Rule& rule : check_rules()) {
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("id", rule.id);
    object.Set("severity", rule.is_error ? "error" : "warning");
    object.Set("doc", rule.doc);
    array.Set(array.Length(), object);
  }
  return array;
}

/// `packWeights` of NativeAddon.
class Packing : public Task {
 public:
  Packing(Napi::Env env, pack::PackSpec spec, Napi::Function on_progress)
      : Task(env),
        spec_(std::move(spec)),
        progress_(std::make_shared<pack::Progress>()),
        notices_(Notices::New(env, on_progress, "packWeights", 0, 1, new std::shared_ptr<pack::Progress>(progress_),
                              [](Napi::Env, void*, Watched* progress) { delete progress; }, static_cast<void*>(nullptr))) {}

  const std::shared_ptr<pack::Progress>& progress() const { return progress_; }

 private:
  using Watched = std::shared_ptr<pack::Progress>;

  /// Says how far it is when it is called, not when the notice was sent.
  static void tell(Napi::Env env, Napi::Function callback, Watched*, pack::Progress* progress) {
    if (env == nullptr || progress->abort) return;
    // Threads may have gone on since the first notice, which says where they began.
    const uint64_t done = progress->told ? progress->done : progress->resumed;
    progress->told = true;
    callback.Call({Napi::Number::New(env, double(done)), Napi::Number::New(env, double(progress->total))});
  }
  using Notices = Napi::TypedThreadSafeFunction<Watched, pack::Progress, tell>;

  void work() override {
    try {
      stats_ = pack::pack(spec_, *progress_, [&] { notices_.NonBlockingCall(progress_.get()); });
    } catch (const pack::IoError& error) {
      io_error_ = error;
      throw;
    }
  }
  void settle() override { notices_.Release(); }

  Napi::Value result() override {
    Napi::Object result = Napi::Object::New(Env());
    result.Set("bytesRead", double(stats_.bytes_read));
    result.Set("bytesWritten", double(stats_.bytes_written));
    result.Set("resumedBytes", double(stats_.resumed_bytes));
    result.Set("bufferBytes", double(stats_.buffer_bytes));
    result.Set("threads", double(stats_.threads));
    result.Set("seconds", stats_.seconds);
    return result;
  }

  void describe(Napi::Error& rejection) override {
    if (!io_error_) return;
    rejection.Set("path", Napi::String::New(Env(), io_error_->path));
    rejection.Set("writing", Napi::Boolean::New(Env(), io_error_->writing));
    rejection.Set("errno", double(io_error_->number));
    rejection.Set("position", double(io_error_->position));
    rejection.Set("missing", double(io_error_->missing));
    rejection.Set("weight", Napi::String::New(Env(), io_error_->weight));
  }

  pack::PackSpec spec_;
  std::shared_ptr<pack::Progress> progress_;
  Notices notices_;
  pack::PackStats stats_{};
  std::optional<pack::IoError> io_error_;
};

Napi::Value pack_weights(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translated(env, [&]() -> Napi::Value {
    if (!info[1].IsFunction()) throw Error(code::bad_plan, "onProgress must be a function");
    pack::PackSpec spec = parse_pack_spec(info[0]);
    pack::check_pack_spec(spec);
    auto* packing = new Packing(env, std::move(spec), info[1].As<Napi::Function>());
    Napi::Object job = Napi::Object::New(env);
    job.Set("done", packing->promise());
    job.Set("abort", Napi::Function::New(env, [progress = packing->progress()](const Napi::CallbackInfo&) {
              progress->abort = true;
            }));
    packing->Queue();
    return job;
  });
}

Napi::Value list_devices(const Napi::CallbackInfo& info) {
  Napi::Array names = Napi::Array::New(info.Env());
  for (const Device* device : devices())
    if (device->present()) names.Set(names.Length(), device->name());
  return names;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Instance{Napi::Persistent(ProgramObject::define(env))});
  exports.Set("devices", Napi::Function::New(env, list_devices, "devices"));
  exports.Set("createProgram", Napi::Function::New(env, create_program, "createProgram"));
  exports.Set("cudaSource", Napi::Function::New(env, cuda_source, "cudaSource"));
  exports.Set("inspectKernels", Napi::Function::New(env, inspect_kernels, "inspectKernels"));
  exports.Set("checkKernels", Napi::Function::New(env, check_text, "checkKernels"));
  exports.Set("packWeights", Napi::Function::New(env, pack_weights, "packWeights"));
  exports.Set("checkRules", Napi::Function::New(env, list_rules, "checkRules"));
  return exports;
}

}  // namespace
}  // namespace upgc

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) { return upgc::init(env, exports); }
NODE_API_MODULE(upgc, init_addon)
