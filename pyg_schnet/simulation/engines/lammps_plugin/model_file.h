/* A file that `pyg-schnet lammps` writes: safetensors with a header in JSON. */
#pragma once
#include "json.h"
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

class ModelFile {
  public:
    LAMMPS_NS::json header;    // elements, cutoff, …, see `export.py`
    bool is_double = false;    // type of the network

    ModelFile(const std::string &name, std::vector<char> content) : content(std::move(content))
    {
        const std::vector<char> &bytes = this->content;
        uint64_t length = 0;
        if (bytes.size() >= 8) std::memcpy(&length, bytes.data(), 8);
        if (bytes.size() < 8 || length > bytes.size() - 8)
            throw std::runtime_error(name + ": not a complete safetensors file; copy it again");
        start = 8 + length;
        tensors = LAMMPS_NS::json::parse(bytes.begin() + 8, bytes.begin() + start, nullptr, false);
        if (tensors.is_discarded() || !tensors.contains("__metadata__") ||
            !tensors["__metadata__"].contains("pyg_schnet"))
            throw std::runtime_error(name + ": not a file of pyg_schnet; `pyg-schnet lammps MODEL OUT` writes one");
        header = LAMMPS_NS::json::parse(tensors["__metadata__"]["pyg_schnet"].get<std::string>());
        if (header.at("kind") != "LAMMPS model")
            throw std::runtime_error(name + ": holds a " + header["kind"].get<std::string>() +
                                     ", not a LAMMPS model; export it: pyg-schnet lammps " + name + " OUT");
        if (header.at("format") != 1)
            throw std::runtime_error(name + ": written by a newer version of pyg_schnet; build the plugin again");
        is_double = tensors.at("embedding").at("dtype") == "F64";
    }

    /* Returns a tensor of the network's type, or of float64; its size must be that of its shape in the header. */
    template <class Real> std::vector<Real> tensor(const std::string &name, std::vector<int64_t> shape) const
    {
        const LAMMPS_NS::json &entry = tensors.at(name);
        int64_t count = 1;
        for (int64_t extent : shape) count *= extent;
        const auto [begin, end] = entry.at("data_offsets").get<std::pair<uint64_t, uint64_t>>();
        const char *type = sizeof(Real) == 8 ? "F64" : "F32";
        if (entry.at("dtype") != type || entry.at("shape").get<std::vector<int64_t>>() != shape || begin > end ||
            end - begin != count * sizeof(Real) || end > content.size() - start)
            throw std::runtime_error("tensor " + name + " has another size than its header; export the model again");
        std::vector<Real> values(count);
        std::memcpy(values.data(), content.data() + start + begin, end - begin);
        return values;
    }

    int64_t rows(const std::string &name) const { return tensors.at(name).at("shape").at(0); }
    int64_t columns(const std::string &name) const { return tensors.at(name).at("shape").at(1); }

  private:
    std::vector<char> content;
    uint64_t start = 0;    // of the tensors
    LAMMPS_NS::json tensors;
};
