// The globals that the pickle of a state dict may name, and what they mean to
// state_dict_pickle.cpp. No other one is looked up, and none is called.
#pragma once

#include <cstdint>

#include "billm/checkpoint/dtype.h"

namespace billm {

enum class Meaning : uint8_t {
  kOrderedDict,       // ()
  kRebuildTensor,     // (storage, offset, size, stride, requires_grad, hooks)
  kRebuildTensorV3,   // the same, then the dtype: of types that have no storage class
  kRebuildParameter,  // (tensor, requires_grad, hooks)
  kStorage,           // a storage class: names the dtype of its elements
  kUntypedStorage,    // counted in bytes
  kDType,
};

struct Global {
  const char* name;  // module.name
  Meaning meaning;
  DType dtype;  // of kStorage and kDType; kUntypedStorage: of bytes
};

inline constexpr Global kGlobals[] = {
    {"collections.OrderedDict", Meaning::kOrderedDict, DType::U8},
    {"torch._utils._rebuild_tensor_v2", Meaning::kRebuildTensor, DType::U8},
    {"torch._utils._rebuild_tensor_v3", Meaning::kRebuildTensorV3, DType::U8},
    {"torch._utils._rebuild_parameter", Meaning::kRebuildParameter, DType::U8},
    {"torch.storage.UntypedStorage", Meaning::kUntypedStorage, DType::U8},
    {"torch.BoolStorage", Meaning::kStorage, DType::BOOL},
    {"torch.ByteStorage", Meaning::kStorage, DType::U8},
    {"torch.CharStorage", Meaning::kStorage, DType::I8},
    {"torch.ShortStorage", Meaning::kStorage, DType::I16},
    {"torch.IntStorage", Meaning::kStorage, DType::I32},
    {"torch.LongStorage", Meaning::kStorage, DType::I64},
    {"torch.HalfStorage", Meaning::kStorage, DType::F16},
    {"torch.BFloat16Storage", Meaning::kStorage, DType::BF16},
    {"torch.FloatStorage", Meaning::kStorage, DType::F32},
    {"torch.DoubleStorage", Meaning::kStorage, DType::F64},
    {"torch.ComplexFloatStorage", Meaning::kStorage, DType::C64},
    {"torch.uint16", Meaning::kDType, DType::U16},
    {"torch.uint32", Meaning::kDType, DType::U32},
    {"torch.uint64", Meaning::kDType, DType::U64},
    {"torch.float8_e4m3fn", Meaning::kDType, DType::F8_E4M3},
    {"torch.float8_e5m2", Meaning::kDType, DType::F8_E5M2},
    {"torch.float8_e8m0fnu", Meaning::kDType, DType::F8_E8M0},
    {"torch.float8_e4m3fnuz", Meaning::kDType, DType::F8_E4M3FNUZ},
    {"torch.float8_e5m2fnuz", Meaning::kDType, DType::F8_E5M2FNUZ},
};

}  // namespace billm
