/* SchNet over the pairs of one process: energies of its atoms and their derivatives by the distances of its pairs.
 *
 * Rows of features are those of the process's own atoms, followed by those of its ghosts. Each pair of atoms is in one
 * process. In each interaction, features of ghosts are copied from their owners, and sums over neighbors that arose at
 * ghosts are added to those of their owners; backward, the same with gradients. Filters come from spline tables.
 */
#pragma once
#include "dense.h"
#include "kernels.h"
#include "model_file.h"
#include <cmath>
#include <memory>

/* Exchange of rows with the processes that own the ghosts. */
struct Exchange {
    virtual void copy_to_ghosts(void *rows) = 0;
    virtual void add_to_owners(void *rows) = 0;

  protected:
    ~Exchange() = default;
};

struct Pairs {
    std::vector<int64_t> first, second;
    std::vector<double> distance;    // Å
};

class Network {
  public:
    const int64_t row_bytes;    // of the rows that are exchanged

    virtual ~Network() = default;
    /* Allocates memory for as many atoms, ghosts and pairs; throws std::bad_alloc. */
    virtual void resize(int64_t atoms, int64_t ghosts, int64_t pairs) = 0;
    /* Computes energies of the atoms in eV, and their derivatives by distances in eV/Å.
     *
     * element: row of each atom in the tables of elements; -1 for atoms that are not of the model
     */
    virtual void evaluate(const int *element, const Pairs &pairs, Exchange &exchange, double *energy,
                          double *slope) = 0;
    /* Adds a row that came from another process. */
    virtual void add_row(void *row, const void *other) const = 0;
    virtual double memory_usage() const = 0;

  protected:
    explicit Network(int64_t row_bytes) : row_bytes(row_bytes) {}
};

