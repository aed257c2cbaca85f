#include <gtest/gtest.h>

#include "core/instruction_set.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  shoestring::cap_instruction_set_from_environment();
  return RUN_ALL_TESTS();
}
