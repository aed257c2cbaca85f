#pragma once
// The two crossings of tensor and sequence parallelism in runs of rows (core/row_travel.h), so that
// a product beside a boundary overlaps its transfer. A group of t ranks shares N = t n rows, n
// consecutive ones a rank. Each rank's n rows are cut into k runs of even length; run c of all
// ranks travels at once, by a worker of the group's own:
//
//   gather   x [n, h] -> y [N, h]   k all-gathers. A product behind it begins with this rank's own
//                                   rows while the first run travels
//   scatter  x [N, h] -> y [n, h],  k reduce-scatters. A product in front of it makes run c of all
//            sums over ranks        ranks' rows while run c - 1 travels
//
// Each is the other's adjoint. Bytes and bits are those of parallel/row_ops.h: a sum is a fold in
// the order of ranks, element by element, however the rows are cut. (Cf. arXiv 2406.06858, Flux.)

#include "core/row_travel.h"
#include "parallel/communicator.h"

namespace shoestring {

class RowTransfers {
 public:
  // 1 or more runs. All ranks of `group`, which outlives this, have the same number. A boundary
  // uses the group only between the beginning and the end of a crossing.
  RowTransfers(Communicator& group, Device& device, int runs);

  RowTravel& gather() { return gather_; }
  RowTravel& scatter() { return scatter_; }

 private:
  class Gather : public RowTravel {
   public:
    explicit Gather(RowTransfers& all) : all_(all) {}
    int64_t rows_beyond(int64_t rows) const override;
    int64_t rows_before(int64_t rows) const override;
    void cross(Stream& stream, const Tensor& x, const Tensor& y, const RowWork& work) override;
    void cross_back(Stream& stream, const Tensor& dy, const Tensor& dx,
                    const RowWork& work) override;

   private:
    RowTransfers& all_;
  };
  class Scatter : public RowTravel {
   public:
    explicit Scatter(RowTransfers& all) : all_(all) {}
    int64_t rows_beyond(int64_t rows) const override { return all_.gather_.rows_before(rows); }
    int64_t rows_before(int64_t rows) const override { return all_.gather_.rows_beyond(rows); }
    void cross(Stream& stream, const Tensor& x, const Tensor& y, const RowWork& work) override {
      all_.gather_.cross_back(stream, x, y, work);
    }
    void cross_back(Stream& stream, const Tensor& dy, const Tensor& dx,
                    const RowWork& work) override {
      all_.gather_.cross(stream, dy, dx, work);
    }

   private:
    RowTransfers& all_;
  };

  Communicator& group_;
  int runs_;
  Stream transfers_;
  AbortOnUnwind abort_;
  Gather gather_{*this};
  Scatter scatter_{*this};
};

}  // namespace shoestring
