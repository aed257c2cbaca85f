#pragma once
// An edge without ranks, for tests of products beside edges: the matrix that adds row i + n / 2 to
// row i, n even, and its adjoint, which doubles rows. Works in runs of 3 rows, backwards.

#include <algorithm>
#include <cstring>

#include "core/dtype.h"
#include "core/row_travel.h"

namespace shoestring::testing {

class HalvingTravel : public RowTravel {
 public:
  int64_t rows_beyond(int64_t rows) const override { return rows / 2; }
  int64_t rows_before(int64_t rows) const override { return rows * 2; }
  void cross(Stream& stream, const Tensor& x, const Tensor& y, const RowWork& work) override {
    const int64_t n = y.rows();
    Tensor all = x;
    if (work.make) {
      all = Tensor(stream.device(), {2 * n, y.columns()}, y.dtype());
      runs(2 * n, [&](int64_t b, int64_t e) { work.make(b, all.rows(b, e)); });
    }
    add(all.rows(0, n), all.rows(n, 2 * n), y);
    if (work.arrived) runs(n, work.arrived);
  }
  void cross_back(Stream& stream, const Tensor& dy, const Tensor& dx,
                  const RowWork& work) override {
    const int64_t n = dx.rows() / 2;
    Tensor half = dy;
    if (work.make) {
      half = Tensor(stream.device(), {n, dx.columns()}, dx.dtype());
      runs(n, [&](int64_t b, int64_t e) { work.make(b, half.rows(b, e)); });
    }
    std::memcpy(dx.rows(0, n).raw(), half.raw(), half.bytes());
    std::memcpy(dx.rows(n, 2 * n).raw(), half.raw(), half.bytes());
    if (work.arrived) runs(2 * n, work.arrived);
  }

 private:
  template <class F>
  static void runs(int64_t rows, F f) {
    for (int64_t end = rows; end > 0; end -= 3) f(std::max<int64_t>(0, end - 3), end);
  }
  static void add(const Tensor& a, const Tensor& b, const Tensor& sum) {
    dispatch_float(sum.dtype(), [&]<class T>() {
      for (size_t i = 0; i < sum.span<T>().size(); ++i) {
        sum.span<T>()[i] =
            T(static_cast<float>(a.span<T>()[i]) + static_cast<float>(b.span<T>()[i]));
      }
    });
  }
};

}  // namespace shoestring::testing
