#pragma once
#include "region_trainable.h"
namespace billm {
using LayerTrainable = RegionTrainable;
}
