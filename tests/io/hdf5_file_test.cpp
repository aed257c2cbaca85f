#include "io/hdf5_file.h"

#include <chrono>
#include <cstring>
#include <thread>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

Hdf5Layout some_layout() {
  Hdf5Layout layout;
  layout.user_block = 4096;
  layout.datasets = {{"bytes", {.type = Hdf5Type::u8, .items = 7}},
                     {"ids", {.type = Hdf5Type::u16, .items = 5000}},
                     {"wide", {.type = Hdf5Type::u32, .items = 3}},
                     {"offsets", {.type = Hdf5Type::u64, .items = 1}},
                     {"note", {.type = Hdf5Type::text, .items = 11}}};
  layout.texts = {{"name", "gr\xc3\xbc\xc3\x9f"}, {"nothing", ""}};
  layout.numbers = {{"count", -5}, {"large", int64_t{1} << 60}};
  return layout;
}

TEST(Hdf5File, ReadsTheLayoutItWrote) {
  ScratchFolder folder;
  Hdf5Layout written = some_layout();
  write_hdf5_layout(folder / "a.h5", written);
  const Hdf5Layout read =
      read_hdf5_layout(folder / "a.h5", {"bytes", "ids", "wide", "offsets", "note"});
  for (const auto& [name, extent] : written.datasets) {
    const Hdf5Extent& got = read.datasets.at(name);
    EXPECT_EQ(got.type, extent.type) << name;
    EXPECT_EQ(got.items, extent.items) << name;
    EXPECT_EQ(got.position, extent.position) << name;
    EXPECT_GE(got.position, 4096u) << name;
  }
  EXPECT_EQ(read.datasets.at("ids").position % 4096, 0u);
  EXPECT_EQ(read.texts, written.texts);
  EXPECT_EQ(read.numbers, written.numbers);
}

TEST(Hdf5File, SameLayoutSameBytes) {
  ScratchFolder folder;
  Hdf5Layout layout = some_layout();
  layout.datasets["group/inner/values"] = {.type = Hdf5Type::u8, .items = 4};
  layout.datasets["group/more"] = {.type = Hdf5Type::u8, .items = 4};
  write_hdf5_layout(folder / "a.h5", layout);
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // times in files are in seconds
  write_hdf5_layout(folder / "b.h5", layout);
  EXPECT_TRUE(read_file(folder / "a.h5") == read_file(folder / "b.h5"));
}

TEST(Hdf5File, NamesWhatIsWrong) {
  ScratchFolder folder;
  Hdf5Layout layout = some_layout();
  write_hdf5_layout(folder / "a.h5", layout);
  expect_error(ExitCode::data, {"a.h5", "cannot open the dataset absent"},
               [&] { read_hdf5_layout(folder / "a.h5", {"absent"}); });
  expect_error(ExitCode::data, {"missing.h5"},
               [&] { read_hdf5_layout(folder / "missing.h5", {}); });
  write_file(folder / "text", "not hdf5");
  expect_error(ExitCode::data, {"not an HDF5 file"},
               [&] { read_hdf5_layout(folder / "text", {}); });
  expect_error(ExitCode::data, {"cannot create the file"},
               [&] { write_hdf5_layout(folder / "no/where.h5", layout); });
}

}  // namespace
}  // namespace shoestring
