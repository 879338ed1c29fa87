// Tensors of a mapped file: see include/billm/checkpoint/tensor_file.h.
#include "billm/checkpoint/tensor_file.h"

namespace billm {

int64_t TensorView::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

TensorFile::TensorFile(const std::filesystem::path& path, TensorFileParser parse)
    : file_(path), content_(parse(file_.bytes(), path.string())) {}

const TensorView* TensorFile::find(std::string_view name) const {
  const auto found = content_.tensors.find(name);
  return found == content_.tensors.end() ? nullptr : &found->second;
}

void TensorFile::release(std::string_view name) const {
  const TensorView* tensor = find(name);
  if (tensor == nullptr || tensor->data.empty()) return;
  file_.release(static_cast<size_t>(tensor->data.data() - file_.bytes().data()),
                tensor->data.size());
}

}  // namespace billm
