# libbillm_parquet.so: Arrow's parquet reader (see docs/decisions/0010-hub.md). The program does not link
# it, but loads it when it reads a parquet file (include/billm/hub/parquet_library.h).
#
# PyPI's pyarrow carries libarrow and libparquet with their C++ headers, built like LibTorch's wheel
# (C++11 ABI, everything else hidden), so it sits in the same virtual environment and needs no
# package source of its own.
#
# BILLM_ARROW_DIR: the directory that holds include/ and libarrow.so* (".../site-packages/pyarrow"),
# or an installation of Arrow (include/ and lib/). Without it pyarrow is looked for in BILLM_PYTHON
# and in the environment that tools/setup.sh makes.
set(BILLM_ARROW_DIR "" CACHE PATH "Directory of pyarrow or of an Arrow installation: holds include/")
if(NOT BILLM_ARROW_DIR)
  set(arrow_places "")
  if(BILLM_PYTHON)
    execute_process(COMMAND "${BILLM_PYTHON}" -c
      "import importlib.util as u; s = u.find_spec('pyarrow'); print(s.submodule_search_locations[0] if s else '')"
      OUTPUT_VARIABLE arrow_places OUTPUT_STRIP_TRAILING_WHITESPACE)
  endif()
  set(arrow_cache "$ENV{XDG_CACHE_HOME}")
  if(NOT arrow_cache)
    set(arrow_cache "$ENV{HOME}/.cache")
  endif()
  file(GLOB arrow_default "${arrow_cache}/billm/venv*/lib/python3*/site-packages/pyarrow")
  foreach(place ${arrow_places} ${arrow_default})
    if(NOT BILLM_ARROW_DIR AND EXISTS "${place}/include/parquet/arrow/reader.h")
      set(BILLM_ARROW_DIR "${place}" CACHE PATH "" FORCE)
    endif()
  endforeach()
endif()
# Wheels have the full version in the file name and no plain .so; either will do.
file(GLOB arrow_library "${BILLM_ARROW_DIR}/libarrow.so*" "${BILLM_ARROW_DIR}/lib/libarrow.so*")
file(GLOB parquet_library "${BILLM_ARROW_DIR}/libparquet.so*" "${BILLM_ARROW_DIR}/lib/libparquet.so*")
if(NOT arrow_library OR NOT parquet_library
    OR NOT EXISTS "${BILLM_ARROW_DIR}/include/parquet/arrow/reader.h")
  message(FATAL_ERROR "Arrow not found (BILLM_ARROW_DIR='${BILLM_ARROW_DIR}'). Run tools/setup.sh, or "
    "pass -DBILLM_ARROW_DIR=<site-packages/pyarrow> or -DBILLM_PYTHON=<a Python that has pyarrow>.")
endif()
list(GET arrow_library 0 arrow_library)
list(GET parquet_library 0 parquet_library)
add_library(billm_arrow INTERFACE)
target_include_directories(billm_arrow SYSTEM INTERFACE "${BILLM_ARROW_DIR}/include")
target_link_libraries(billm_arrow INTERFACE "${parquet_library}" "${arrow_library}")
add_library(billm_parquet SHARED src/parquet/parquet_library.cpp)
target_include_directories(billm_parquet PRIVATE "${CMAKE_SOURCE_DIR}/include")
target_link_libraries(billm_parquet PRIVATE billm_base billm_arrow)
target_compile_options(billm_parquet PRIVATE "${compiled_quickly}")
target_link_options(billm_parquet PRIVATE LINKER:--no-undefined)
set_target_properties(billm_parquet PROPERTIES
  LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}" CXX_VISIBILITY_PRESET hidden)
message(STATUS "Arrow: ${BILLM_ARROW_DIR}")
