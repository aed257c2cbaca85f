#include "io/hdf5_file.h"

#include <hdf5.h>

#include <filesystem>
#include <mutex>
#include <type_traits>

#include "core/check.h"
#include "core/text.h"
#include "io/durable_file.h"

namespace shoestring {
namespace {

static_assert(std::is_same_v<hid_t, int64_t>);

// The library keeps process-wide tables: the one mutable global of io/ (see docs/architecture.md).
std::mutex& library_mutex() {
  static std::mutex mutex;
  return mutex;
}

// An open HDF5 object; closes itself. A negative id means that the library refused.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle(hid_t id, Close close, const std::string& path, const std::string& doing)
      : id_(id), close_(close) {
    if (id < 0) fail_data(cat(path, ": HDF5 cannot ", doing));
  }
  ~Handle() { close_(id_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }

 private:
  hid_t id_;
  Close close_;
};

void require(bool ok, const std::string& path, const std::string& doing) {
  if (!ok) fail_data(cat(path, ": HDF5 cannot ", doing));
}

// Sign, exponent and mantissa from the highest bit down; the bias is half of the exponents.
hid_t make_float_type(uint64_t bytes, size_t exponent_bits, size_t mantissa_bits) {
  const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(type, exponent_bits + mantissa_bits, mantissa_bits, exponent_bits, 0,
                mantissa_bits);
  H5Tset_size(type, bytes);
  H5Tset_ebias(type, (size_t{1} << (exponent_bits - 1)) - 1);
  return type;
}

hid_t make_number_type(Hdf5Type type) {
  switch (type) {
    case Hdf5Type::u8:
      return H5Tcopy(H5T_STD_U8LE);
    case Hdf5Type::u16:
      return H5Tcopy(H5T_STD_U16LE);
    case Hdf5Type::u32:
      return H5Tcopy(H5T_STD_U32LE);
    case Hdf5Type::u64:
      return H5Tcopy(H5T_STD_U64LE);
    case Hdf5Type::i8:
      return H5Tcopy(H5T_STD_I8LE);
    case Hdf5Type::i16:
      return H5Tcopy(H5T_STD_I16LE);
    case Hdf5Type::i32:
      return H5Tcopy(H5T_STD_I32LE);
    case Hdf5Type::i64:
      return H5Tcopy(H5T_STD_I64LE);
    case Hdf5Type::f32:
      return H5Tcopy(H5T_IEEE_F32LE);
    case Hdf5Type::f64:
      return H5Tcopy(H5T_IEEE_F64LE);
    case Hdf5Type::f16:
      return make_float_type(2, 5, 10);
    case Hdf5Type::bf16:
      return make_float_type(2, 8, 7);
    case Hdf5Type::f8e5m2:
      return make_float_type(1, 5, 2);
    case Hdf5Type::text:
      break;
  }
  return H5Tcopy(H5T_C_S1);
}

hid_t make_text_type(uint64_t bytes) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, bytes == 0 ? 1 : bytes);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

hid_t make_type(const Hdf5Extent& extent) {
  return extent.type == Hdf5Type::text ? make_text_type(extent.items)
                                       : make_number_type(extent.type);
}

void write_attribute(hid_t object, const std::string& path, const std::string& name, hid_t type,
                     const void* value, hid_t space) {
  const std::string doing = cat("write the attribute ", name);
  const Handle attribute(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT),
                         H5Aclose, path, doing);
  require(H5Awrite(attribute, type, value) >= 0, path, doing);
}

void write_text(hid_t object, const std::string& path, const std::string& name,
                const std::string& value) {
  const Handle type(make_text_type(value.size()), H5Tclose, path, "make a text type");
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose, path, "make a scalar");
  write_attribute(object, path, name, type, value.c_str(), space);
}

// One number as a scalar, several as an array.
void write_numbers(hid_t object, const std::string& path, const std::string& name,
                   const std::vector<int64_t>& values) {
  const hsize_t items = values.size();
  const Handle space(items == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &items, nullptr),
                     H5Sclose, path, "make a list");
  write_attribute(object, path, name, H5T_STD_I64LE, values.data(), space);
}

