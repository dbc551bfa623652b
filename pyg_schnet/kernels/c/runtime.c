/* Execution of generated programs: the operations that they call, and the parts of a batch.
 *
 * A batch is divided into parts of whole molecules, so that a part's numbers stay in one core's cache and threads
 * share out the parts. What does not depend on the molecules (the filters' tables) is computed once, before the
 * parts; gradients of weights are sums over the parts, added in order, and what follows from these sums is computed
 * once, after them. How a batch is divided does not depend on the number of threads, and neither do the results.
 * Extents are those of the call; all buffers are in one arena.
 */
#include "runtime.h"

enum { MAX_PARTS = 16, PAIRS_PER_PART = 512 }; /* at least; smaller products of matrices are slower */

/* from the other files */
int convolve(const Convolution *, const real *, real *);
int convolve_backward(const Convolution *, const real *, const real *, real *, real *, real *);
int convolve_double_backward(const Convolution *, const real *, const real *, const real *, const real *, real *,
                             real *, real *, real *);
void correlate_rows(const real *, const real *, int64_t, int64_t, int64_t, int, real *);
void ssp(const real *, int64_t, real *);
void ssp_backward(const real *, const real *, int64_t, real *);
void ssp_double_backward(const real *, const real *, const real *, int64_t, real *, real *);
void distances(const real *, const int64_t *, const int64_t *, int64_t, real *);
void distances_backward(const real *, const real *, const int64_t *, const int64_t *, int64_t, int64_t, real *);
void distances_double_backward(const real *, const real *, const real *, const int64_t *, const int64_t *, int64_t,
                               int64_t, real *, real *);

typedef void Gemm(const char *, const char *, const int32_t *, const int32_t *, const int32_t *, const real *,
                  const real *, const int32_t *, const real *, const int32_t *, const real *, real *,
                  const int32_t *);
static Gemm *gemm;                   /* torch's own */
static int (*set_gemm_threads)(int); /* of the calling thread; returns the number before; may be NULL */

/* Row-major out = a b + beta out is column-major outᵀ = bᵀ aᵀ + beta outᵀ. */
static void multiply(int64_t rows, int64_t inner, int64_t columns, const real *a, char transposed_a, int64_t lda,
                     const real *b, char transposed_b, int64_t ldb, real beta, real *out) {
    const int32_t m = (int32_t)columns, n = (int32_t)rows, k = (int32_t)inner, ldc = m;
    const int64_t least_a = transposed_a == 'T' ? rows : inner, least_b = transposed_b == 'T' ? inner : columns;
    const int32_t lda32 = (int32_t)(lda < least_a ? least_a : lda); /* the stride of a vector may be anything */
    const int32_t ldb32 = (int32_t)(ldb < least_b ? least_b : ldb);
    const real one = 1;
    if (!m || !n) return;
    if (!k) {
        if (beta == 0) memset(out, 0, sizeof(real) * m * n);
        return;
    }
    gemm(&transposed_b, &transposed_a, &m, &n, &k, &one, b, &ldb32, a, &lda32, &beta, out, &ldc);
}

static void mm(int64_t m, int64_t k, int64_t n, const real *a, char transposed_a, int64_t lda, const real *b,
               char transposed_b, int64_t ldb, real *out) {
    multiply(m, k, n, a, transposed_a, lda, b, transposed_b, ldb, 0, out);
}

static void addmm(const real *c, int64_t c_rows, int64_t m, int64_t k, int64_t n, const real *a, char transposed_a,
                  int64_t lda, const real *b, char transposed_b, int64_t ldb, real *out) {
    for (int64_t r = 0; r < m; r++) memcpy(out + r * n, c + (c_rows == 1 ? 0 : r * n), n * sizeof(real));
    multiply(m, k, n, a, transposed_a, lda, b, transposed_b, ldb, 1, out);
}

