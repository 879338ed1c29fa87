// See original_pass.h.
#include "original_pass.h"

#include <string>

#include "billm/base/progress.h"

namespace billm {

void pass_original(const OriginalPass& pass, const char* label, bool last, HiddenStates* hidden,
                   const std::function<void(int64_t b, const Block& block)>& visit) {
  const ModelSpec& spec = pass.model.spec();
  Progress progress(label, spec.blocks(), pass.quiet);
  for (int64_t b = 0; b < spec.blocks(); ++b) {
    const Block block = load_block(pass.model.weights(), spec, b, pass.threads, pass.device);
    visit(b, block);
    const std::vector<WrittenFile> before = hidden->files();
    if (last || b + 1 < spec.blocks()) {
      const auto forward = [&](int64_t from, int64_t count, const auto& take) {
        BlockWalk walk(spec, *hidden, /*keeps=*/false);
        forward_each(spec, block, pass.rope, walk, from, count, pass.threads, take);
      };
      const std::string name = std::string(label) + "-" + std::to_string(b + 1);
      hidden->replace(name + "-" + std::to_string(pass.rank), forward, 2 * pass.threads);
    }
    for (const WrittenFile& file : before) std::filesystem::remove(pass.directory / file.name);
    if (last && b + 1 == spec.blocks()) visit(b + 1, block);
    progress.step();
  }
  for (const WrittenFile& file : hidden->files()) {
    std::filesystem::remove(pass.directory / file.name);
  }
}

}  // namespace billm