template <class Real> class SchNet final : public Network {
  public:
    explicit SchNet(const ModelFile &file) :
        Network(file.columns("interactions.0.table") * static_cast<int64_t>(sizeof(Real))),
        features(file.columns("embedding")), filters(file.columns("interactions.0.table")),
        hidden(file.rows("readout.0.weight")), knots(file.rows("interactions.0.table")),
        spacing(file.header.at("spacing")),
        embedding(file.tensor<Real>("embedding", {file.rows("embedding"), features})),
        atom_energy(file.tensor<double>("atom_energy", {file.rows("embedding")})),
        scale(file.header.at("scale")), readout1(file, "readout.0", hidden, features, true),
        readout2(file, "readout.1", 1, hidden, true)
    {
        const std::string name = file.header.at("activation");
        activation = name == "silu" ? SILU : name == "tanh" ? TANH : SHIFTED_SOFTPLUS;
        for (int64_t k = 0; k < file.header.at("interactions").get<int64_t>(); k++) {
            const std::string block = "interactions." + std::to_string(k);
            blocks.push_back({Dense(file, block + ".atomwise1", filters, features, false),
                              Dense(file, block + ".atomwise2", features, filters, true),
                              Dense(file, block + ".atomwise3", features, features, true),
                              file.tensor<Real>(block + ".table", {knots, filters}),
                              {},
                              {}});
        }
    }

    void resize(int64_t own, int64_t ghosts, int64_t pairs) override
    {
        atoms = own, sites = own + ghosts;
        const int64_t widest = features > filters ? features : filters;
        for (Block &block : blocks) {
            grow(block.y, sites * filters);
            grow(block.h, atoms * features);
        }
        grow(x, atoms * features);
        grow(rows, sites * filters);
        grow(to_y, sites * filters);
        grow(work, atoms * widest);
        grow(inner, atoms * hidden);
        grow(distance, pairs);
        grow(slopes, pairs);
    }

    void evaluate(const int *element, const Pairs &pairs, Exchange &exchange, double *energy, double *slope) override
    {
        const int64_t count = static_cast<int64_t>(pairs.distance.size());
        for (int64_t p = 0; p < count; p++) distance[p] = static_cast<Real>(pairs.distance[p]), slope[p] = 0;
        for (int64_t i = 0; i < atoms; i++)
            for (int64_t c = 0; c < features; c++)
                x[i * features + c] = element[i] < 0 ? 0 : embedding[element[i] * features + c];
        for (Block &block : blocks) forward(block, pairs, exchange);
        read_out(element, energy);
        for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
            backward(*block, pairs, exchange);
            for (int64_t p = 0; p < count; p++) slope[p] += slopes[p];
        }
    }

    void add_row(void *row, const void *other) const override
    {
        Real value;
        for (int64_t c = 0; c < filters; c++) {
            std::memcpy(&value, static_cast<const char *>(other) + c * sizeof(Real), sizeof(Real));
            static_cast<Real *>(row)[c] += value;
        }
    }

    double memory_usage() const override
    {
        size_t numbers = x.size() + rows.size() + to_y.size() + work.size() + inner.size() + distance.size() + slopes.size();
        for (const Block &block : blocks) numbers += block.y.size() + block.h.size();
        return static_cast<double>(numbers * sizeof(Real));
    }

  private:
    using Rows = std::vector<Real>;

    /* A dense layer, out = in weightᵀ + bias, with its matrix in both orders. */
    struct Dense {
        int64_t outputs, inputs;
        Rows weight, transposed, bias;

        Dense(const ModelFile &file, const std::string &name, int64_t outputs, int64_t inputs, bool has_bias) :
            outputs(outputs), inputs(inputs), weight(file.tensor<Real>(name + ".weight", {outputs, inputs})),
            transposed(weight.size())
        {
            if (has_bias) bias = file.tensor<Real>(name + ".bias", {outputs});
            for (int64_t r = 0; r < outputs; r++)
                for (int64_t c = 0; c < inputs; c++) transposed[c * outputs + r] = weight[r * inputs + c];
        }
        void forward(int64_t rows, const Rows &in, Rows &out, bool add = false) const
        {
            multiply(rows, inputs, outputs, in.data(), transposed.data(), bias.empty() ? nullptr : bias.data(),
                     out.data(), add);
        }
        void backward(int64_t rows, const Rows &gradient, Rows &out, bool add = false) const
        {
            multiply<Real>(rows, outputs, inputs, gradient.data(), weight.data(), nullptr, out.data(), add);
        }
    };

    struct Block {
        Dense atomwise1, atomwise2, atomwise3;
        Rows table;
        Rows y, h;    // features that are convolved, (sites, filters); input of the activation, (atoms, features)
    };

    int64_t features, filters, hidden, knots;
    double spacing;
    enum { SHIFTED_SOFTPLUS, SILU, TANH } activation;    // of the readout
    Rows embedding;
    std::vector<double> atom_energy;    // eV, by element
    double scale;                       // eV
    Dense readout1, readout2;
    std::vector<Block> blocks;
    int64_t atoms = 0, sites = 0;
    Rows x, rows, to_y, work, inner, distance, slopes;    // x: features, and later their gradients

    static void grow(Rows &values, int64_t count)
    {
        if (static_cast<int64_t>(values.size()) < count) values.resize(count + count / 10);
    }

    typename Kernels<Real>::Convolution convolution(const Block &block, const Pairs &pairs) const
    {
        typename Kernels<Real>::Convolution made = {};
        made.pairs = static_cast<int64_t>(pairs.first.size());
        made.atoms = sites, made.knots = knots, made.channels = filters, made.threads = 1, made.checked = 1;
        made.first = pairs.first.data(), made.second = pairs.second.data();
        made.distance = distance.data(), made.table = block.table.data();
        made.origin = 0, made.inverse = 1 / spacing;
        return made;
    }

    void forward(Block &block, const Pairs &pairs, Exchange &exchange)
    {
        const auto convolution = this->convolution(block, pairs);
        block.atomwise1.forward(atoms, x, block.y);
        exchange.copy_to_ghosts(block.y.data());
        Kernels<Real>::convolve(&convolution, block.y.data(), rows.data());
        exchange.add_to_owners(rows.data());
        block.atomwise2.forward(atoms, rows, block.h);
        Kernels<Real>::ssp(block.h.data(), atoms * features, work.data());
        block.atomwise3.forward(atoms, work, x, true);
    }

    /* Turns the gradient by features after an interaction into that before it. */
    void backward(Block &block, const Pairs &pairs, Exchange &exchange)
    {
        const auto convolution = this->convolution(block, pairs);
        block.atomwise3.backward(atoms, x, work);
        Kernels<Real>::ssp_backward(work.data(), block.h.data(), atoms * features, block.h.data());
        block.atomwise2.backward(atoms, block.h, rows);
        exchange.copy_to_ghosts(rows.data());
        Kernels<Real>::convolve_backward(&convolution, rows.data(), block.y.data(), to_y.data(), slopes.data(),
                                         nullptr);
        exchange.add_to_owners(to_y.data());
        block.atomwise1.backward(atoms, to_y, x, true);
    }

    /* Computes energies from the features, and replaces the features by the gradients of the energies. */
    void read_out(const int *element, double *energy)
    {
        readout1.forward(atoms, x, inner);
        for (int64_t i = 0; i < atoms; i++) {
            double out = readout2.bias[0];
            for (int64_t c = 0; c < hidden; c++) {
                Real &value = inner[i * hidden + c];
                const auto [act, by_value] = activate(value);
                out += static_cast<double>(readout2.weight[c]) * act;
                value = element[i] < 0 ? 0 : static_cast<Real>(scale * readout2.weight[c] * by_value);
            }
            energy[i] = element[i] < 0 ? 0 : scale * out + atom_energy[element[i]];
        }
        readout1.backward(atoms, inner, x);
    }

    /* Returns the activation of the readout, and its derivative. */
    std::pair<double, double> activate(double value) const
    {
        const double sigmoid = 1 / (1 + std::exp(-value));
        if (activation == SILU) return {value * sigmoid, sigmoid * (1 + value * (1 - sigmoid))};
        if (activation == TANH) return {std::tanh(value), 1 - std::tanh(value) * std::tanh(value)};
        const double decay = std::log1p(std::exp(-std::fabs(value)));
        return {(value > 0 ? value : 0) + decay - 0.69314718055994530942, sigmoid};
    }
};

inline std::unique_ptr<Network> make_network(const ModelFile &file)
{
    if (file.is_double) return std::make_unique<SchNet<double>>(file);
    return std::make_unique<SchNet<float>>(file);
}