#define FOR_EACH for (int64_t k = 0; k < count; k++)
#define DEFINE_OPERATIONS(type, suffix)                                                                          \
    static void scale##suffix(const type *a, double factor, int64_t count, type *out) {                          \
        FOR_EACH out[k] = a[k] * factor;                                                                         \
    }                                                                                                            \
    static void shift##suffix(const type *a, double term, int64_t count, type *out) {                            \
        FOR_EACH out[k] = a[k] + term;                                                                           \
    }                                                                                                            \
    static void clamp_min##suffix(const type *a, double least, int64_t count, type *out) { /* NaN stays */       \
        FOR_EACH out[k] = a[k] < least ? least : a[k];                                                           \
    }                                                                                                            \
    static void neg##suffix(const type *a, int64_t count, type *out) { FOR_EACH out[k] = -a[k]; }                \
    static void fill##suffix(double value, int64_t count, type *out) { FOR_EACH out[k] = value; }                \
    static void add##suffix(const type *a, const type *b, int64_t count, type *out) {                            \
        FOR_EACH out[k] = a[k] + b[k];                                                                           \
    }                                                                                                            \
    static void mul##suffix(const type *a, const type *b, int64_t count, type *out) {                            \
        FOR_EACH out[k] = a[k] * b[k];                                                                           \
    }                                                                                                            \
    static void div##suffix(const type *a, const type *b, int64_t count, type *out) {                            \
        FOR_EACH out[k] = a[k] / b[k];                                                                           \
    }                                                                                                            \
    static int index_select##suffix(const type *a, int64_t rows, const int64_t *index, int64_t count,            \
                                    type *out) {                                                                 \
        FOR_EACH {                                                                                               \
            if (index[k] < 0 || index[k] >= rows) return BAD_INDEX;                                              \
            out[k] = a[index[k]];                                                                                \
        }                                                                                                        \
        return 0;                                                                                                \
    }                                                                                                            \
    static int index_add##suffix(const type *a, int64_t rows, const int64_t *index, const type *b,               \
                                 int64_t count, type *out) {                                                     \
        memcpy(out, a, rows * sizeof(type));                                                                     \
        FOR_EACH {                                                                                               \
            if (index[k] < 0 || index[k] >= rows) return BAD_INDEX;                                              \
            out[index[k]] += b[k];                                                                               \
        }                                                                                                        \
        return 0;                                                                                                \
    }
DEFINE_OPERATIONS(real, )
DEFINE_OPERATIONS(double, _double)

static void to_double(const real *a, int64_t count, double *out) { FOR_EACH out[k] = (double)a[k]; }

static void to_real(const double *a, int64_t count, real *out) { FOR_EACH out[k] = (real)a[k]; }

static void sum_rows(const real *a, int64_t rows, int64_t columns, real *out) {
    memset(out, 0, columns * sizeof(real));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) out[c] += a[r * columns + c];
}

static void pad_rows(const real *a, int64_t rows, int64_t columns, int64_t out_rows, real *out) {
    memcpy(out, a, rows * columns * sizeof(real));
    memset(out + rows * columns, 0, (out_rows - rows) * columns * sizeof(real));
}

static void scale_rows(const real *a, const real *factor, int64_t rows, int64_t columns, real *out) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) out[r * columns + c] = a[r * columns + c] * factor[r];
}

static int embedding(const real *weight, int64_t rows, const int64_t *index, int64_t count, int64_t columns,
                     real *out) {
    FOR_EACH {
        if (index[k] < 0 || index[k] >= rows) return BAD_INDEX;
        memcpy(out + k * columns, weight + index[k] * columns, columns * sizeof(real));
    }
    return 0;
}

static int embedding_backward(const real *g, const int64_t *index, int64_t count, int64_t columns, int64_t padding,
                              int64_t rows, real *out) {
    memset(out, 0, rows * columns * sizeof(real));
    FOR_EACH {
        if (index[k] == padding) continue; /* that row is not trained */
        if (index[k] < 0 || index[k] >= rows) return BAD_INDEX;
        real *to = out + index[k] * columns;
        for (int64_t c = 0; c < columns; c++) to[c] += g[k * columns + c];
    }
    return 0;
}

