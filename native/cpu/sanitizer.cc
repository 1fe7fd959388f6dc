#include "sanitizer.h"

#include <algorithm>
#include <cstring>

namespace upgc {
namespace {

std::mutex one_at_a_time;

std::string shown(const unsigned* extent) { return concat("(", extent[0], ", ", extent[1], ", ", extent[2], ")"); }

/// `scratch` of `_ZZL6kernelPfE7scratch`: the last name that says its own length, before a number that tells several
/// of one name apart.
std::string variable_name(const std::string& symbol) {
  for (size_t at = symbol.rfind('E'); at != std::string::npos && at > 0; at = symbol.rfind('E', at - 1)) {
    char* end = nullptr;
    const unsigned long length = std::strtoul(symbol.c_str() + at + 1, &end, 10);
    const size_t begin = end - symbol.c_str();
    if (begin > at + 1 && length != 0 && begin + length <= symbol.size()) return symbol.substr(begin, length);
  }
  return symbol;
}

}  // namespace

Sanitizer* Sanitizer::active_ = nullptr;

Sanitizer::Sanitizer(Memory& memory, const ProgramSpec& spec, const std::vector<Descriptor>& arenas,
                     const abi::Module& module, const abi::Sanitized& sanitized, Simt* simt)
    : kernels_(spec.kernels),
      arenas_(spec.arenas),
      source_name_(spec.source_name),
      sanitized_(sanitized),
      simt_(simt) {
  uint64_t largest = 0, threadgroup_bytes = 0;
  for (const Arena& arena : spec.arenas) largest = std::max(largest, arena.bytes);
  for (const Kernel& kernel : spec.kernels) threadgroup_bytes = std::max(threadgroup_bytes, kernel.threadgroup_bytes());
  // An index of 32 bits that is out of range by any number of small elements stays within the view's own addresses.
  view_bits_ = 34;
  while (uint64_t{1} << view_bits_ < 4 * largest) view_bits_++;
  for (const Entry& entry : spec.entries)
    for (const Dispatch& dispatch : entry.dispatches)
      for (size_t b = 0; b < dispatch.bindings.size(); b++)
        view_of_.emplace(std::make_pair(dispatch.bindings[b].arena, b), view_of_.size());
  views_memory_ = memory.reserve(view_of_.size() << view_bits_, "views of the arenas");
  if (views_memory_.size() != 0) views_memory_.forbid(0, views_memory_.size());
  views_.resize(view_of_.size());
  for (const auto& [key, number] : view_of_) {
    const size_t arena = key.first, offset = (uint64_t{2 * number + 1} << view_bits_) / 2;
    views_[number] = {arena, key.second, views_memory_.data() + offset};
    if (arenas_[arena].bytes != 0)
      views_memory_.place(offset, arenas_[arena].bytes, arenas[arena], !arenas_[arena].file);
  }
  for (const Arena& arena : arenas_)
    arena_shadows_.push_back(arena.file ? Mapping() : memory.reserve(arena.bytes * sizeof(Shadow), "the sanitizer"));
  threadgroup_memory_ = memory.reserve(threadgroup_bytes * abi::threadgroup_spread, "threadgroup memory");
  threadgroup_shadow_ = memory.reserve(threadgroup_bytes * sizeof(Shadow), "the sanitizer");
  const unsigned char* shared_end = nullptr;
  for (const abi::SharedVariable* v = sanitized.shared_variables; v->symbol != nullptr; v++, shared_variables_++) {
    const unsigned char* const begin = v->address - abi::shared_variable_gap;
    const unsigned char* const end = v->address + v->bytes + abi::shared_variable_gap;
    shared_begin_ = shared_begin_ == nullptr ? begin : std::min(shared_begin_, begin);
    shared_end = std::max(shared_end, end);
  }
  shared_bytes_ = shared_end - shared_begin_;
  shared_shadow_ = memory.reserve(shared_bytes_ * sizeof(Shadow), "the sanitizer");
  views_begin_ = views_memory_.data();
  views_bytes_ = views_memory_.size();
  threadgroup_begin_ = threadgroup_memory_.data();
  threadgroup_bytes_ = threadgroup_memory_.size();
  if (simt != nullptr) simt->count_barriers(module.simdgroup_barrier);
  findings_.reserve(most_findings);
}

unsigned char* Sanitizer::arena(size_t arena, size_t ordinal) const {
  return views_[view_of_.at({arena, ordinal})].begin;
}

std::unique_lock<std::mutex> Sanitizer::begin() {
  std::unique_lock<std::mutex> lock(one_at_a_time);
  active_ = this;
  *sanitized_.on_access = on_access;
  findings_.clear();
  more_findings_ = false;
  return lock;
}

void Sanitizer::begin_epoch() {
  first_group_ += groups_.size();
  groups_.clear();
}

void Sanitizer::begin_threadgroup(const Dispatch& dispatch, const abi::Launch& launch) {
  Group group{&dispatch, {}, {}};
  const Kernel& kernel = kernels_[dispatch.kernel];
  for (int axis = 0; axis < 3; axis++) {
    const unsigned threads = kernel.threads[axis];
    group.position[axis] = launch.begin[axis];
    group.size[axis] = std::min(threads, launch.grid_threads[axis] - launch.begin[axis] * threads);
  }
  group_ = first_group_ + groups_.size();
  groups_.push_back(group);
  buffers_.clear();
  for (size_t i = 0; i < kernel.arguments.size(); i++) {
    if (kernel.arguments[i].kind != ArgumentKind::buffer) continue;
    const size_t ordinal = buffers_.size();
    const Binding& binding = dispatch.bindings[ordinal];
    auto* const shadow = reinterpret_cast<Shadow*>(arena_shadows_[binding.arena].data());
    buffers_.push_back({{Region::buffer, i, binding.bytes}, binding.arena,
                        static_cast<const unsigned char*>(launch.buffers[ordinal]),
                        shadow == nullptr ? nullptr : shadow + binding.offset});
  }
}

std::optional<Error> Sanitizer::findings() const {
  if (findings_.empty()) return std::nullopt;
  std::string text = concat("the sanitizer found ", more_findings_ ? "more than " : "", findings_.size(),
                            findings_.size() == 1 ? " fault:" : " faults:");
  for (const Finding& finding : findings_) text += "\n" + described(finding);
  return Error(code::sanitizer, text);
}

// The functions below run on the stacks of lanes. They neither throw nor allocate.

void Sanitizer::on_access(const void* address, size_t bytes, bool write, unsigned site) {
  const auto* const place = static_cast<const unsigned char*>(address);
  Sanitizer& self = *active_;
  // Most accesses are to variables of the thread.
  if (size_t(place - self.views_begin_) < self.views_bytes_)
    self.check_view(place, self.access(place, bytes, write, site));
  else if (size_t(place - self.threadgroup_begin_) < self.threadgroup_bytes_)
    self.check_threadgroup_argument(place, self.access(place, bytes, write, site));
  else if (size_t(place - self.shared_begin_) < self.shared_bytes_)
    self.check_shared_variable(place, self.access(place, bytes, write, site));
}

Sanitizer::Access Sanitizer::access(const unsigned char* address, size_t bytes, bool write, unsigned site) {
  const Simt::Moment now = simt_ != nullptr ? simt_->now() : Simt::Moment{*sanitized_.serial_thread, 0, 0};
  const bool atomic = *sanitized_.atomic_address == address;
  if (atomic) *sanitized_.atomic_address = nullptr;
  Access access{bytes, write, {}};
  access.record.group = group_;
  access.record.thread = now.thread;
  access.record.barriers = now.barriers;
  access.record.simdgroup_barriers = now.simdgroup_barriers;
  access.record.site = site;
  access.record.atomic = atomic;
  return access;
}

void Sanitizer::check_view(const unsigned char* address, const Access& access) {
  const View& view = views_[size_t(address - views_memory_.data()) >> view_bits_];
  // A view that the dispatch does not use was reached from another one, by an index far out of range.
  const bool own = view.ordinal < buffers_.size() && buffers_[view.ordinal].arena == view.arena;
  const Buffer& buffer = buffers_[own ? view.ordinal : 0];
  check_region(buffer.region, address - buffer.begin, access, buffer.shadow);
  // What is not there, not even in another buffer of the arena, cannot be read or written.
  const int64_t in_view = address - view.begin, page = page_size();
  const int64_t mapped = (arenas_[view.arena].bytes + page - 1) / page * page;
  if (in_view < 0 || in_view + int64_t(access.bytes) > mapped) leave();
}

void Sanitizer::check_threadgroup_argument(const unsigned char* address, const Access& access) {
  const int64_t at = address - threadgroup_memory_.data();
  const std::vector<Argument>& arguments = kernels_[groups_.back().dispatch->kernel].arguments;
  // The last argument that starts before the access is the one that it means.
  uint64_t offset = 0, found_offset = 0;
  size_t found = arguments.size();
  for (size_t i = 0; i < arguments.size(); i++) {
    if (arguments[i].kind != ArgumentKind::threadgroup) continue;
    if (int64_t(offset * abi::threadgroup_spread) <= at) {
      found = i;
      found_offset = offset;
    }
    offset += arguments[i].bytes;
  }
  if (found == arguments.size()) return;
  check_region({Region::argument, found, arguments[found].bytes}, at - int64_t(found_offset * abi::threadgroup_spread),
               access, reinterpret_cast<Shadow*>(threadgroup_shadow_.data()) + found_offset);
}

void Sanitizer::check_shared_variable(const unsigned char* address, const Access& access) {
  for (size_t i = 0; i < shared_variables_; i++) {
    const abi::SharedVariable& variable = sanitized_.shared_variables[i];
    // The gap before a variable and the one behind the variable before it are the same; the first half is that one's.
    if (address < variable.address - abi::shared_variable_gap / 2 ||
        address >= variable.address + variable.bytes + abi::shared_variable_gap / 2)
      continue;
    check_region({Region::variable, i, variable.bytes}, address - variable.address, access,
                 reinterpret_cast<Shadow*>(shared_shadow_.data()) + (variable.address - shared_begin_));
    return;
  }
}

/// `shadow` is that of the region's first byte, or null where nothing is ever written.
void Sanitizer::check_region(const Region& region, int64_t offset, const Access& access, Shadow* shadow) {
  if (offset < 0 || uint64_t(offset) + access.bytes > region.bytes)
    return note(region, offset, access, Finding::bounds);
  if (shadow == nullptr) return;
  const Record& now = access.record;
  bool noted = false;
  for (uint64_t i = 0; i < access.bytes; i++) {
    Shadow& byte = shadow[offset + i];
    const auto against = [&](const Record& earlier, bool wrote) {
      // Threadgroup memory is of one threadgroup only; another one used to have it.
      if (region.kind != Region::buffer && earlier.group != now.group) return;
      if (noted || !races(earlier, now)) return;
      note(region, offset + i, access, Finding::race, &earlier, wrote);
      noted = true;
    };
    against(byte.write, true);
    if (access.write) {
      against(byte.read, false);
      against(byte.read_by_thread, false);
      against(byte.read_by_group, false);
      byte.write = now;
      continue;
    }
    if (region.kind != Region::buffer && byte.write.group != now.group && !noted) {
      note(region, offset + i, access, Finding::uninitialised);
      noted = true;
    }
    if (byte.read.group != now.group) {
      if (byte.read.group >= first_group_) byte.read_by_group = byte.read;
      byte.read_by_thread = Record();
    } else if (byte.read.thread != now.thread) {
      byte.read_by_thread = byte.read;
    }
    byte.read = now;
  }
}

/// Whether two accesses to one byte, of which one writes, are without order.
bool Sanitizer::races(const Record& earlier, const Record& now) const {
  if (earlier.group < first_group_ || (earlier.atomic && now.atomic)) return false;
  if (earlier.group != now.group) return true;
  if (earlier.thread == now.thread || earlier.barriers != now.barriers) return false;
  const unsigned width = simt_ != nullptr ? abi::max_simd_width : 1;
  return earlier.thread / width != now.thread / width || earlier.simdgroup_barriers == now.simdgroup_barriers;
}

/// Leaves the kernel: the access would crash.
void Sanitizer::leave() {
  if (simt_ != nullptr) simt_->abandon();
  std::longjmp(leave_, 1);
}

/// Two findings are the same when the same places in the text have the same fault.
void Sanitizer::note(const Region& region, int64_t offset, const Access& access, Finding::Kind kind,
                     const Record* other, bool other_wrote) {
  const Group& group = groups_.back();
  for (const Finding& known : findings_)
    if (known.kind == kind && known.party.record.site == access.record.site && known.write == access.write &&
        known.party.group.dispatch->kernel == group.dispatch->kernel && known.region.index == region.index &&
        (other == nullptr || (known.other.record.site == other->site && known.other_wrote == other_wrote)))
      return;
  if (findings_.size() == most_findings) {
    more_findings_ = true;
    return;
  }
  Finding finding{kind, region, offset, access.bytes, access.write, {group, access.record}, {}, other_wrote};
  if (other != nullptr) finding.other = {groups_[other->group - first_group_], *other};
  findings_.push_back(finding);
}

// From here on back on the stack of the OS thread.

std::string Sanitizer::name_of(const Region& region, const Kernel& kernel) const {
  if (region.kind == Region::variable)
    return concat("threadgroup variable ", variable_name(sanitized_.shared_variables[region.index].symbol));
  const Argument& argument = kernel.arguments[region.index];
  const std::string name = argument.name.empty() ? concat(argument.index) : argument.name;
  return concat(region.kind == Region::buffer ? "buffer " : "threadgroup memory ", name);
}

/// Who and where: the thread and its threadgroup.
std::string Sanitizer::place_of(const Party& party) const {
  const unsigned index = party.record.thread, *const size = party.group.size;
  const unsigned thread[] = {index % size[0], index / size[0] % size[1], index / size[0] / size[1]};
  return concat("thread ", shown(thread), " of threadgroup ", shown(party.group.position));
}

std::string Sanitizer::described(const Finding& finding) const {
  const Kernel& kernel = kernel_of(finding.party);
  const std::string region = name_of(finding.region, kernel);
  const std::string size = concat(finding.region.bytes, " bytes");
  const std::string access = concat(finding.write ? "write" : "read", " of ", finding.bytes, " bytes");
  const std::string start = concat(shown_site(source_name_, finding.party.record.site), ": kernel ", kernel.name, ": ");
  const std::string at = concat("\n  by ", place_of(finding.party));
  switch (finding.kind) {
    case Finding::bounds:
      return concat(start, access, " out of bounds: at byte ", finding.offset, " of ", region, ", which has ", size,
                    at);
    case Finding::uninitialised:
      return concat(start, access, " of uninitialised memory: byte ", finding.offset, " of ", region, ", which has ",
                    size, at);
    case Finding::race: break;
  }
  const Kernel& other = kernel_of(finding.other);
  return concat(start, "race on byte ", finding.offset, " of ", region, ", which has ", size, ": ", access, at,
                "\n  after a ", finding.other_wrote ? "write" : "read", " at ",
                shown_site(source_name_, finding.other.record.site), &other == &kernel ? "" : " in kernel ",
                &other == &kernel ? "" : other.name, "\n  by ", place_of(finding.other),
                ", with no barrier between them");
}

}  // namespace upgc
