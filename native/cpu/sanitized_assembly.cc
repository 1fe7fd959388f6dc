#include "sanitized_assembly.h"

#include <cstdlib>
#include <sstream>
#include <vector>

#include "../error.h"
#include "../msl/abi.h"

namespace upgc {
namespace {

bool starts_with(const std::string& text, const std::string& start) {
  return text.compare(0, start.size(), start) == 0;
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// The last string in quotes of `.file 1 "folder" "name"`, without the checksum behind it.
std::string file_name(const std::string& directive) {
  const size_t end = directive.rfind('"');
  if (end == std::string::npos || end == 0) return "";
  const size_t begin = directive.rfind('"', end - 1);
  return begin == std::string::npos ? "" : directive.substr(begin + 1, end - begin - 1);
}

struct Variable {
  std::string label;
  unsigned long bytes;
};

/// Goes through the assembly line by line.
class Rewriter {
 public:
  Rewriter(const std::string& assembly, const std::string& source_name)
      : assembly_(assembly),
        source_name_(source_name),
        mach_o_(assembly.find(".section\t__TEXT") != std::string::npos) {}

  std::string run() {
    std::istringstream lines(assembly_);
    for (std::string line; std::getline(lines, line);) rewrite(line);
    write_table();
    return out_.str();
  }

 private:
  void rewrite(const std::string& line) {
    const size_t first = line.find_first_not_of(" \t");
    const std::string text = first == std::string::npos ? "" : line.substr(first);
    std::istringstream words(text);
    std::string word;
    words >> word;
    if (word == ".file") note_file(words, text);
    else if (word == ".loc") note_place(words);
    else if (word == ".section") in_shared_ = text.find("upgc_shared") != std::string::npos;
    else if (word == ".text" || word == ".data" || word == ".bss") in_shared_ = false;
    else if (in_shared_ && first == 0 && text.find(':') != std::string::npos) start_variable(text);
    else if (in_shared_ && (word == ".zero" || word == ".space")) end_variable(words);
    else if (text.find("__asan_") != std::string::npos && word[0] != '.') pass_site(word);
    out_ << line << '\n';
  }

  /// clang may keep the folder of the source apart.
  void note_file(std::istringstream& words, const std::string& text) {
    unsigned number = 0;
    const std::string name = file_name(text);
    if (!(words >> number) || name.empty() || !ends_with(source_name_, name)) return;
    source_file_ = number;
    has_source_file_ = true;
  }

  /// Line 0 means that the compiler has made the code up; it then keeps the place before.
  void note_place(std::istringstream& words) {
    unsigned file = 0, line = 0, column = 0;
    if (words >> file >> line >> column && has_source_file_ && file == source_file_ && line != 0)
      site_ = abi::site_of(line, column);
  }

  /// The registers of fourth arguments do not survive calls, so none is in use before one with fewer arguments.
  void pass_site(const std::string& instruction) {
    if (starts_with(instruction, "call") || starts_with(instruction, "jmp"))
      out_ << "\tmovl\t$" << site_ << ", %ecx\n";
    else if (instruction == "bl" || instruction == "b")
      out_ << "\tmovz\tw3, #" << (site_ & 0xffff) << "\n\tmovk\tw3, #" << (site_ >> 16) << ", lsl #16\n";
  }

  void start_variable(const std::string& text) {
    variables_.push_back({text.substr(0, text.find(':')), 0});
    out_ << "\t.space\t" << abi::shared_variable_gap << '\n';
  }

  void end_variable(std::istringstream& words) {
    unsigned long bytes = 0;
    if (!variables_.empty() && words >> bytes) variables_.back().bytes += bytes;
  }

  void write_table() {
    if (!variables_.empty())
      out_ << (mach_o_ ? "\t.section\t__DATA,upgc_shared\n" : "\t.section\tupgc_shared,\"aw\",@progbits\n")
           << "\t.space\t" << abi::shared_variable_gap << '\n';
    const char* const symbol = mach_o_ ? "_upgc_shared_variables" : "upgc_shared_variables";
    out_ << (mach_o_ ? "\t.section\t__DATA,__const\n" : "\t.section\t.data.rel.ro,\"aw\",@progbits\n")
         << "\t.p2align\t3\n\t.globl\t" << symbol
         << (mach_o_ ? "\n\t.private_extern\t" : "\n\t.hidden\t") << symbol << '\n'
         << symbol << ":\n";
    const std::string name = mach_o_ ? "Lupgc_name_" : ".Lupgc_name_";
    for (size_t i = 0; i < variables_.size(); i++)
      out_ << "\t.quad\t" << variables_[i].label << "\n\t.quad\t" << variables_[i].bytes << "\n\t.quad\t" << name << i
           << '\n';
    out_ << "\t.quad\t0\n\t.quad\t0\n\t.quad\t0\n";
    for (size_t i = 0; i < variables_.size(); i++)
      out_ << name << i << ":\n\t.asciz\t\"" << variables_[i].label << "\"\n";
  }

  const std::string& assembly_;
  const std::string& source_name_;
  const bool mach_o_;
  std::ostringstream out_;
  bool has_source_file_ = false;
  unsigned source_file_ = 0;
  unsigned site_ = 0;
  bool in_shared_ = false;
  std::vector<Variable> variables_;
};

}  // namespace

std::string sanitized_assembly(const std::string& assembly, const std::string& source_name) {
  return Rewriter(assembly, source_name).run();
}

}  // namespace upgc
