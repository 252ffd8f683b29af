// The tensors of a Hugging Face model, wherever its files hold them.
#pragma once
#include <deque>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/io/safetensors.hpp"
#include "core/nn/parameter_store.hpp"
#include "launcher/hugging_face.hpp"

namespace weft {

/// One safetensors file, or several with an index (model.safetensors.index.json).
class HuggingFaceWeights {
 public:
  /// `path` is a folder or one file. Throws UserError when there are no weights, or a file is damaged or another than the index
  /// says.
  explicit HuggingFaceWeights(const std::filesystem::path& path);

  /// Throws UserError, one line with file and tensor, unless the files hold exactly these tensors in these shapes in f32, f16
  /// or bf16. Names may lack the class's prefix; masks and frequencies that old files hold are passed over; a head beside tied
  /// embeddings must be the embedding.
  void check(const std::vector<HuggingFaceTensor>& tensors, const LmConfig& config) const;
  /// Fills the parameters (host memory, whole) after check().
  void copy_into(ParameterStore& store, const std::vector<HuggingFaceTensor>& tensors) const;

 private:
  struct Place {
    const SafetensorsReader* reader = nullptr;
    const SafetensorsEntry* entry = nullptr;
    std::string file;
  };

  void open(const std::filesystem::path& file);
  void open_index(const std::filesystem::path& index);
  const Place* find(const std::string& name) const;
  void check_tied_head(const std::string& embedding) const;
  std::string shown() const;

  std::deque<SafetensorsReader> readers_;
  std::map<std::string, Place> places_;  ///< by name
  std::string path_;
};

}  // namespace weft
