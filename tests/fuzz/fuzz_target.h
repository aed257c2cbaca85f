#pragma once
// The entry that libFuzzer and replay_main.cpp call with one input.

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