hid_t make_space(const Hdf5Extent& extent) {
  if (extent.type == Hdf5Type::text) return H5Screate(H5S_SCALAR);
  const std::vector<hsize_t> sizes(extent.shape.begin(), extent.shape.end());
  const hsize_t items = extent.items;
  return sizes.empty() ? H5Screate_simple(1, &items, nullptr)
                       : H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr);
}

uint64_t position_of(hid_t dataset, const std::string& path, const std::string& name) {
  const haddr_t position = H5Dget_offset(dataset);
  require(position != HADDR_UNDEF, path, cat("map the dataset ", name, ": it is not contiguous"));
  return position;
}

// The groups of "a/b/name". The library would make them by itself, with the time in them: the same
// content would not make the same file.
void create_groups(hid_t file, const std::string& path, const std::string& name) {
  const Handle options(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, path, "start a group");
  require(H5Pset_obj_track_times(options, false) >= 0, path, "start a group");
  for (size_t at = name.find('/'); at != std::string::npos; at = name.find('/', at + 1)) {
    const std::string group = name.substr(0, at);
    const std::string doing = cat("create the group ", group);
    const htri_t there = H5Lexists(file, group.c_str(), H5P_DEFAULT);
    require(there >= 0, path, doing);
    if (there > 0) continue;
    const Handle made(H5Gcreate2(file, group.c_str(), H5P_DEFAULT, options, H5P_DEFAULT), H5Gclose,
                      path, doing);
  }
}

void create_dataset(hid_t file, const std::string& path, const std::string& name,
                    Hdf5Extent& extent) {
  const std::string doing = cat("create the dataset ", name);
  const Handle type(make_type(extent), H5Tclose, path, doing);
  const Handle space(make_space(extent), H5Sclose, path, doing);
  create_groups(file, path, name);
  const Handle options(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, path, doing);
  require(H5Pset_layout(options, H5D_CONTIGUOUS) >= 0 &&
              H5Pset_alloc_time(options, H5D_ALLOC_TIME_EARLY) >= 0 &&
              H5Pset_fill_time(options, H5D_FILL_TIME_NEVER) >= 0 &&
              H5Pset_obj_track_times(options, false) >= 0,
          path, doing);
  const Handle dataset(
      H5Dcreate2(file, name.c_str(), type, space, H5P_DEFAULT, options, H5P_DEFAULT), H5Dclose,
      path, doing);
  for (const auto& [key, values] : extent.numbers) write_numbers(dataset, path, key, values);
  for (const auto& [key, value] : extent.texts) write_text(dataset, path, key, value);
  if (extent.items > 0) extent.position = position_of(dataset, path, name);
}

Hdf5Type type_of(hid_t dataset, const std::string& path, const std::string& name) {
  const Handle type(H5Dget_type(dataset), H5Tclose, path, cat("read the type of ", name));
  if (H5Tget_class(type) == H5T_STRING) return Hdf5Type::text;
  for (Hdf5Type candidate : {Hdf5Type::u8, Hdf5Type::u16, Hdf5Type::u32, Hdf5Type::u64}) {
    const Handle wanted(make_number_type(candidate), H5Tclose, path, "make a type");
    if (H5Tequal(type, wanted) > 0) return candidate;
  }
  fail_data(cat(path, ": the dataset ", name, " has an unexpected type"));
}

