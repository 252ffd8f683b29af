# Debian 12's packages are the baseline. What is missing is fetched at a pinned version (WEFT_FETCH, for clusters without
# root or apt); MPI must be there, or left out (WEFT_MPI), as oneDNN may be (WEFT_DNNL) where its bf16 products are not
# wanted. sentencepiece may be missing (then there are no subword tokenizers).
include_guard()
include(FetchContent)
include(ExternalProject)

option(WEFT_FETCH "Fetch missing dependencies at pinned versions" ON)
set(WEFT_ARCHIVES "" CACHE PATH "Folder of NAME-FILE archives that are taken in place of a download (dnnl-v2.7.5.tar.gz, ...)")

find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(Threads REQUIRED)

set(WEFT_MPI ON CACHE STRING "Ranks by MPI: ON, OFF (one rank alone), or AUTO where MPI is found")
set(WEFT_DNNL ON CACHE STRING "bf16 products by oneDNN on processors with bf16 units: ON, OFF, or AUTO where it is found")
set_property(CACHE WEFT_MPI WEFT_DNNL PROPERTY STRINGS AUTO ON OFF)
set(WEFT_HAS_MPI OFF)
if(WEFT_MPI STREQUAL "AUTO")
  find_package(MPI QUIET COMPONENTS C)
elseif(WEFT_MPI)
  find_package(MPI REQUIRED COMPONENTS C)
endif()
if(TARGET MPI::MPI_C)
  set(WEFT_HAS_MPI ON)
else()
  message(STATUS "MPI is left out: Weft is built for one rank")
endif()

# weft_archive(OUT NAME url): the archive in WEFT_ARCHIVES where it lies there, else the address.
function(weft_archive out name url)
  get_filename_component(file ${url} NAME)
  if(WEFT_ARCHIVES AND EXISTS ${WEFT_ARCHIVES}/${name}-${file})
    set(url ${WEFT_ARCHIVES}/${name}-${file})
  endif()
  set(${out} ${url} PARENT_SCOPE)
endfunction()

# weft_dependency(NAME URL url [FIND arguments of find_package...]): the system's package, else the pinned release, which later
# calls of find_package(NAME) then find too.
macro(weft_dependency name)
  cmake_parse_arguments(WEFT_DEPENDENCY "" "URL" "FIND" ${ARGN})
  if(WEFT_FETCH)
    weft_archive(WEFT_DEPENDENCY_URL ${name} ${WEFT_DEPENDENCY_URL})
    FetchContent_Declare(${name} SYSTEM URL ${WEFT_DEPENDENCY_URL} FIND_PACKAGE_ARGS QUIET ${WEFT_DEPENDENCY_FIND})
    FetchContent_MakeAvailable(${name})
    if(NOT ${name}_FOUND)
      message(STATUS "${name}: not on this system, built from ${WEFT_DEPENDENCY_URL}")
    endif()
  else()
    find_package(${name} REQUIRED ${WEFT_DEPENDENCY_FIND})
  endif()
endmacro()

# Settings of what may be built here; they do nothing where the system has the package.
set(SPDLOG_FMT_EXTERNAL ON CACHE INTERNAL "")
set(JSON_BuildTests OFF CACHE INTERNAL "")
set(DNNL_BUILD_TESTS OFF CACHE INTERNAL "")
set(DNNL_BUILD_EXAMPLES OFF CACHE INTERNAL "")
set(DNNL_GPU_RUNTIME NONE CACHE INTERNAL "")
set(DNNL_ENABLE_PRIMITIVE "MATMUL;INNER_PRODUCT;REORDER;ELTWISE;BINARY" CACHE INTERNAL "")
set(BOOST_INCLUDE_LIBRARIES program_options iostreams context CACHE INTERNAL "")
set(BOOST_ENABLE_CMAKE ON CACHE INTERNAL "")

weft_dependency(fmt URL https://github.com/fmtlib/fmt/archive/refs/tags/9.1.0.tar.gz)
weft_dependency(spdlog URL https://github.com/gabime/spdlog/archive/refs/tags/v1.11.0.tar.gz)
weft_dependency(nlohmann_json URL https://github.com/nlohmann/json/archive/refs/tags/v3.11.2.tar.gz)
if(WEFT_DNNL STREQUAL "AUTO")
  find_package(dnnl QUIET CONFIG)
elseif(WEFT_DNNL)
  weft_dependency(dnnl URL https://github.com/oneapi-src/oneDNN/archive/refs/tags/v2.7.5.tar.gz FIND CONFIG)
endif()
weft_dependency(Boost URL https://github.com/boostorg/boost/releases/download/boost-1.84.0/boost-1.84.0.tar.xz
  FIND COMPONENTS program_options iostreams)
if(WEFT_TESTS)
  if(NOT TARGET Boost::context)
    find_package(Boost QUIET COMPONENTS context)
  endif()
  weft_dependency(GTest URL https://github.com/google/googletest/archive/refs/tags/v1.14.0.tar.gz)
endif()
if(TARGET dnnl AND NOT TARGET DNNL::dnnl)
  add_library(DNNL::dnnl ALIAS dnnl)
endif()
set(WEFT_HAS_DNNL OFF)
if(TARGET DNNL::dnnl)
  set(WEFT_HAS_DNNL ON)
else()
  message(STATUS "oneDNN is left out: the CPU's bf16 products are vector kernels")
endif()

find_package(PkgConfig)
if(PKG_CONFIG_FOUND)
  pkg_check_modules(hwloc IMPORTED_TARGET hwloc)
  pkg_check_modules(sentencepiece IMPORTED_TARGET sentencepiece)
endif()
if(NOT TARGET PkgConfig::hwloc)
  if(NOT WEFT_FETCH)
    message(FATAL_ERROR "hwloc was not found, and WEFT_FETCH is OFF")
  endif()
  # hwloc has no CMake build.
  set(hwloc_prefix ${CMAKE_BINARY_DIR}/_deps/hwloc)
  weft_archive(hwloc_url hwloc https://download.open-mpi.org/release/hwloc/v2.9/hwloc-2.9.3.tar.gz)
  ExternalProject_Add(hwloc_build PREFIX ${hwloc_prefix}
    URL ${hwloc_url}
    CONFIGURE_COMMAND <SOURCE_DIR>/configure --prefix=<INSTALL_DIR> --enable-static --disable-shared --with-pic
      --disable-cairo --disable-libxml2 --disable-io --disable-libudev --disable-doxygen
    BUILD_COMMAND make
    INSTALL_COMMAND make install
    BUILD_BYPRODUCTS ${hwloc_prefix}/lib/libhwloc.a)
  file(MAKE_DIRECTORY ${hwloc_prefix}/include)
  add_library(PkgConfig::hwloc STATIC IMPORTED GLOBAL)
  set_target_properties(PkgConfig::hwloc PROPERTIES IMPORTED_LOCATION ${hwloc_prefix}/lib/libhwloc.a
    INTERFACE_INCLUDE_DIRECTORIES ${hwloc_prefix}/include)
  add_dependencies(PkgConfig::hwloc hwloc_build)
endif()
