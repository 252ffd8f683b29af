# One target a room: all sources of its folder, the project's warnings, and the rooms and libraries that it may use.
include_guard()

add_library(weft_options INTERFACE)
target_include_directories(weft_options INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/generated)
target_compile_options(weft_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>)
if(WEFT_WERROR)
  target_compile_options(weft_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Werror> $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
endif()
if(WEFT_SANITIZE)
  target_compile_options(weft_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${WEFT_SANITIZE} -fno-omit-frame-pointer>
    # GCC reports the standard library's own std::regex when it is instrumented.
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-maybe-uninitialized>)
  target_link_options(weft_options INTERFACE -fsanitize=${WEFT_SANITIZE})
endif()

# weft_room(NAME [USES targets...] [PRIVATE targets...] [EXCLUDE regex])
function(weft_room name)
  cmake_parse_arguments(ARG "" "EXCLUDE" "USES;PRIVATE" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  if(ARG_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX ${ARG_EXCLUDE})
  endif()
  add_library(${name} OBJECT ${sources})
  target_link_libraries(${name} PUBLIC weft_options ${ARG_USES} PRIVATE ${ARG_PRIVATE})
  set_property(GLOBAL APPEND PROPERTY WEFT_ROOMS ${name})
endfunction()
