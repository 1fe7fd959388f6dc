#include "simt.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "../error.h"

namespace upgc {
namespace {

constexpr size_t stack_bytes = 64 * 1024;
constexpr size_t guard_bytes = Simt::max_frame_bytes;

/// The lowest member of a non-empty set.
unsigned first_of(unsigned lanes) { return __builtin_ctz(lanes); }

/// `for (unsigned rest = set; rest != 0; rest = without_first(rest))` visits the lanes of a set.
unsigned without_first(unsigned lanes) { return lanes & (lanes - 1); }

}  // namespace

std::string shown_site(const std::string& source_name, unsigned site) {
  return concat(source_name, ":", abi::site_line(site), ":", abi::site_column(site));
}

Simt::Simt(Memory& memory, unsigned max_threads, std::string source_name) : source_name_(std::move(source_name)) {
  const unsigned width = abi::max_simd_width;
  const unsigned simdgroup_count = (max_threads + width - 1) / width;
  const size_t pitch = stack_bytes + guard_bytes;
  stacks_ = memory.allocate(pitch * max_threads, "the stacks of the kernels' threads");
  lanes_.resize(max_threads);
  simdgroups_.resize(simdgroup_count);
  for (unsigned thread = 0; thread < max_threads; thread++) {
    // Stacks grow down, so the guard lies below.
    stacks_.forbid(pitch * thread, guard_bytes);
    Lane& lane = lanes_[thread];
    lane.owner = this;
    lane.thread = thread;
    lane.simdgroup = &simdgroups_[thread / width];
    lane.slot = &lane.simdgroup->slots[thread % width];
    lane.slot->lane = thread % width;
    // All stacks at the same distance from a page would compete for the same few cache lines.
    lane.stack_top = stacks_.data() + pitch * (thread + 1) - (thread % 64) * 64;
  }
  for (unsigned i = 0; i < simdgroup_count; i++) simdgroups_[i].lanes = &lanes_[i * width];
}

abi::Hooks Simt::hooks() { return {wait_for_simdgroup, wait_for_barrier}; }

void Simt::prepare(abi::Lane** current_lane, Random* random) {
  current_lane_ = current_lane;
  random_ = random;
}

void Simt::run(const SimtDispatch& dispatch) {
  dispatch_ = &dispatch;
  const unsigned *const begin = dispatch.launch->begin, *const end = dispatch.launch->end;
  for (unsigned z = begin[2]; z < end[2]; z++)
    for (unsigned y = begin[1]; y < end[1]; y++)
      for (unsigned x = begin[0]; x < end[0]; x++) {
        group_[0] = x;
        group_[1] = y;
        group_[2] = z;
        run_threadgroup();
      }
}

void Simt::run_threadgroup() {
  const unsigned width = abi::max_simd_width;
  threads_ = 1;
  for (int axis = 0; axis < 3; axis++) {
    const unsigned whole = dispatch_->threads[axis];
    threads_ *= std::min(whole, dispatch_->launch->grid_threads[axis] - group_[axis] * whole);
  }
  // Metal leaves this memory undefined. All ones are NaN, which shows up where a kernel reads before it writes.
  if (dispatch_->threadgroup_bytes != 0)
    std::memset(dispatch_->launch->threadgroup_memory, 0xff, dispatch_->threadgroup_bytes);
  for (unsigned thread = 0; thread < threads_; thread++) {
    lanes_[thread].context = make_context(lanes_[thread].stack_top, run_lane, &lanes_[thread]);
    lanes_[thread].simdgroup_barriers = 0;
  }
  const unsigned simdgroup_count = (threads_ + width - 1) / width;
  for (unsigned i = 0; i < simdgroup_count; i++) {
    const unsigned lanes = threads_ - i * width;
    simdgroups_[i].ready = lanes >= width ? ~0u : (1u << lanes) - 1;
    simdgroups_[i].at_simdgroup_function = simdgroups_[i].at_barrier = 0;
    simdgroups_[i].divergent = false;
    simdgroups_[i].barriers = 0;
  }
  barriers_ = 0;
  // At most 1024 threads make at most 32 simdgroups.
  const unsigned all = simdgroup_count == 32 ? ~0u : (1u << simdgroup_count) - 1;
  do {
    for (unsigned left = all; left != 0;) {
      const unsigned i = choose(left);
      left &= ~(1u << i);
      run_until_blocked(simdgroups_[i]);
    }
  } while (open_barrier());
}

/// Which of a set of ready lanes or simdgroups goes on.
unsigned Simt::choose(unsigned set) { return random_ == nullptr ? first_of(set) : random_->member(set); }

void Simt::run_until_blocked(Simdgroup& simdgroup) {
  for (;;) {
    while (simdgroup.ready != 0) {
      Lane& lane = simdgroup.lanes[choose(simdgroup.ready)];
      *current_lane_ = &lane;
      upgc_switch_context(&scheduler_, &lane.context);
      if (abandoned_) {
        abandoned_ = false;
        throw Abandoned();
      }
    }
    if (simdgroup.at_simdgroup_function == 0) return;
    complete_simdgroup_function(simdgroup);
  }
}

void Simt::complete_simdgroup_function(Simdgroup& simdgroup) {
  const unsigned active = simdgroup.divergent ? choose_active(simdgroup) : simdgroup.at_simdgroup_function;
  simdgroup.combine(simdgroup.slots, active);
  if (simdgroup.combine == simdgroup_barrier_) {
    simdgroup.barriers++;
    for (unsigned rest = active; rest != 0; rest = without_first(rest))
      simdgroup.lanes[first_of(rest)].simdgroup_barriers = simdgroup.barriers;
  }
  simdgroup.at_simdgroup_function &= ~active;
  simdgroup.divergent = simdgroup.at_simdgroup_function != 0;
  simdgroup.ready = active;
}

/// Of lanes that wait at different places: those at the first place in the text, and which that is.
unsigned Simt::choose_active(Simdgroup& simdgroup) {
  const unsigned waiting = simdgroup.at_simdgroup_function;
  const Lane* first = &simdgroup.lanes[first_of(waiting)];
  for (unsigned rest = without_first(waiting); rest != 0; rest = without_first(rest)) {
    const Lane& lane = simdgroup.lanes[first_of(rest)];
    if (lane.site < first->site) first = &lane;
  }
  simdgroup.site = first->site;
  simdgroup.combine = first->combine;
  unsigned active = 0;
  for (unsigned rest = waiting; rest != 0; rest = without_first(rest)) {
    const Lane& lane = simdgroup.lanes[first_of(rest)];
    // Two instances of one template share their places in the text but not their combine functions.
    if (lane.site == first->site && lane.combine == first->combine) active |= 1u << first_of(rest);
  }
  return active;
}

/// Lets all lanes go on that wait at a barrier. False when there are none: the threadgroup has finished.
bool Simt::open_barrier() {
  const unsigned width = abi::max_simd_width;
  const unsigned simdgroup_count = (threads_ + width - 1) / width;
  unsigned waiting = 0;
  for (unsigned i = 0; i < simdgroup_count; i++) waiting += __builtin_popcount(simdgroups_[i].at_barrier);
  if (waiting == 0) return false;
  if (waiting != threads_) report_divergence(waiting);
  for (unsigned thread = 1; thread < threads_; thread++)
    if (lanes_[thread].site != lanes_[0].site) report_divergence(waiting);
  for (unsigned i = 0; i < simdgroup_count; i++) {
    simdgroups_[i].ready = simdgroups_[i].at_barrier;
    simdgroups_[i].at_barrier = 0;
  }
  barriers_++;
  return true;
}

void Simt::report_divergence(unsigned waiting) const {
  std::set<unsigned> sites;
  for (unsigned thread = 0; thread < threads_; thread++) {
    const Lane& lane = lanes_[thread];
    if (lane.simdgroup->at_barrier >> (thread % abi::max_simd_width) & 1) sites.insert(lane.site);
  }
  std::string places;
  for (const unsigned site : sites) places += concat(places.empty() ? "" : " and ", shown_site(source_name_, site));
  const std::string where = concat("kernel ", dispatch_->kernel->name, ", threadgroup (", group_[0], ", ", group_[1],
                                   ", ", group_[2], "): ");
  if (sites.size() > 1)
    throw Error(code::kernel, concat(where, "barrier not reached by all threads: they wait at ", places));
  throw Error(code::kernel, concat(where, "barrier not reached by all threads: ", waiting, " of ", threads_,
                                   " wait at ", places, ", the others have returned"));
}


// The functions below run on the lanes' stacks.

void Simt::run_lane(void* self) {
  Lane& lane = *static_cast<Lane*>(self);
  const Simt& simt = *lane.owner;
  simt.dispatch_->kernel->run_thread(simt.dispatch_->launch, simt.group_, lane.thread);
  lane.owner->suspend(lane);  // for good: it is in no set any more
}

void Simt::wait_for_simdgroup(abi::Lane* self, abi::Combine combine, unsigned site) {
  Lane& lane = *static_cast<Lane*>(self);
  Simdgroup& simdgroup = *lane.simdgroup;
  lane.site = site;
  lane.combine = combine;
  if (simdgroup.at_simdgroup_function == 0) {
    simdgroup.site = site;
    simdgroup.combine = combine;
  } else if (site != simdgroup.site || combine != simdgroup.combine) {
    simdgroup.divergent = true;
  }
  simdgroup.at_simdgroup_function |= 1u << lane.slot->lane;
  lane.owner->suspend(lane);
}

void Simt::wait_for_barrier(abi::Lane* self, unsigned site) {
  Lane& lane = *static_cast<Lane*>(self);
  lane.site = site;
  lane.simdgroup->at_barrier |= 1u << lane.slot->lane;
  lane.owner->suspend(lane);
}

Simt::Moment Simt::now() const {
  const Lane& lane = *static_cast<const Lane*>(*current_lane_);
  return {lane.thread, barriers_, lane.simdgroup_barriers};
}

void Simt::abandon() {
  abandoned_ = true;
  upgc_switch_context(&static_cast<Lane*>(*current_lane_)->context, &scheduler_);
  __builtin_unreachable();
}

/// Goes on with the next ready lane of the simdgroup, or with the scheduler when there is none.
void Simt::suspend(Lane& lane) {
  Simdgroup& simdgroup = *lane.simdgroup;
  simdgroup.ready &= ~(1u << lane.slot->lane);
  if (simdgroup.ready == 0) {
    upgc_switch_context(&lane.context, &scheduler_);
    return;
  }
  Lane& next = simdgroup.lanes[choose(simdgroup.ready)];
  *current_lane_ = &next;
  upgc_switch_context(&lane.context, &next.context);
}

}  // namespace upgc
