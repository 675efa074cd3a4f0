# Builds `llama-server` and what it needs, but none of llama.cpp's other programs: these take half of the build.
# CMake includes this file in `project(llama.cpp)`, before there are targets; so the work is deferred to the end.

function(exclude_other_targets folder)
  get_property(targets DIRECTORY ${folder} PROPERTY BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(type ${target} TYPE)
    if(type MATCHES "EXECUTABLE|_LIBRARY" AND NOT target STREQUAL "llama-server")
      set_target_properties(${target} PROPERTIES EXCLUDE_FROM_ALL ON)
    endif()
  endforeach()
  get_property(subfolders DIRECTORY ${folder} PROPERTY SUBDIRECTORIES)
  foreach(subfolder IN LISTS subfolders)
    exclude_other_targets(${subfolder})
  endforeach()
endfunction()

cmake_language(DEFER DIRECTORY ${CMAKE_SOURCE_DIR} CALL exclude_other_targets ${CMAKE_SOURCE_DIR})