static void correlate(const real *values, const double *weight, int64_t weights, int64_t rows, int64_t columns,
                      int transpose, real *out) {
    real own[16];
    for (int64_t k = 0; k < weights; k++) own[k] = (real)weight[k];
    correlate_rows(values, own, weights, rows, columns, transpose, out);
}

static void accumulate(const real *from, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride,
                       int is_first, real *to) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            const real value = from[r * row_stride + c * column_stride];
            to[r * columns + c] = is_first ? value : to[r * columns + c] + value;
        }
}

static Runtime runtime = {
    scale, shift, clamp_min, neg, fill, add, mul, div, index_select, index_add, distances, distances_backward,
    distances_double_backward, scale_double, shift_double, clamp_min_double, neg_double, fill_double, add_double,
    mul_double, div_double, index_select_double, index_add_double, NULL, NULL, NULL, to_double, to_real, mm, addmm,
    sum_rows, pad_rows, scale_rows, embedding, embedding_backward, ssp, ssp_backward, ssp_double_backward, correlate,
    convolve, convolve_backward, convolve_double_backward, accumulate};

/* Set the functions of other libraries: torch's matrix product, the limit of its threads (or NULL), and the kernels
 * of distances in double precision. */
void set_functions(Gemm *product, int (*set_threads)(int), void *distances_of_doubles, void *backward_of_doubles,
                   void *double_backward_of_doubles) {
    gemm = product;
    set_gemm_threads = set_threads;
    memcpy(&runtime.distances_double, &distances_of_doubles, sizeof(void *));
    memcpy(&runtime.distances_backward_double, &backward_of_doubles, sizeof(void *));
    memcpy(&runtime.distances_double_backward_double, &double_backward_of_doubles, sizeof(void *));
}

static int are_within(const int64_t *index, int64_t count, int64_t end) {
    int wrong = 0;
    FOR_EACH wrong |= (uint64_t)index[k] >= (uint64_t)end;
    return !wrong;
}

/* The extents between two positions in a batch. */
static Sizes between(const Sizes *whole, const Sizes *from, const Sizes *until) {
    Sizes size = *whole;
    size.atoms = until->atoms - from->atoms, size.sites = until->sites - from->sites;
    size.pairs = until->pairs - from->pairs, size.molecules = until->molecules - from->molecules;
    return size;
}

/* Divide a batch at molecules, into parts of about as many pairs each. Returns their number. */
static int64_t divide(const int64_t *batch, const int64_t *pairs, const int64_t *site_pairs, const int64_t *site_atom,
                      const Sizes *size, Sizes *cut) {
    const int64_t count = size->pairs, *first = pairs;
    int64_t parts = 1, made = 1;
    while (parts < MAX_PARTS && 2 * parts * PAIRS_PER_PART <= count) parts *= 2;
    if (parts > 1)
        for (int64_t p = 1; p < count; p++)
            if (batch[first[p]] < batch[first[p - 1]]) parts = 1; /* pairs in no order */
    memset(&cut[0], 0, sizeof(Sizes));
    for (int64_t k = 1; k < parts; k++) {
        int64_t p = count * k / parts;
        while (p < count && p && batch[first[p]] == batch[first[p - 1]]) p++;
        if (p >= count || p <= cut[made - 1].pairs) continue;
        const int64_t molecule = batch[first[p]];
        int64_t atom = first[p], site = 0;
        while (atom && batch[atom - 1] == molecule) atom--;
        if (site_pairs) {
            site = site_pairs[p];
            while (site && batch[site_atom[site - 1]] == molecule) site--;
        }
        const Sizes at = {.atoms = atom, .sites = site, .pairs = p, .molecules = molecule};
        cut[made++] = at;
    }
    cut[made] = *size;
    return made;
}

static int64_t rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

/* Assign a part its memory, or, where `is_shared`, what all parts share. Without an arena, only measure it.
 * Returns its size in bytes, or a negative number for extents of which there can be none. */
