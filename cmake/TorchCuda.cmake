# libbillm_torch_cuda.so: what needs libtorch_cuda (src/torch_cuda/), which the program itself does not
# link; it loads this library, like the CUDA kernels, when a CUDA device is used. Built where there are
# CUDA's headers (cmake/Cuda.cmake) and LibTorch's CUDA side.
set(BILLM_HAS_TORCH_CUDA OFF)
if(NOT BILLM_HAS_CUDA OR NOT EXISTS "${BILLM_TORCH_DIR}/lib/libtorch_cuda.so")
  message(STATUS "CUDA graphs: left out (they need nvcc and LibTorch's CUDA side)")
  return()
endif()
set(BILLM_HAS_TORCH_CUDA ON)
file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/src/torch_cuda/*.cpp")
add_library(billm_torch_cuda SHARED ${sources})
target_include_directories(billm_torch_cuda PRIVATE "${CMAKE_SOURCE_DIR}/include")
target_include_directories(billm_torch_cuda SYSTEM PRIVATE
  ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_link_libraries(billm_torch_cuda PRIVATE billm_torch "${BILLM_TORCH_DIR}/lib/libtorch_cuda.so"
  "${BILLM_TORCH_DIR}/lib/libc10_cuda.so")
set_target_properties(billm_torch_cuda PROPERTIES
  LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}" CXX_VISIBILITY_PRESET hidden)
