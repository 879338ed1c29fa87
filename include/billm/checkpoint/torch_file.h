// pytorch_model.bin: what torch.save (1.6 or newer) writes for a state dict, read without pickle.
//
//   a zip archive of stored (uncompressed) entries:
//     NAME/data.pkl    pickle of {tensor name: how to view which storage}
//     NAME/data/KEY    the bytes of one storage
//     NAME/version     "3\n"
//     NAME/byteorder   "little" (torch 2.1 or newer)
//
// The pickle is not executed: src/checkpoint/state_dict_pickle.cpp interprets the few opcodes that
// a state dict needs and refuses all others. Checked: the archive's structure (no gap is used, no
// overlap, no compression or encryption), the CRC of data.pkl, and that every tensor lies inside
// its storage. Not checked: the CRC of storages, since that would read the whole file before its
// first use (torch does not check it either; docs/decisions/0008-torch-files.md).
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "billm/checkpoint/tensor_file.h"

namespace billm {

// A TensorFileParser. Tensors that share a storage are views of the same bytes. Allocates in
// proportion to the archive's directory and to data.pkl only. Besides damaged files it refuses,
// with a hint what to do: files of torch before 1.6, TorchScript archives, tensors that are not
// contiguous, anything but a plain dict of tensors.
TensorContent parse_torch_file(std::span<const std::byte> bytes, const std::string& file);

}  // namespace billm