Hdf5Extent read_extent(hid_t file, const std::string& path, const std::string& name,
                       uint64_t file_bytes) {
  const Handle dataset(H5Dopen2(file, name.c_str(), H5P_DEFAULT), H5Dclose, path,
                       cat("open the dataset ", name));
  Hdf5Extent extent{.type = type_of(dataset, path, name)};
  if (extent.type == Hdf5Type::text) {
    const Handle type(H5Dget_type(dataset), H5Tclose, path, "read a type");
    require(H5Tis_variable_str(type) == 0, path, cat("use the variable-length text ", name));
    extent.items = H5Tget_size(type);
  } else {
    const Handle space(H5Dget_space(dataset), H5Sclose, path, cat("read the shape of ", name));
    require(H5Sget_simple_extent_ndims(space) == 1, path, cat("use the shape of ", name));
    extent.items = static_cast<uint64_t>(H5Sget_simple_extent_npoints(space));
  }
  if (extent.items == 0) return extent;
  extent.position = position_of(dataset, path, name);
  if (extent.items > file_bytes || extent.position > file_bytes ||
      extent.bytes() > file_bytes - extent.position) {
    fail_data(cat(path, ": the dataset ", name, " reaches past the end of the file (",
                  extent.position + extent.bytes(), " > ", file_bytes,
                  " bytes): the file is truncated"));
  }
  return extent;
}

herr_t read_attribute(hid_t file, const char* name, const H5A_info_t*, void* to) {
  auto& layout = *static_cast<Hdf5Layout*>(to);
  const hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
  if (attribute < 0) return -1;
  const hid_t type = H5Aget_type(attribute);
  herr_t status = -1;
  if (H5Tget_class(type) == H5T_INTEGER) {
    status = H5Aread(attribute, H5T_NATIVE_INT64, &layout.numbers[name]);
  } else if (H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0) {
    std::string text(H5Tget_size(type), '\0');
    status = H5Aread(attribute, type, text.data());
    text.resize(text.find_last_not_of('\0') + 1);
    layout.texts[name] = text;
  }
  H5Tclose(type);
  H5Aclose(attribute);
  return status;
}

}  // namespace

uint64_t hdf5_item_bytes(Hdf5Type type) {
  switch (type) {
    case Hdf5Type::u16:
    case Hdf5Type::i16:
    case Hdf5Type::f16:
    case Hdf5Type::bf16:
      return 2;
    case Hdf5Type::u32:
    case Hdf5Type::i32:
    case Hdf5Type::f32:
      return 4;
    case Hdf5Type::u64:
    case Hdf5Type::i64:
    case Hdf5Type::f64:
      return 8;
    case Hdf5Type::i8:
    case Hdf5Type::f8e5m2:
    case Hdf5Type::u8:
    case Hdf5Type::text:
      break;
  }
  return 1;
}

void write_hdf5_layout(const std::string& path, Hdf5Layout& layout) {
  std::lock_guard lock(library_mutex());
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  const Handle create(H5Pcreate(H5P_FILE_CREATE), H5Pclose, path, "start");
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, path, "start");
  // Objects of a kilobyte or more start on a page, so that mapped arrays are aligned.
  require(H5Pset_userblock(create, layout.user_block) >= 0 &&
              H5Pset_alignment(access, 1024, 4096) >= 0 &&
              H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_LATEST) >= 0 &&
              H5Pset_obj_track_times(create, false) >= 0,
          path, "set up the file");
  const Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, create, access), H5Fclose, path,
                    "create the file");
  for (auto& [name, extent] : layout.datasets) create_dataset(file, path, name, extent);
  for (const auto& [name, value] : layout.texts) write_text(file, path, name, value);
  for (const auto& [name, value] : layout.numbers) write_numbers(file, path, name, {value});
  require(H5Fflush(file, H5F_SCOPE_GLOBAL) >= 0, path,
          cat("write the file; if the disk is full, free some space", run_again));
}

Hdf5Layout read_hdf5_layout(const std::string& path, const std::vector<std::string>& datasets) {
  std::lock_guard lock(library_mutex());
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  std::error_code error;
  const uint64_t file_bytes = std::filesystem::file_size(path, error);
  if (error) fail_data(cat("cannot open ", path, ": ", error.message()));
  const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose, path,
                    "open the file: it is damaged or not an HDF5 file");
  Hdf5Layout layout;
  for (const std::string& name : datasets) {
    layout.datasets[name] = read_extent(file, path, name, file_bytes);
  }
  hsize_t next = 0;
  require(H5Aiterate2(file, H5_INDEX_NAME, H5_ITER_INC, &next, read_attribute, &layout) >= 0, path,
          "read the attributes");
  return layout;
}

}  // namespace shoestring
