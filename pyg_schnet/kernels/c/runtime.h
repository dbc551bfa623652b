/* The interface between generated programs and the library that runs them; `real` is the network's type. */
#ifndef PYG_SCHNET_RUNTIME_H
#define PYG_SCHNET_RUNTIME_H
#include <stdint.h>
#include <string.h>

enum { NO_MEMORY = 1, INVALID_SPLINE, BAD_INDEX, BAD_SIZE }; /* errors; 0 is success */

/* Extents of a batch or of a part of it. Parts differ in the first four. */
typedef struct {
    int64_t atoms, sites, pairs, molecules, knots, gaussians;
} Sizes;

/* Whole molecules of a batch, computed by one thread, so that their buffers stay in one core's cache. */
typedef struct {
    Sizes size, first;         /* extents of the part; rows of the batch before it */
    int64_t start;             /* number of the spline's first interval */
    int64_t threads;           /* that one operation may use */
    char *const *input;        /* tensors of the whole batch */
    char *const *result;       /* results for the whole batch */
    char **own, **shared;      /* buffers of this part; buffers of all parts */
    const int64_t *batch;      /* (atoms,): molecule of each atom, counted from the part's first */
    const int64_t *pair_index; /* (2, pairs): atoms, counted from the part's first */
    const int64_t *site_pairs; /* (2, pairs): sites, counted from the part's first; periodic systems only */
} Part;

/* A convolution with filters from a spline; see `convolution.c`. */
typedef struct {
    int64_t pairs, atoms, knots, channels, threads;
    int64_t checked;               /* whether `first` and `second` are known to number atoms */
    const int64_t *first, *second; /* (pairs,) */
    const real *distance;          /* (pairs,) */
    const real *table;             /* (knots, channels) */
    double origin, inverse;        /* of the knots: the first's distance in Å, 1 / spacing */
} Convolution;

static inline Convolution convolution(const Part *part, const real *table, int64_t knots, int64_t channels,
                                      const real *distance, const int64_t *first, const int64_t *second,
                                      int64_t pairs, int64_t atoms, double spacing) {
    const Convolution made = {pairs, atoms,    knots, channels,     part->threads, 1,
                              first, second,   distance, table, (double)part->start * spacing, 1 / spacing};
    return made;
}

/* Operations on `count` numbers, in the network's type and, with the suffix _double, in double precision. */
#define OPERATIONS(type, suffix)                                                                               \
    void (*scale##suffix)(const type *a, double factor, int64_t count, type *out);                             \
    void (*shift##suffix)(const type *a, double term, int64_t count, type *out);                               \
    void (*clamp_min##suffix)(const type *a, double least, int64_t count, type *out);                          \
    void (*neg##suffix)(const type *a, int64_t count, type *out);                                              \
    void (*fill##suffix)(double value, int64_t count, type *out);                                              \
    void (*add##suffix)(const type *a, const type *b, int64_t count, type *out);                               \
    void (*mul##suffix)(const type *a, const type *b, int64_t count, type *out);                               \
    void (*div##suffix)(const type *a, const type *b, int64_t count, type *out);                               \
    int (*index_select##suffix)(const type *a, int64_t rows, const int64_t *index, int64_t count, type *out);  \
    int (*index_add##suffix)(const type *a, int64_t rows, const int64_t *index, const type *b, int64_t count,  \
                             type *out);                                                                       \
    void (*distances##suffix)(const type *pos, const int64_t *first, const int64_t *second, int64_t pairs,     \
                              type *out);                                                                      \
    void (*distances_backward##suffix)(const type *g, const type *pos, const int64_t *first,                   \
                                       const int64_t *second, int64_t pairs, int64_t atoms, type *out);        \
    void (*distances_double_backward##suffix)(const type *a, const type *g, const type *pos,                   \
                                              const int64_t *first, const int64_t *second, int64_t pairs,      \
                                              int64_t atoms, type *to_g, type *to_pos)

typedef struct {
    OPERATIONS(real, );
    OPERATIONS(double, _double);
    void (*to_double)(const real *a, int64_t count, double *out);
    void (*to_real)(const double *a, int64_t count, real *out);
    /* out = a b, (m, k) times (k, n); 'T' for a matrix that is stored transposed, rows `lda` or `ldb` apart */
    void (*mm)(int64_t m, int64_t k, int64_t n, const real *a, char transposed_a, int64_t lda, const real *b,
               char transposed_b, int64_t ldb, real *out);
    /* out = c + a b; `c` has m rows, or one for all */
    void (*addmm)(const real *c, int64_t c_rows, int64_t m, int64_t k, int64_t n, const real *a, char transposed_a,
                  int64_t lda, const real *b, char transposed_b, int64_t ldb, real *out);
    void (*sum_rows)(const real *a, int64_t rows, int64_t columns, real *out);
    void (*pad_rows)(const real *a, int64_t rows, int64_t columns, int64_t out_rows, real *out);
    void (*scale_rows)(const real *a, const real *factor, int64_t rows, int64_t columns, real *out);
    int (*embedding)(const real *weight, int64_t rows, const int64_t *index, int64_t count, int64_t columns,
                     real *out);
    int (*embedding_backward)(const real *g, const int64_t *index, int64_t count, int64_t columns, int64_t padding,
                              int64_t rows, real *out);
    void (*ssp)(const real *x, int64_t count, real *out);
    void (*ssp_backward)(const real *g, const real *x, int64_t count, real *out);
    void (*ssp_double_backward)(const real *a, const real *g, const real *x, int64_t count, real *to_g, real *to_x);
    void (*correlate_rows)(const real *values, const double *weight, int64_t weights, int64_t rows, int64_t columns,
                           int transpose, real *out);
    int (*convolve)(const Convolution *, const real *y, real *out);
    int (*convolve_backward)(const Convolution *, const real *g, const real *y, real *to_y, real *to_distance,
                             real *to_table);
    int (*convolve_double_backward)(const Convolution *, const real *g, const real *y, const real *a_y,
                                    const real *a_distance, real *to_y, real *to_g, real *to_table,
                                    real *to_distance);
    /* (rows, columns) with any strides, copied to contiguous memory, or added to it unless it is the first */
    void (*accumulate)(const real *from, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride,
                       int is_first, real *to);
} Runtime;

typedef int Step(const Runtime *, const Part *);

/* A generated program. `before` and `after` are independent steps on what all parts share, which threads may
 * execute at once; between them, `forward` and `backward` are executed for each part. */
typedef struct {
    int64_t inputs, own, shared, befores, afters;    /* numbers of tensors, buffers and steps */
    int64_t batch, pair_index, site_pairs, site_atom; /* which inputs these are; -1 if they are absent */
    void (*input_bytes)(const Sizes *, int64_t *bytes); /* least size of each input */
    void (*own_bytes)(const Sizes *, int64_t *bytes);   /* size of each buffer */
    void (*shared_bytes)(const Sizes *, int64_t *bytes);
    Step *const *before, *forward, *backward, *const *after;
    void (*add_part)(const Runtime *, const Part *, int is_first); /* add gradients of weights to those before */
} Program;

#define TRY(call)              \
    do {                       \
        const int error = call; \
        if (error) return error; \
    } while (0)
#define AT_LEAST(bytes, needed) (bytes) = (bytes) > (needed) ? (bytes) : (needed)

#endif
