# The CUDA kernels: libbillm_cuda.so beside the program, which loads it when a CUDA device is used
# (kernels/cuda/cuda_api.h).
#
# BILLM_CUDA: AUTO builds it if there is an nvcc, ON fails without one (preset cuda), OFF leaves it
# out. A compiler elsewhere: -DCMAKE_CUDA_COMPILER=<nvcc>.
set(BILLM_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO (if there is an nvcc), ON, OFF")
set_property(CACHE BILLM_CUDA PROPERTY STRINGS AUTO ON OFF)
# SASS for every GPU from the A100 on (that of sm_80 runs on sm_86, 87 and 89, too), all of it from the PTX of
# the oldest, which is in the library for those to come. One PTX, since no kernel asks for an architecture's
# own: nvcc's front end runs once, and the code of sm_100 and 120 has a quarter less instructions than from
# theirs (gemv.cu; sm_90's is the same).
set(BILLM_CUDA_ARCHITECTURES 80 90 100 120)
list(GET BILLM_CUDA_ARCHITECTURES 0 oldest)
list(JOIN BILLM_CUDA_ARCHITECTURES ",sm_" machines)
set(BILLM_CUDA_OPTIONS
  "--generate-code=arch=compute_${oldest},code=[compute_${oldest},sm_${machines}]")
set(BILLM_HAS_CUDA OFF)
if(BILLM_CUDA STREQUAL "OFF")
  return()
endif()
set(CMAKE_CUDA_ARCHITECTURES OFF)  # the project chooses them, not the machine that builds
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(NOT BILLM_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "BILLM_CUDA=${BILLM_CUDA}, but there is no nvcc: install CUDA 13, or pass "
      "-DCMAKE_CUDA_COMPILER=<nvcc>, or -DBILLM_CUDA=OFF")
  endif()
  message(STATUS "CUDA kernels: left out (no nvcc)")
  return()
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13.0)
  if(NOT BILLM_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "${CMAKE_CUDA_COMPILER} is CUDA ${CMAKE_CUDA_COMPILER_VERSION}: 13.0 or "
      "newer is needed")
  endif()
  message(STATUS "CUDA kernels: left out (nvcc ${CMAKE_CUDA_COMPILER_VERSION}, 13.0 is needed)")
  return()
endif()
# CMake 3.25 does not know nvcc's flag for C++20.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
if(CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER "${CCACHE}")
endif()
set(BILLM_HAS_CUDA ON)
message(STATUS "CUDA kernels: ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION}")
