#include <algorithm>
#include <cstdlib>

#include "../cpu/clang.h"
#include "../cpu/files.h"
#include "../cpu/process.h"
#include "../error.h"
#include "check_rules.h"
#include "kernels.h"
#include "library_use.h"
#include "lower.h"

namespace upgc {
namespace {

constexpr int compile_seconds = 20;
const char* const kernel_table = "kernel table";

/// One line of clang's output.
struct Line {
  bool in_text;
  uint32_t line, column;
  std::string kind, message;
};

/// An error with its notes, at a place in the user's text.
struct Diagnostic {
  uint32_t line, column;
  std::string message;
  std::vector<std::string> notes;
};

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

/// A message of clang in Metal's words.
std::string in_metal(std::string message) {
  static const std::pair<const char*, const char*> words[] = {
      {"*__private", "*"},         {"&__private", "&"},       {"const __global_host", "constant"},
      {"__global_host", "constant"}, {"__global_device", "device"}, {"const __global ", "constant "},
      {"__global ", "constant "},  {"__local", "threadgroup"}, {"__private", "thread"},
      {"__generic ", ""},          {"static assertion failed: ", ""}};
  for (const auto& [from, to] : words) replace_all(message, from, to);
  return message;
}

/// What stands in 'quotes'.
std::vector<std::string> quoted_parts(const std::string& message) {
  std::vector<std::string> parts;
  for (size_t at = message.find('\''); at != std::string::npos;) {
    const size_t end = message.find('\'', at + 1);
    if (end == std::string::npos) break;
    parts.push_back(message.substr(at + 1, end - at - 1));
    at = message.find('\'', end + 1);
  }
  return parts;
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

/// Where what a pointer, reference or array type consists of lies, as OpenCL calls it; empty when it does not say.
std::string space_of(const std::string& type) {
  const size_t end = std::min({type.find('*'), type.find('&'), type.size()});
  const std::string pointee = type.substr(0, end);
  for (const char* space : {"__global_device", "__global_host", "__global", "__local", "__private", "__generic",
                            "__constant"})
    if (contains(pointee, space)) return space;
  return "";
}

/// A conversion between address spaces that a message complains of.
struct Conversion {
  std::string from, to;
};

std::optional<Conversion> conversion_of(const std::string& message) {
  std::vector<std::string> parts = quoted_parts(message);
  // `(aka '...')` behind a type says it again.
  const auto is_said_again = [&](const std::string& part) {
    return contains(message, concat("(aka '", part, "')").c_str());
  };
  parts.erase(std::remove_if(parts.begin(), parts.end(), is_said_again), parts.end());
  if (contains(message, "cannot pass pointer to address space") && parts.size() >= 2)
    return Conversion{parts[0] + " *", parts[1] + " *"};
  const bool target_first = contains(message, "cannot initialize") || contains(message, "binding reference") ||
                            contains(message, "could not bind") || contains(message, "does not match adjusted type");
  const bool source_first = contains(message, "cast from") || message.rfind("assigning '", 0) == 0 ||
                            contains(message, "no known conversion from") || message.rfind("passing '", 0) == 0 ||
                            contains(message, "incompatible type");
  if (parts.size() < 2 || target_first == source_first) return std::nullopt;
  const Conversion found = target_first ? Conversion{parts[1], parts[0]} : Conversion{parts[0], parts[1]};
  const bool is_memory = found.to.find_first_of("*&") != std::string::npos;
  const std::string from = space_of(found.from), to = space_of(found.to);
  return is_memory && !from.empty() && !to.empty() && from != to ? std::optional<Conversion>(found) : std::nullopt;
}

/// Whether Metal has a conversion that OpenCL's address spaces have not.
bool is_fine(const Conversion& conversion) {
  const std::string from = space_of(conversion.from), to = space_of(conversion.to);
  // Variables of the program are in __global and other constant memory in __global_host; the headers have __generic.
  return from == "__generic" || to == "__generic" || from == "__constant" ||
         (from == "__global" && to == "__global_host");
}

/// What a type is in, for the reader: `device float *`.
std::string type_for_reader(const std::string& type) {
  // Some messages name the address space alone.
  if (type.size() > 2 && space_of(type) + " *" == type) return in_metal(space_of(type)) + " pointer";
  std::string text = in_metal(type);
  replace_all(text, " *", "*");
  replace_all(text, " &", "&");
  return text;
}

class TypeCheck {
 public:
  TypeCheck(const ProgramSpec& spec, const Syntax& syntax, Findings& findings)
      : spec_(spec), syntax_(syntax), findings_(findings), clang_(find_clang(spec)) {}

  void check() {
    for (const Diagnostic& diagnostic : compile(AddressSpaces::kept)) report(diagnostic);
  }

 private:
  // ---- Running clang

  std::string unit(AddressSpaces spaces) const {
    std::string result = concat(library_use(syntax_.text()), "#include <msl.h>\n#line 1 ",
                                quoted(spec_.source_name), "\n", lower(syntax_, all_ones(), spaces), "\n#line 1 ",
                                quoted(kernel_table), "\n");
    size_t number = 0;
    for (const KernelEntry& entry : find_kernels(syntax_)) {
      if (entry.template_arguments.empty()) continue;
      std::string use = concat("inline void upgc_use_", number++, "() { (void)&", entry.expression, "; }");
      for (size_t scope = entry.scope; scope != 0; scope = syntax_.scopes()[scope].parent)
        use = concat("namespace ", syntax_.scopes()[scope].name, " { ", use, " }");
      result += use + "\n";
    }
    return result;
  }

  ConstantValues all_ones() const {
    ConstantValues values;
    for (const FunctionConstant& constant : find_function_constants(syntax_, true)) values[constant.index] = 1;
    return values;
  }

  std::vector<std::string> flags(AddressSpaces spaces) const {
    std::vector<std::string> result = {clang_.path, "-fsyntax-only", "-nostdinc", "-fdeclspec", "-Wno-everything",
                                       "-ferror-limit=100", "-fno-caret-diagnostics", "-fno-color-diagnostics",
                                       "-fno-crash-diagnostics"};
    if (spaces == AddressSpaces::erased) {
      result.insert(result.end(), {"-x", "c++", "-std=c++17", "-DUPGC_SIMD_WIDTH=32"});
      return result;
    }
    // Extensions that Metal has in the language.
    const char* const extensions = "-cl-ext=+cl_khr_fp16,+cl_khr_fp64,+__opencl_c_fp64,+__cl_clang_function_pointers,"
                                   "+__cl_clang_variadic_functions,+__cl_clang_bitfields";
    result.insert(result.end(), {"-x", "clcpp", "-cl-std=clc++2021", "-cl-single-precision-constant", "-cl-no-stdinc",
                                 "-target", "x86_64-linux-gnu", "-Xclang", extensions, "-DUPGC_STRICT",
                                 "-DUPGC_SIMD_WIDTH=1"});
    return result;
  }

  std::vector<Diagnostic> compile(AddressSpaces spaces) const {
    prepare_private_folder(spec_.cache);
    const TemporaryFolder temporary(spec_.cache);
    const std::string input = temporary.path + "/kernels.cpp";
    write_file(input, unit(spaces));
    std::vector<std::string> arguments = flags(spaces);
    arguments.insert(arguments.end(), {"-isystem", spec_.headers, input});
    std::map<std::string, std::string> environment = spec_.environment;
    environment["TMPDIR"] = temporary.path;
    const ProcessResult run = run_process(arguments, environment, compile_seconds);
    if (run.timed_out)
      throw Error(code::compile,
                  concat(spec_.source_name, ": checking types took longer than ", compile_seconds, " s"));
    std::vector<Diagnostic> found = parse(run.output);
    if (run.status != 0 && found.empty() && !contains(run.output, kernel_table))
      throw Error(code::compile, concat("clang cannot check the types of ", spec_.source_name, ":\n", run.start_error,
                                        first_lines(run.output, 10)));
    return found;
  }

  // ---- Reading what it says

  /// `file:12:3: error: message`.
  std::optional<Line> parse_line(const std::string& text) const {
    size_t at = std::string::npos;
    std::string kind;
    for (const char* word : {"error", "note"}) {
      const std::string mark = concat(": ", word, ": ");
      const size_t found = text.find(mark);
      if (found < at) at = found, kind = word;
    }
    if (at == std::string::npos) return std::nullopt;
    Line line{text.rfind(spec_.source_name + ":", 0) == 0, 0, 0, kind, text.substr(at + kind.size() + 4)};
    if (line.in_text) {
      char* end = nullptr;
      line.line = uint32_t(std::strtoul(text.c_str() + spec_.source_name.size() + 1, &end, 10));
      line.column = *end == ':' ? uint32_t(std::strtoul(end + 1, nullptr, 10)) : 1;
    }
    return line;
  }

  /// Errors that have a place in the user's text: where they are, or where what they are in was asked for.
  std::vector<Diagnostic> parse(const std::string& output) const {
    std::vector<Diagnostic> all;
    std::istringstream lines(output);
    for (std::string text; std::getline(lines, text);) {
      const auto line = parse_line(text);
      if (!line) continue;
      if (line->kind == "error") {
        all.push_back({line->in_text ? line->line : 0, line->column, line->message, {}});
      } else if (!all.empty()) {
        if (all.back().line == 0 && line->in_text && contains(line->message, "requested here"))
          all.back().line = line->line, all.back().column = line->column;
        all.back().notes.push_back(line->message);
      }
    }
    all.erase(std::remove_if(all.begin(), all.end(), [](const Diagnostic& d) { return d.line == 0; }), all.end());
    return all;
  }

  // ---- Saying it again

  void report(const Diagnostic& diagnostic) {
    // What the tokens told is the cause.
    if (findings_.any_at(diagnostic.line)) return;
    const std::string& message = diagnostic.message;
    const bool is_call = message.rfind("no matching", 0) == 0;
    std::optional<Conversion> conversion = conversion_of(message);
    for (const std::string& note : diagnostic.notes)
      if (is_call && !conversion) conversion = conversion_of(note);
    if (conversion) {
      if (!is_fine(*conversion)) report_conversion(diagnostic, *conversion, is_call);
      return;
    }
    // The last is about functions of the library, not all of which are constexpr here.
    for (const char* part : {"__generic", "address space", "constant expression"})
      if (contains(message, part)) return;
    if (!is_confirmed(diagnostic.line)) return;
    if (contains(message, "cannot assign to") && contains(message, "const"))
      return add("read-only", diagnostic, in_metal(message),
                 "write to device, threadgroup or thread memory that is not const");
    if (contains(message, "did you mean 'metal::"))
      return add("missing-using", diagnostic, in_metal(message.substr(0, message.find("; did"))),
                 concat("write ", quoted_parts(message).back(), ", or `using namespace metal;` behind the #include"));
    if (contains(message, "undeclared identifier") || contains(message, "unknown type name") ||
        contains(message, "no member named") || contains(message, "no template named")) {
      const std::vector<std::string> parts = quoted_parts(message);
      // Apple's compiler has names of its own.
      if (!parts.empty() && parts[0].rfind("__", 0) == 0) return;
      return add("unknown-name", diagnostic, in_metal(message), "declare it, or look for a slip in its name");
    }
    const bool conflicts = std::any_of(diagnostic.notes.begin(), diagnostic.notes.end(), [](const std::string& note) {
      return contains(note, "deduced conflicting types");
    });
    if (contains(message, "is ambiguous") || (is_call && conflicts)) return report_ambiguity(diagnostic);
    add("types", diagnostic, in_metal(message), "make the types fit");
  }

  void report_conversion(const Diagnostic& diagnostic, const Conversion& conversion, bool is_call) {
    const std::vector<std::string> parts = quoted_parts(diagnostic.message);
    const std::string call = is_call && !parts.empty() ? concat(" in the call of ", parts[0]) : "";
    const std::string to = in_metal(space_of(conversion.to) + " ");
    add("address-space", diagnostic,
        concat("`", type_for_reader(conversion.from), "` cannot become `", type_for_reader(conversion.to), "`", call),
        is_call ? concat("copy what it points to into ", to, "memory, or give the function an overload for ",
                         in_metal(space_of(conversion.from)), " memory")
                : concat("declare the pointer with ", in_metal(space_of(conversion.from)),
                         ", or copy what it points to"));
  }

  void report_ambiguity(const Diagnostic& diagnostic) {
    std::string types;
    for (const std::string& note : diagnostic.notes) {
      const size_t at = note.find("('");
      if (types.empty() && contains(note, "deduced conflicting types") && at != std::string::npos)
        types = concat(" of ", in_metal(note.substr(at)));
    }
    const std::vector<std::string> parts = quoted_parts(diagnostic.message);
    add("ambiguous-call", diagnostic,
        concat("the call of ", parts.empty() ? "this function" : parts[0], types, " is ambiguous"),
        "convert the operands to one type, like half(x)");
  }

  /// Whether C++ without address spaces finds an error in the line too: OpenCL has restrictions of its own.
  bool is_confirmed(uint32_t line) {
    if (!confirmed_) {
      confirmed_.emplace();
      for (const Diagnostic& diagnostic : compile(AddressSpaces::erased)) confirmed_->insert(diagnostic.line);
    }
    return confirmed_->count(line) != 0;
  }

  void add(const char* rule, const Diagnostic& diagnostic, const std::string& message, const std::string& fix) {
    Token at{TokenKind::word, 0, 1, diagnostic.line, diagnostic.column};
    const auto found = std::lower_bound(syntax_.code().begin(), syntax_.code().end(), at,
                                        [](const Token& a, const Token& b) {
                                          return a.line != b.line ? a.line < b.line : a.column < b.column;
                                        });
    const bool is_token = found != syntax_.code().end() && found->line == at.line && found->column == at.column;
    findings_.add(rule, is_token ? *found : at, message, fix);
  }

  const ProgramSpec& spec_;
  const Syntax& syntax_;
  Findings& findings_;
  const Clang clang_;
  std::optional<std::set<uint32_t>> confirmed_;
};

}  // namespace

void check_types(const ProgramSpec& spec, const Syntax& syntax, Findings& findings) {
  TypeCheck(spec, syntax, findings).check();
}

}  // namespace upgc