static int64_t assign(const Program *program, Part *part, int is_shared, char *arena) {
    const int64_t buffers = is_shared ? program->shared : program->own, numbers = is_shared ? 0 : sizeof(int64_t);
    int64_t bytes[buffers + 1], used = rounded(buffers * (int64_t)sizeof(char *));
    (is_shared ? program->shared_bytes : program->own_bytes)(&part->size, bytes);
    char **buffer = (char **)arena;
    part->batch = (int64_t *)(arena + used);
    used += rounded(part->size.atoms * numbers);
    part->pair_index = (int64_t *)(arena + used);
    used += rounded(2 * part->size.pairs * numbers);
    part->site_pairs = (int64_t *)(arena + used);
    if (program->site_pairs >= 0) used += rounded(2 * part->size.pairs * numbers);
    for (int64_t b = 0; b < buffers; b++) {
        if (bytes[b] < 0) return -1;
        if (arena) buffer[b] = arena + used;
        used += rounded(bytes[b]);
    }
    *(is_shared ? &part->shared : &part->own) = buffer;
    return used;
}

/* Whether all tensors are as large as the program reads them; those that are not known yet have -1 bytes. */
static int do_fit(const Program *program, const Sizes *size, const int64_t *held) {
    int64_t bytes[program->inputs];
    program->input_bytes(size, bytes);
    for (int64_t k = 0; k < program->inputs; k++)
        if (bytes[k] < 0 || (held[k] >= 0 && held[k] < bytes[k])) return 0;
    return 1;
}

/* Returns 0, or what is wrong with the numbers of molecules, atoms and sites. */
static int check_numbers(const Program *program, const Sizes *size, char *const *input) {
    const int64_t *batch = (int64_t *)input[program->batch];
    if (!are_within((int64_t *)input[program->pair_index], 2 * size->pairs, size->atoms)) return BAD_INDEX;
    if (!are_within(batch, size->atoms, size->molecules)) return BAD_INDEX;
    int wrong = 0;
    for (int64_t i = 1; i < size->atoms; i++) wrong |= batch[i] < batch[i - 1];
    if (wrong) return BAD_INDEX;
    if (program->site_pairs < 0) return 0;
    if (!are_within((int64_t *)input[program->site_pairs], 2 * size->pairs, size->sites)) return BAD_INDEX;
    return are_within((int64_t *)input[program->site_atom], size->sites, size->atoms) ? 0 : BAD_INDEX;
}

/* Divide a batch into parts, and measure their memory.
 *
 * cut: (MAX_PARTS + 1,): filled with the rows at which parts begin, and with the extents of the batch
 * bytes: (MAX_PARTS + 1,): filled with the memory of each part; after the last, of what they share
 *
 * Returns the number of parts, or minus the error if tensors of `held` bytes do not fit the program or each other.
 */
int64_t program_plan(const Program *program, const Sizes *size, char *const *input, const int64_t *held, Sizes *cut,
                     int64_t *bytes) {
    const int wrong = do_fit(program, size, held) ? check_numbers(program, size, input) : BAD_SIZE;
    if (wrong) return -wrong;
    const int periodic = program->site_pairs >= 0;
    const int64_t parts = divide((int64_t *)input[program->batch], (int64_t *)input[program->pair_index],
                                 periodic ? (int64_t *)input[program->site_pairs] : NULL,
                                 periodic ? (int64_t *)input[program->site_atom] : NULL, size, cut);
    for (int64_t k = 0; k <= parts; k++) {
        Part part = {.size = *size};
        if (k < parts) part.size = between(size, &cut[k], &cut[k + 1]);
        if (part.size.atoms < 0 || part.size.sites < 0 || part.size.pairs < 0 || part.size.molecules < 0)
            return -BAD_INDEX; /* sites in another order than atoms */
        bytes[k] = assign(program, &part, k == parts, NULL);
        if (bytes[k] < 0) return -BAD_SIZE;
    }
    return parts;
}

