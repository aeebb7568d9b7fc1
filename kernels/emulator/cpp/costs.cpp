// Costs by instruction: the k-th accesses of a warp's lanes from one call site are one request.
#include <algorithm>
#include <dlfcn.h>
#include <unordered_map>

#include "runtime.hpp"

namespace tomograd {

// The k-th access of each lane.
struct Request {
  unsigned lanes = 0;
  uintptr_t address[LANES];
};

struct Site {
  TomogradSite sum = {};
  std::vector<Request> requests;  // since the last flush; `used` of them
  size_t used = 0;
  unsigned next[LANES] = {};  // k of each lane
};

static std::unordered_map<uintptr_t, Site> sites __attribute__((init_priority(200)));
static std::vector<Site *> touched;
static std::vector<TomogradSite> listed;
static uintptr_t last_key;
static Site *last_site;

void begin_costs() {
  sites.clear();
  touched.clear();
  last_site = nullptr;
}

void count(Space space, Kind kind, uintptr_t address, unsigned bytes, const void *instruction) {
  // One instruction may be a copy from global to shared memory.
  const uintptr_t key = reinterpret_cast<uintptr_t>(instruction) * 2 + (space == Space::SHARED);
  if (!last_site || last_key != key) {
    last_site = &sites[key];
    last_key = key;
    last_site->sum.instruction = reinterpret_cast<unsigned long>(instruction);
    last_site->sum.size = bytes;
    last_site->sum.shared = space == Space::SHARED;
    last_site->sum.write = kind == Kind::READ ? 0 : kind == Kind::WRITE ? 1 : 2;
  }
  Site &site = *last_site;
  const unsigned lane = state->now % LANES, k = site.next[lane]++;
  if (!site.used) touched.push_back(&site);
  if (k >= site.used) {
    if (site.used == site.requests.size()) site.requests.emplace_back();
    site.requests[site.used++].lanes = 0;
  }
  Request &request = site.requests[k];
  request.lanes |= 1u << lane;
  request.address[lane] = address;
}

// Sectors of 32 bytes that a request touches, and how many its bytes need at least.
static void count_sectors(const Request &request, TomogradSite &sum) {
  uintptr_t addresses[LANES];
  unsigned count = 0;
  for (unsigned lane = 0; lane < LANES; lane++)
    if (request.lanes >> lane & 1) addresses[count++] = request.address[lane];
  std::sort(addresses, addresses + count);
  unsigned long sectors = 0, bytes = 0;
  uintptr_t beyond = 0, end = 0;  // the first sector that hasn't been counted, the end of the bytes that have
  for (unsigned i = 0; i < count; i++) {
    uintptr_t begin = addresses[i], last = begin + sum.size;
    if (last > end) bytes += last - std::max(begin, end), end = last;
    uintptr_t first_sector = std::max(begin / 32, beyond), last_sector = (last - 1) / 32;
    if (last_sector + 1 > first_sector) sectors += last_sector + 1 - first_sector, beyond = last_sector + 1;
  }
  sum.moved += sectors;
  sum.ideal += (bytes + 31) / 32;
}

// Cycles of the 32 banks of 4 bytes: lanes of one request go together as far as they have 128 bytes at most.
static void count_banks(const Request &request, TomogradSite &sum) {
  const unsigned together = sum.size <= 4 ? 32 : sum.size == 8 ? 16 : 8;
  for (unsigned first = 0; first < LANES; first += together) {
    uintptr_t words[LANES * 2];
    unsigned count = 0;
    for (unsigned lane = first; lane < first + together; lane++) {
      if (!(request.lanes >> lane & 1)) continue;
      for (unsigned byte = 0; byte < std::min(sum.size, 16u); byte += 4) words[count++] = (request.address[lane] + byte) / 4;
    }
    if (!count) continue;
    std::sort(words, words + count);
    count = static_cast<unsigned>(std::unique(words, words + count) - words);
    unsigned banks[32] = {}, most = 0;
    for (unsigned i = 0; i < count; i++) most = std::max(most, ++banks[words[i] % 32]);
    sum.moved += most;
    sum.ideal += (count + 31) / 32;
  }
}

void flush_costs(unsigned) {
  for (Site *site : touched) {
    for (size_t k = 0; k < site->used; k++) {
      const Request &request = site->requests[k];
      site->sum.requests++;
      site->sum.accesses += static_cast<unsigned>(__builtin_popcount(request.lanes));
      site->sum.shared ? count_banks(request, site->sum) : count_sectors(request, site->sum);
    }
    site->used = 0;
    std::fill(site->next, site->next + LANES, 0u);
  }
  touched.clear();
}

void end_costs(TomogradEmulatorReport *report) {
  listed.clear();
  for (auto &entry : sites) {
    Dl_info library;
    TomogradSite &sum = entry.second.sum;
    if (dladdr(reinterpret_cast<void *>(sum.instruction), &library)) sum.instruction -= reinterpret_cast<unsigned long>(library.dli_fbase);
    listed.push_back(sum);
  }
  std::sort(listed.begin(), listed.end(), [](const TomogradSite &a, const TomogradSite &b) { return a.instruction < b.instruction; });
  for (const TomogradSite &site : listed) {
    if (site.shared) {
      report->shared_cycles += site.moved;
      report->shared_ideal += site.ideal;
    } else if (site.write) {
      report->store_sectors += site.moved;
      report->store_ideal += site.ideal;
    } else {
      report->load_sectors += site.moved;
      report->load_ideal += site.ideal;
    }
  }
  report->site_count = listed.size();
  report->sites = listed.data();
}

}  // namespace tomograd
