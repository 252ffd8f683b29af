#include "launcher/saved_model.hpp"

#include "launcher/run_folder.hpp"
#include "launcher/sharding_setup.hpp"
#include "parallel/checkpoint.hpp"
#include "parallel/comm/text_exchange.hpp"

namespace weft {

SavedModel load_saved_model(Session& session, const std::filesystem::path& path, const LayoutOptions& layout) {
  SavedModel saved;
  session.log().set_phase("start", file_allowance_seconds);
  // Rank 0's view counts: a run may be saving into the folder.
  saved.folder = from_first_rank(session.world(), [&] { return find_checkpoint(path).string(); });
  const CheckpointIndex index = read_index(session.world(), saved.folder);
  saved.trained = parse_config("train", index.config, (saved.folder / "index.json").string());
  const auto embedding = index.tensors.find("embed.tokens.weight");
  if (embedding == index.tensors.end() || embedding->second.shape.rank() != 2)
    fail_user("{}: no token embedding (embed.tokens.weight), not a language model's checkpoint", saved.folder.string());
  saved.trained.model.vocab = embedding->second.shape[0];
  const LmConfig config = make_lm_config(saved.trained.model, saved.trained.train.seq, 0);
  saved.sharding = plan_sharding(layout, config, {}, session.mesh());
  saved.built = build_model(config, session.mesh(), saved.sharding);
  ExecContext& exec = session.engine().exec();
  saved.built->store.allocate_values(exec);
  load_checkpoint(session.world(), index, saved.folder, {exec, saved.built->store, nullptr});
  session.log().set_phase("loaded");
  return saved;
}

}  // namespace weft
