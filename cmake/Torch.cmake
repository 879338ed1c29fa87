# LibTorch as the target billm_torch (see docs/decisions/0003-libtorch.md).
#
# find_package(Torch) of a CUDA wheel needs nvcc at configure time and links libtorch_cuda into every
# program (0.8 s and 480 MB at start). We link libtorch_cpu and libc10 only; the CUDA side is loaded
# at run time when --device cuda asks for it.
#
# BILLM_TORCH_DIR: the directory that holds include/ and lib/ (".../site-packages/torch" or an
# unpacked LibTorch). tools/setup.sh passes it.
set(BILLM_TORCH_DIR "" CACHE PATH "Directory of torch: holds include/ and lib/")
if(NOT BILLM_TORCH_DIR)
  find_path(BILLM_TORCH_INCLUDE_PARENT include/ATen/ATen.h
    HINTS ENV TORCH_DIR PATHS ${CMAKE_PREFIX_PATH}
    PATH_SUFFIXES . torch libtorch)
  if(BILLM_TORCH_INCLUDE_PARENT)
    set(BILLM_TORCH_DIR "${BILLM_TORCH_INCLUDE_PARENT}" CACHE PATH "" FORCE)
  endif()
endif()
if(NOT EXISTS "${BILLM_TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "LibTorch not found (BILLM_TORCH_DIR='${BILLM_TORCH_DIR}'). Run tools/setup.sh, "
    "or pass -DBILLM_TORCH_DIR=<directory with include/ and lib/libtorch_cpu.so>.")
endif()
if(BILLM_CUDA STREQUAL "ON" AND NOT EXISTS "${BILLM_TORCH_DIR}/lib/libtorch_cuda.so")
  message(FATAL_ERROR "BILLM_CUDA=ON, but ${BILLM_TORCH_DIR} is a CPU-only LibTorch (no "
    "libtorch_cuda.so)")
endif()
add_library(billm_torch INTERFACE)
target_include_directories(billm_torch SYSTEM INTERFACE
  "${BILLM_TORCH_DIR}/include" "${BILLM_TORCH_DIR}/include/torch/csrc/api/include")
target_compile_definitions(billm_torch INTERFACE _GLIBCXX_USE_CXX11_ABI=1)
target_link_libraries(billm_torch INTERFACE
  "${BILLM_TORCH_DIR}/lib/libtorch_cpu.so" "${BILLM_TORCH_DIR}/lib/libc10.so")
# libtorch_cpu.so finds its own neighbours through its RPATH, which the linker does not follow.
target_link_options(billm_torch INTERFACE "-Wl,--allow-shlib-undefined")
message(STATUS "LibTorch: ${BILLM_TORCH_DIR}")
