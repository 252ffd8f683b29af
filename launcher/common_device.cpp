#include "launcher/common_device.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "core/base/log.hpp"

namespace weft {
namespace {

std::string text_of(const std::vector<int>& ranks, std::span<const RankPlace> places) {
  const std::string& host = places[static_cast<std::size_t>(ranks.front())].host;
  const bool one_host = std::ranges::all_of(
      ranks, [&](int rank) { return places[static_cast<std::size_t>(rank)].host == host; });
  return fmt::format("{} ({}{})", ranks_text(ranks), host, one_host ? "" : " and others");
}

}  // namespace

DeviceTraits common_traits(std::span<const DeviceTraits> ranks, std::span<const RankPlace> places) {
  WEFT_CHECK(!ranks.empty() && ranks.size() == places.size());
  DeviceTraits common = ranks.front();
  std::vector<int> alike, others;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const DeviceTraits& traits = ranks[rank];
    common.isa = std::min(common.isa, traits.isa);
    common.fast_bf16 = common.fast_bf16 && traits.fast_bf16;
    (traits.kind == common.kind ? alike : others).push_back(static_cast<int>(rank));
  }
  if (others.empty()) return common;
  const DeviceTraits& other = ranks[static_cast<std::size_t>(others.front())];
  fail_user("--device: found {} on {} and {} on {}, expected one kind on all ranks; --device cpu works on all of them",
            name_of(common.kind), text_of(alike, places), name_of(other.kind), text_of(others, places));
}

std::string limits_text(std::span<const DeviceTraits> ranks, std::span<const RankPlace> places) {
  const DeviceTraits common = common_traits(ranks, places);
  const auto best_isa = std::ranges::max(ranks, {}, &DeviceTraits::isa).isa;
  const bool any_bf16 = std::ranges::any_of(ranks, &DeviceTraits::fast_bf16);
  std::vector<int> behind;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank)
    if ((common.kind == DeviceKind::cpu && ranks[rank].isa < best_isa) || (any_bf16 && !ranks[rank].fast_bf16)) behind.push_back(static_cast<int>(rank));
  if (behind.empty()) return {};
  if (common.kind != DeviceKind::cpu)
    return fmt::format("devices differ: --dtype auto is {}, for the sake of {}",
                       name_of(compute_dtype(DTypeChoice::automatic, common)), text_of(behind, places));
  return fmt::format("processors differ: all ranks use {} kernels and --dtype auto is {}, for the sake of {}",
                     cpu::name_of(common.isa), name_of(compute_dtype(DTypeChoice::automatic, common)),
                     text_of(behind, places));
}

DeviceTraits agree_on_traits(MpiRuntime& mpi, const DeviceTraits& own) {
  constexpr std::int64_t fields = 3;
  const std::uint8_t mine[fields] = {static_cast<std::uint8_t>(own.kind), static_cast<std::uint8_t>(own.isa),
                                     static_cast<std::uint8_t>(own.fast_bf16)};
  std::vector<std::uint8_t> all(static_cast<std::size_t>(fields * mpi.size()));
  mpi.world().all_gather(View(mine, {fields}, DType::u8), MutView(all.data(), {fields * mpi.size()}, DType::u8)).wait();
  std::vector<DeviceTraits> ranks;
  for (auto at = all.begin(); at != all.end(); at += fields)
    ranks.push_back({static_cast<DeviceKind>(at[0]), static_cast<cpu::Isa>(at[1]), at[2] != 0});
  const DeviceTraits common = common_traits(ranks, mpi.places());
  if (const std::string limits = limits_text(ranks, mpi.places()); mpi.rank() == 0 && !limits.empty())
    log_warning("{}", limits);
  return common;
}

DType compute_dtype(DTypeChoice choice, const DeviceTraits& common) {
  if (choice == DTypeChoice::f32) return DType::f32;
  if (choice == DTypeChoice::bf16) return DType::bf16;
  return common.fast_bf16 ? DType::bf16 : DType::f32;
}

}  // namespace weft