/* Number rows (2, pairs) from a part's first one. Returns whether all are the part's. */
static int renumber(const char *input, int64_t all, const Part *part, int64_t first, int64_t end, int64_t *own) {
    for (int row = 0; row < 2; row++) {
        const int64_t *from = (const int64_t *)input + row * all + part->first.pairs;
        for (int64_t p = 0; p < part->size.pairs; p++) own[row * part->size.pairs + p] = from[p] - first;
    }
    return are_within(own, 2 * part->size.pairs, end);
}

static int number_rows(const Program *program, const Part *part, int64_t pairs) {
    const int64_t *batch = (int64_t *)part->input[program->batch] + part->first.atoms;
    int64_t *own = (int64_t *)part->batch;
    for (int64_t i = 0; i < part->size.atoms; i++) own[i] = batch[i] - part->first.molecules;
    if (!are_within(own, part->size.atoms, part->size.molecules)) return BAD_INDEX;
    if (!renumber(part->input[program->pair_index], pairs, part, part->first.atoms, part->size.atoms,
                  (int64_t *)part->pair_index))
        return BAD_INDEX;
    if (program->site_pairs >= 0 && !renumber(part->input[program->site_pairs], pairs, part, part->first.sites,
                                              part->size.sites, (int64_t *)part->site_pairs))
        return BAD_INDEX;
    return 0;
}

static int execute_shared(Step *const *step, int64_t steps, const Part *common, int64_t threads) {
    int failed = 0;
    if (!steps) return 0; /* waking a thread for nothing may take milliseconds */
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1 && steps > 1)
    for (int64_t s = 0; s < steps; s++) {
        const int wrong = step[s](&runtime, common);
        if (wrong) {
#pragma omp atomic write
            failed = wrong;
        }
    }
    return failed;
}

/* Execute a program forward or backward, on a plan's parts. The arena keeps the values of forward for backward.
 * Results are written to `result`. Returns 0, or an error. */
int program_run(const Program *program, const Sizes *size, int64_t start, int64_t threads, int64_t count,
                const Sizes *cut, const int64_t *bytes, char *arena, char *const *input, const int64_t *held,
                char *const *result, int64_t backward) {
    if (count < 1 || count > MAX_PARTS || !do_fit(program, size, held)) return BAD_SIZE;
    Part parts[MAX_PARTS + 1], *common = &parts[count];
    /* Threads share out parts; they share one operation only where one molecule is all, and large. */
    const int together = count == 1 && size->pairs >= 2 * PAIRS_PER_PART;
    if (count == 1 && !together) threads = 1;
    char *at = arena;
    for (int64_t k = 0; k < count; k++) at += bytes[k];
    *common = (Part){.size = *size, .start = start, .threads = threads, .input = input, .result = result};
    assign(program, common, 1, at);
    at = arena;
    for (int64_t k = 0; k < count; k++) {
        parts[k] = (Part){.size = between(size, &cut[k], &cut[k + 1]), .first = cut[k], .start = start,
                          .threads = count > 1 ? 1 : threads, .input = input, .result = result,
                          .shared = common->shared};
        assign(program, &parts[k], 0, at);
        at += bytes[k];
    }
    const int limit = set_gemm_threads && !together ? set_gemm_threads(1) : -1;
    int failed = backward ? 0 : execute_shared(program->before, program->befores, common, threads);
    Step *const step = backward ? program->backward : program->forward;
#pragma omp parallel for num_threads(threads < count ? threads : count) schedule(dynamic, 1) \
    if (count > 1 && threads > 1)
    for (int64_t k = 0; k < count; k++) {
        int wrong = backward ? 0 : number_rows(program, &parts[k], size->pairs);
        if (!wrong) wrong = step(&runtime, &parts[k]);
        if (wrong) {
#pragma omp atomic write
            failed = wrong;
        }
    }
    if (backward && !failed) {
        for (int64_t k = 0; k < count; k++) program->add_part(&runtime, &parts[k], k == 0);
        failed = execute_shared(program->after, program->afters, common, threads);
    }
    if (limit >= 0) set_gemm_threads(limit);
    return failed;
}
