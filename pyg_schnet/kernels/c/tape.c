/* A machine for straight programs: operations on matrices, one after the other, without leaving C.
 *
 * The tape of a traced potential is run part by part of a batch, each some whole molecules, so that a part's
 * numbers stay in one core's cache and threads share out the parts. What does not depend on the molecules (the
 * filters' splines) is computed once, before the parts; gradients of weights are sums over the parts, added up in
 * order, and what follows from these sums is computed once, after them. How a batch is cut does not depend on the
 * number of threads, and neither do the results. Sizes are those of the call; memory is one arena.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { MAX_PARTS = 16, MAX_SLOTS = 1024, INPUTS = 8, OUTPUTS = 4 };
enum { CONSTANT, ATOMS, PAIRS, KNOTS, GAUSSIANS, MOLECULES, SITES, SYMBOLS };
enum { SINGLE, DOUBLE_, INTEGER };

typedef struct { /* an extent: a size of the call plus a number */
    int64_t symbol, plus;
} Size;

typedef struct {
    int64_t kind; /* 0 in the arena, 1 from outside */
    int64_t index, type;
    Size rows, columns, row_stride, column_stride;
    Size offset; /* symbol times plus */
    int64_t shared;
} Value;

typedef struct {
    int64_t code, out[OUTPUTS], in[INPUTS], integer, group;
    double number;
} Op;

typedef struct {
    int64_t values, slots, externals, ops, results, sums, groups;
    const Value *value;
    const Size *slot; /* (slots, 2): rows and columns */
    const int64_t *slot_bytes, *slot_shared;
    const int64_t *along; /* (externals,): ATOMS, SITES or MOLECULES where a part has its own rows, else CONSTANT */
    const int64_t *row_bytes;
    const int64_t *result, *result_along;
    const int64_t *sum; /* (sums, 2): values of the parts, and where their sum is */
    int64_t batch, pairs; /* the externals that number molecules and atoms */
    int64_t places, site; /* those that number sites, and the atoms of sites; -1 without periodicity */
    int64_t before, until, after; /* operations [0, before) and [after, ops) are done once; backward begins at until */
    const Op *op;
} Tape;

typedef void Gemm(const char *, const char *, const int32_t *, const int32_t *, const int32_t *, const real *,
                  const real *, const int32_t *, const real *, const int32_t *, const real *, real *,
                  const int32_t *);

typedef struct {
    Gemm *gemm;
    void (*distances)(const double *, const int64_t *, const int64_t *, int64_t, double *);
    void (*distances_backward)(const double *, const double *, const int64_t *, const int64_t *, int64_t,
                              int64_t, double *);
    void (*distances_double_backward)(const double *, const double *, const double *, const int64_t *,
                                      const int64_t *, int64_t, int64_t, double *, double *);
    int (*limit_gemm)(int); /* to a number of threads, from this one; gives the limit before; may be NULL */
} Functions;

typedef struct {
    char *at;
    int64_t rows, columns, row_stride, column_stride, type;
} View;

typedef struct {
    int64_t size[SYMBOLS], first[SYMBOLS], threads;
    char *arena;
    View *view;
    int64_t *batch, *pairs, *places;
} Part;

typedef struct {
    int64_t pairs, atoms, knots, channels, threads, checked;
    const int64_t *first, *second;
    const real *distance, *table;
    double origin, inverse;
} Task;

enum { BAD_INDEX = 4, BAD_SIZE = 5 }; /* that a row is not there, or a tensor is smaller than it should be */

/* from the other files */
int convolve(const Task *, const real *, real *);
int convolve_backward(const Task *, const real *, const real *, real *, real *, real *);
int convolve_double_backward(const Task *, const real *, const real *, const real *, const real *, real *, real *, real *,
                    real *);
void correlate_rows(const real *, const real *, int64_t, int64_t, int64_t, int, real *);
void ssp(const real *, int64_t, real *);
void ssp_backward(const real *, const real *, int64_t, real *);
void ssp_double_backward(const real *, const real *, const real *, int64_t, real *, real *);
void distances(const real *, const int64_t *, const int64_t *, int64_t, real *);
void distances_backward(const real *, const real *, const int64_t *, const int64_t *, int64_t, int64_t, real *);
void distances_double_backward(const real *, const real *, const real *, const int64_t *, const int64_t *,
                               int64_t, int64_t, real *, real *);

/* The order is that of `CODES` in operation.py. */
enum {
    MM, ADDMM, SSP, SSP_BACKWARD, SSP_DOUBLE_BACKWARD, CORRELATE_ROWS, EMBEDDING, EMBEDDING_BACKWARD, CONVOLVE, CONVOLVE_BACKWARD,
    CONVOLVE_DOUBLE_BACKWARD, DISTANCES, DISTANCES_BACKWARD, DISTANCES_DOUBLE_BACKWARD, TO_COPY, SCALE, SHIFT, MULTIPLY,
    ADD, NEGATE, INDEX_SELECT, INDEX_ADD, ZEROS, ONES, SUM_ROWS, PAD_ROWS, SCALE_ROWS, DIVIDE, CLAMP
};

static int64_t extent(const Size *size, const int64_t *of) { return of[size->symbol] + size->plus; }

static int is_within(const int64_t *index, int64_t count, int64_t end) {
    int wrong = 0;
    for (int64_t k = 0; k < count; k++) wrong |= (uint64_t)index[k] >= (uint64_t)end;
    return !wrong;
}

static int multiply(Gemm *gemm, const View *a, const View *b, real plus, View *out) {
    if (a->columns != b->rows || a->rows != out->rows || b->columns != out->columns) return BAD_SIZE;
    /* Row-major out = a b is column-major outᵀ = bᵀ aᵀ. */
    const int turned_a = a->column_stride != 1 && a->columns > 1;
    const int turned_b = b->column_stride != 1 && b->columns > 1;
    const int32_t m = (int32_t)b->columns, n = (int32_t)a->rows, k = (int32_t)a->columns;
    int32_t lda = (int32_t)(turned_a ? a->column_stride : a->row_stride);
    int32_t ldb = (int32_t)(turned_b ? b->column_stride : b->row_stride), ldc = m;
    const int32_t least_a = turned_a ? n : k, least_b = turned_b ? k : m;
    lda = lda < least_a ? least_a : lda; /* vectors have no stride worth the name */
    ldb = ldb < least_b ? least_b : ldb;
    const real one = 1;
    if (!m || !n) return 0;
    if (!k) {
        if (plus == 0) memset(out->at, 0, sizeof(real) * m * n);
        return 0;
    }
    gemm(turned_b ? "T" : "N", turned_a ? "T" : "N", &m, &n, &k, &one, (real *)b->at, &ldb, (real *)a->at, &lda,
         &plus, (real *)out->at, &ldc);
    return 0;
}

static double number_at(const View *v, int64_t k) {
    return v->type == DOUBLE_ ? ((double *)v->at)[k] : (double)((real *)v->at)[k];
}

static Task task_of(const Part *part, const View *table, const View *distance, const View *first,
                    const View *second, const View *y, const Op *op, int64_t start) {
    const Task task = {distance->rows, y->rows, table->rows, y->columns, part->threads, 1,
                       (int64_t *)first->at, (int64_t *)second->at, (real *)distance->at, (real *)table->at,
                       (double)start * op->number, 1 / op->number};
    return task;
}

static int is_sound(const Task *task, const View *table) {
    return table->columns == task->channels && (task->knots >= 6 || !task->pairs);
}

#define IN(k) (&part->view[op->in[k]])
#define OUT(k) (&part->view[op->out[k]])
#define DATA(view) ((real *)(view)->at)
#define MAYBE(view_index) (op->out[view_index] < 0 ? NULL : DATA(OUT(view_index)))

static int execute(const Op *op, Part *part, const Functions *functions, int64_t start, const double *weights) {
    View *out = op->out[0] < 0 ? NULL : OUT(0);
    const int64_t count = out ? out->rows * out->columns : 0;
    switch (op->code) {
    case MM:
        return multiply(functions->gemm, IN(0), IN(1), 0, out);
    case ADDMM: {
        const View *more = IN(0);
        if (more->columns != out->columns || (more->rows != 1 && more->rows != out->rows)) return BAD_SIZE;
        for (int64_t r = 0; r < out->rows; r++) /* a bias is a row for all */
            memcpy(DATA(out) + r * out->columns, DATA(more) + (more->rows == 1 ? 0 : r * out->columns),
                   out->columns * sizeof(real));
        return multiply(functions->gemm, IN(1), IN(2), 1, out);
    }
    case SSP:
        ssp(DATA(IN(0)), count, DATA(out));
        break;
    case SSP_BACKWARD:
        ssp_backward(DATA(IN(0)), DATA(IN(1)), count, DATA(out));
        break;
    case SSP_DOUBLE_BACKWARD:
        ssp_double_backward(DATA(IN(0)), DATA(IN(1)), DATA(IN(2)), count, DATA(out), DATA(OUT(1)));
        break;
    case CORRELATE_ROWS: {
        real values[16];
        for (int64_t k = 0; k < op->integer / 2; k++) values[k] = (real)weights[k];
        const int64_t rows = op->integer % 2 ? out->rows : IN(0)->rows;
        correlate_rows(DATA(IN(0)), values, op->integer / 2, rows, out->columns, (int)(op->integer % 2), DATA(out));
        break;
    }
    case EMBEDDING:
        for (int64_t r = 0; r < out->rows; r++) {
            const int64_t row = ((int64_t *)IN(1)->at)[r];
            if (row < 0 || row >= IN(0)->rows) return BAD_INDEX;
            memcpy(DATA(out) + r * out->columns, DATA(IN(0)) + row * out->columns, out->columns * sizeof(real));
        }
        break;
    case EMBEDDING_BACKWARD: {
        const View *g = IN(0);
        memset(out->at, 0, count * sizeof(real));
        for (int64_t r = 0; r < g->rows; r++) {
            const int64_t row = ((int64_t *)IN(1)->at)[r];
            if (row == op->integer) continue; /* the row of padding learns nothing */
            if (row < 0 || row >= out->rows) return BAD_INDEX;
            real *to = DATA(out) + row * out->columns;
            const real *from = DATA(g) + r * out->columns;
            for (int64_t c = 0; c < out->columns; c++) to[c] += from[c];
        }
        break;
    }
    case CONVOLVE: {
        const Task task = task_of(part, IN(1), IN(2), IN(3), IN(4), IN(0), op, start);
        if (!is_sound(&task, IN(1))) return BAD_SIZE;
        return convolve(&task, DATA(IN(0)), DATA(out));
    }
    case CONVOLVE_BACKWARD: {
        const Task task = task_of(part, IN(2), IN(3), IN(4), IN(5), IN(1), op, start);
        if (!is_sound(&task, IN(2))) return BAD_SIZE;
        return convolve_backward(&task, DATA(IN(0)), DATA(IN(1)), DATA(out), MAYBE(1), MAYBE(2));
    }
    case CONVOLVE_DOUBLE_BACKWARD: {
        const Task task = task_of(part, IN(4), IN(5), IN(6), IN(7), IN(1), op, start);
        if (!is_sound(&task, IN(4))) return BAD_SIZE;
        return convolve_double_backward(&task, DATA(IN(0)), DATA(IN(1)), DATA(IN(2)), DATA(IN(3)), DATA(out), DATA(OUT(1)),
                               DATA(OUT(2)), MAYBE(3));
    }
    case DISTANCES:
        if (out->type == DOUBLE_ && sizeof(real) != sizeof(double))
            functions->distances((double *)IN(0)->at, (int64_t *)IN(1)->at, (int64_t *)IN(2)->at, out->rows,
                                 (double *)out->at);
        else
            distances(DATA(IN(0)), (int64_t *)IN(1)->at, (int64_t *)IN(2)->at, out->rows, DATA(out));
        break;
    case DISTANCES_BACKWARD:
        if (out->type == DOUBLE_ && sizeof(real) != sizeof(double))
            functions->distances_backward((double *)IN(0)->at, (double *)IN(1)->at, (int64_t *)IN(2)->at,
                                         (int64_t *)IN(3)->at, IN(0)->rows, out->rows, (double *)out->at);
        else
            distances_backward(DATA(IN(0)), DATA(IN(1)), (int64_t *)IN(2)->at, (int64_t *)IN(3)->at, IN(0)->rows,
                              out->rows, DATA(out));
        break;
    case DISTANCES_DOUBLE_BACKWARD:
        if (out->type == DOUBLE_ && sizeof(real) != sizeof(double))
            functions->distances_double_backward((double *)IN(0)->at, (double *)IN(1)->at, (double *)IN(2)->at,
                                                 (int64_t *)IN(3)->at, (int64_t *)IN(4)->at, IN(1)->rows,
                                                 IN(2)->rows, (double *)out->at, NULL);
        else
            distances_double_backward(DATA(IN(0)), DATA(IN(1)), DATA(IN(2)), (int64_t *)IN(3)->at,
                                      (int64_t *)IN(4)->at, IN(1)->rows, IN(2)->rows, DATA(out), NULL);
        break;
    case TO_COPY:
        for (int64_t k = 0; k < count; k++)
            if (out->type == DOUBLE_)
                ((double *)out->at)[k] = number_at(IN(0), k);
            else
                DATA(out)[k] = (real)number_at(IN(0), k);
        break;
#define EACH(EXPRESSION)                                                                   \
    if (out->type == DOUBLE_ && sizeof(real) != sizeof(double)) {                          \
        double *to = (double *)out->at, *a = (double *)IN(0)->at, *b = (double *)IN(1)->at; \
        for (int64_t k = 0; k < count; k++) to[k] = EXPRESSION;                            \
        (void)a, (void)b;                                                                  \
    } else {                                                                               \
        real *to = DATA(out), *a = DATA(IN(0)), *b = DATA(IN(1));                          \
        for (int64_t k = 0; k < count; k++) to[k] = EXPRESSION;                            \
        (void)a, (void)b;                                                                  \
    }                                                                                      \
    break
    case SCALE: /* by a number, which may be a value of the tape */
        if (op->in[1] != op->in[0] && IN(1)->rows * IN(1)->columns == 1) {
            const double factor = number_at(IN(1), 0);
            EACH(a[k] * factor);
        }
        EACH(a[k] * op->number);
    case SHIFT:
        EACH(a[k] + op->number);
    case MULTIPLY:
        EACH(a[k] * b[k]);
    case ADD:
        EACH(a[k] + b[k]);
    case DIVIDE:
        EACH(a[k] / b[k]);
    case CLAMP:
        EACH(a[k] < op->number ? op->number : a[k]); /* NaN stays */
    case NEGATE:
        EACH(-a[k]);
    case ONES:
        EACH(1);
    case ZEROS:
        EACH(0);
    case INDEX_SELECT:
        for (int64_t k = 0; k < count; k++) {
            const int64_t from = ((int64_t *)IN(1)->at)[k];
            if (from < 0 || from >= IN(0)->rows * IN(0)->columns) return BAD_INDEX;
            if (out->type == DOUBLE_)
                ((double *)out->at)[k] = ((double *)IN(0)->at)[from];
            else
                DATA(out)[k] = DATA(IN(0))[from];
        }
        break;
    case INDEX_ADD: /* of numbers, to a copy */
        memcpy(out->at, IN(0)->at, count * (out->type == DOUBLE_ ? sizeof(double) : sizeof(real)));
        for (int64_t k = 0; k < IN(2)->rows; k++) {
            const int64_t to = ((int64_t *)IN(1)->at)[k];
            if (to < 0 || to >= count) return BAD_INDEX;
            if (out->type == DOUBLE_)
                ((double *)out->at)[to] += ((double *)IN(2)->at)[k];
            else
                DATA(out)[to] += DATA(IN(2))[k];
        }
        break;
    case SUM_ROWS:
        memset(out->at, 0, count * sizeof(real));
        for (int64_t r = 0; r < IN(0)->rows; r++)
            for (int64_t c = 0; c < count; c++) DATA(out)[c] += DATA(IN(0))[r * count + c];
        break;
    case PAD_ROWS:
        memcpy(out->at, IN(0)->at, IN(0)->rows * out->columns * sizeof(real));
        memset(DATA(out) + IN(0)->rows * out->columns, 0,
               (out->rows - IN(0)->rows) * out->columns * sizeof(real));
        break;
    case SCALE_ROWS:
        for (int64_t r = 0; r < out->rows; r++)
            for (int64_t c = 0; c < out->columns; c++)
                DATA(out)[r * out->columns + c] = DATA(IN(0))[r * out->columns + c] * DATA(IN(1))[r];
        break;
    default:
        return 2;
    }
    return 0;
}

static int is_divided(int symbol) {
    return symbol == ATOMS || symbol == PAIRS || symbol == MOLECULES || symbol == SITES;
}

/* Cut a batch into parts of about as many pairs each, at molecules. Returns the number of parts. */
static int64_t cut(const int64_t *batch, const int64_t *pairs, const int64_t *places, const int64_t *site,
                   const int64_t *size, int64_t parts, int64_t at[][SYMBOLS]) {
    const int64_t atoms = size[ATOMS], number = size[PAIRS], *first = pairs;
    memset(at[0], 0, sizeof(at[0]));
    if (parts > 1)
        for (int64_t p = 1; p < number; p++)
            if (batch[first[p]] < batch[first[p - 1]]) parts = 1; /* pairs in no order */
    int64_t made = 1;
    for (int64_t k = 1; k < parts; k++) {
        int64_t p = number * k / parts;
        while (p < number && p && batch[first[p]] == batch[first[p - 1]]) p++;
        if (p >= number || p <= at[made - 1][PAIRS]) continue;
        const int64_t molecule = batch[first[p]];
        int64_t atom = first[p];
        while (atom && batch[atom - 1] == molecule) atom--;
        at[made][PAIRS] = p, at[made][ATOMS] = atom, at[made][MOLECULES] = molecule;
        if (site) {
            int64_t place = places[p];
            while (place && batch[site[place - 1]] == molecule) place--;
            at[made][SITES] = place;
        }
        made++;
    }
    at[made][PAIRS] = number, at[made][ATOMS] = atoms, at[made][MOLECULES] = size[MOLECULES];
    at[made][SITES] = size[SITES];
    return made;
}

static int64_t rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

/* The memory of a part, or of what the parts share (`common` is NULL then), and where its values are. Without
 * `slots`, only how much it is. */
static int64_t lay_out(const Tape *tape, Part *part, const Part *common, int64_t shared, char *const *external,
                       char **slots) {
    int64_t used = 0;
    part->view = (View *)part->arena;
    used += rounded(tape->values * (int64_t)sizeof(View));
    part->batch = (int64_t *)(part->arena + used);
    if (!shared) used += rounded(part->size[ATOMS] * (int64_t)sizeof(int64_t));
    part->pairs = (int64_t *)(part->arena + used);
    if (!shared) used += rounded(2 * part->size[PAIRS] * (int64_t)sizeof(int64_t));
    part->places = (int64_t *)(part->arena + used);
    if (!shared && tape->places >= 0) used += rounded(2 * part->size[PAIRS] * (int64_t)sizeof(int64_t));
    for (int64_t s = 0; s < tape->slots; s++) {
        if (tape->slot_shared[s] != shared) continue;
        if (slots) slots[s] = part->arena + used;
        used += rounded(extent(&tape->slot[2 * s], part->size) * extent(&tape->slot[2 * s + 1], part->size) *
                        tape->slot_bytes[s]);
    }
    if (!slots) return used;
    for (int64_t v = 0; v < tape->values; v++) {
        const Value *value = &tape->value[v];
        View *view = &part->view[v];
        if (value->kind == 0 && value->shared != shared) {
            if (common) *view = common->view[v];
            continue;
        }
        view->rows = extent(&value->rows, part->size), view->columns = extent(&value->columns, part->size);
        view->row_stride = extent(&value->row_stride, part->size);
        view->column_stride = extent(&value->column_stride, part->size);
        view->type = value->type;
        const int64_t bytes = value->type == SINGLE ? (int64_t)sizeof(real) : 8;
        char *base;
        if (value->kind == 0)
            base = slots[value->index];
        else if (value->index == tape->batch)
            base = (char *)part->batch;
        else if (value->index == tape->pairs)
            base = (char *)part->pairs;
        else if (value->index == tape->places)
            base = (char *)part->places;
        else
            base = external[value->index] + part->first[tape->along[value->index]] * tape->row_bytes[value->index];
        view->at = base + part->size[value->offset.symbol] * value->offset.plus * bytes;
    }
    return used;
}

/* Whether all tensors from outside reach as far as the tape reads them; those yet to come have -1 bytes. */
static int do_fit(const Tape *tape, const int64_t *size, const int64_t *held) {
    for (int64_t v = 0; v < tape->values; v++) {
        const Value *value = &tape->value[v];
        if (value->kind == 0 || held[value->index] < 0) continue;
        const int64_t rows = extent(&value->rows, size), columns = extent(&value->columns, size);
        if (rows < 0 || columns < 0) return 0;
        if (!rows || !columns) continue;
        const int64_t last = size[value->offset.symbol] * value->offset.plus +
                             (rows - 1) * extent(&value->row_stride, size) +
                             (columns - 1) * extent(&value->column_stride, size);
        if (last < 0 || last >= held[value->index] / (value->type == SINGLE ? (int64_t)sizeof(real) : 8)) return 0;
    }
    return 1;
}

/* Returns 0, or what is wrong with the numbers of molecules, atoms and sites. */
static int check_numbers(const Tape *tape, const int64_t *size, char *const *external, const int64_t *held) {
    const int64_t bytes = (int64_t)sizeof(int64_t), atoms = size[ATOMS];
    const int64_t *batch = (int64_t *)external[tape->batch];
    if (held[tape->batch] < atoms * bytes || held[tape->pairs] < 2 * size[PAIRS] * bytes) return BAD_SIZE;
    if (!is_within((int64_t *)external[tape->pairs], 2 * size[PAIRS], atoms)) return BAD_INDEX;
    if (!is_within(batch, atoms, size[MOLECULES])) return BAD_INDEX;
    int wrong = 0;
    for (int64_t i = 1; i < atoms; i++) wrong |= batch[i] < batch[i - 1];
    if (wrong) return BAD_INDEX;
    if (tape->places < 0) return 0;
    if (held[tape->places] < 2 * size[PAIRS] * bytes || held[tape->site] < size[SITES] * bytes) return BAD_SIZE;
    if (!is_within((int64_t *)external[tape->places], 2 * size[PAIRS], size[SITES])) return BAD_INDEX;
    return is_within((int64_t *)external[tape->site], size[SITES], atoms) ? 0 : BAD_INDEX;
}

enum { PAIRS_A_PART = 512 }; /* at least; smaller products of matrices are slower */

/* Into how many parts a batch is cut, where, and how many bytes each needs; bytes[parts] is what they share.
 * Negative if the tensors, of which `held` says how many bytes each has, do not fit the tape or each other. */
int64_t tape_plan(const Tape *tape, const int64_t *size, char *const *external, const int64_t *held,
                  int64_t (*at)[SYMBOLS], int64_t *bytes) {
    const int wrong = do_fit(tape, size, held) ? check_numbers(tape, size, external, held) : BAD_SIZE;
    if (wrong) return -wrong;
    const int64_t *batch = (int64_t *)external[tape->batch], *pairs = (int64_t *)external[tape->pairs];
    const int64_t *places = tape->places < 0 ? NULL : (int64_t *)external[tape->places];
    const int64_t *site = tape->site < 0 ? NULL : (int64_t *)external[tape->site];
    int64_t parts = 1;
    while (parts < MAX_PARTS && 2 * parts * PAIRS_A_PART <= size[PAIRS]) parts *= 2;
    parts = cut(batch, pairs, places, site, size, parts, at);
    for (int64_t k = 0; k < parts; k++)
        for (int s = 0; s < SYMBOLS; s++)
            if (is_divided(s) && at[k + 1][s] < at[k][s]) return -BAD_INDEX; /* sites in another order than atoms */
    for (int64_t k = 0; k <= parts; k++) {
        Part part = {.arena = NULL};
        memcpy(part.size, size, sizeof(part.size));
        for (int s = 0; s < SYMBOLS; s++)
            if (is_divided(s)) part.size[s] = k < parts ? at[k + 1][s] - at[k][s] : 0;
        bytes[k] = lay_out(tape, &part, NULL, k == parts, NULL, NULL);
    }
    return parts;
}

static void collect(const Tape *tape, Part *parts, int64_t count, char *const *results) {
    for (int64_t r = 0; r < tape->results; r++) {
        if (!results[r]) continue;
        const int64_t shared = tape->value[tape->result[r]].shared;
        for (int64_t k = 0; k < (shared ? 1 : count); k++) {
            const View *from = &parts[k].view[tape->result[r]];
            const int64_t along = tape->result_along[r], columns = from->columns;
            const int64_t first = along ? parts[k].first[along] : 0;
            for (int64_t row = 0; row < from->rows; row++)
                for (int64_t c = 0; c < columns; c++) {
                    const int64_t at = row * from->row_stride + c * from->column_stride;
                    const int64_t to = (first + row) * columns + c;
                    if (from->type == DOUBLE_)
                        ((double *)results[r])[to] = ((double *)from->at)[at];
                    else if (along || k == 0)
                        ((real *)results[r])[to] = ((real *)from->at)[at];
                    else
                        ((real *)results[r])[to] += ((real *)from->at)[at];
                }
        }
    }
}

/* Operations that belong to no part: groups of them that do not need each other, shared out among threads. */
static int execute_once(const Tape *tape, Part *part, const Functions *functions, int64_t start,
                        const double *weights, int64_t threads, int64_t from, int64_t until) {
    int failed = 0;
    if (from == until) return 0; /* waking a thread for nothing may take milliseconds */
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1 && tape->groups > 1)
    for (int64_t group = 0; group < tape->groups; group++)
        for (int64_t o = from; o < until; o++)
            if (tape->op[o].group == group) {
                const int wrong = execute(&tape->op[o], part, functions, start, weights);
                if (wrong) {
#pragma omp atomic write
                    failed = wrong;
                }
            }
    return failed;
}

static void add_up(const Tape *tape, const Part *parts, int64_t count, const Part *common) {
    for (int64_t s = 0; s < tape->sums; s++) {
        const View *to = &common->view[tape->sum[2 * s + 1]];
        const int64_t cells = to->rows * to->columns;
        for (int64_t k = 0; k < count; k++) {
            const real *from = DATA(&parts[k].view[tape->sum[2 * s]]);
            for (int64_t c = 0; c < cells; c++) DATA(to)[c] = k ? DATA(to)[c] + from[c] : from[c];
        }
    }
}

/* Number both ends of a part's pairs from the part's first atom or site. Returns whether all are the part's. */
static int renumber(const char *external, int64_t all, const Part *part, int symbol, int64_t *own) {
    for (int row = 0; row < 2; row++) {
        const int64_t *pairs = (const int64_t *)external + row * all + part->first[PAIRS];
        for (int64_t p = 0; p < part->size[PAIRS]; p++)
            own[row * part->size[PAIRS] + p] = pairs[p] - part->first[symbol];
    }
    return is_within(own, 2 * part->size[PAIRS], part->size[symbol]);
}

/* Run forward's operations (`backward` 0) or backward's, in a plan's parts. The arena keeps the values of forward
 * for backward. Results are written to `results`, (results,). Returns 0, or what went wrong. */
int tape_run(const Tape *tape, const Functions *functions, const double *weights, const int64_t *size,
             int64_t start, int64_t threads, int64_t count, int64_t (*at)[SYMBOLS], const int64_t *bytes,
             char *arena, char *const *external, const int64_t *held, char *const *results, int64_t backward) {
    if (count < 1 || count > MAX_PARTS || !do_fit(tape, size, held)) return BAD_SIZE;
    Part parts[MAX_PARTS + 1], *common = &parts[count];
    int failed = 0;
    for (int64_t k = 0; k <= count; k++) {
        parts[k].arena = arena;
        arena += bytes[k];
        parts[k].threads = count > 1 ? 1 : threads;
        memcpy(parts[k].size, size, sizeof(parts[k].size));
        memset(parts[k].first, 0, sizeof(parts[k].first));
        for (int s = 0; s < SYMBOLS; s++)
            if (is_divided(s)) {
                parts[k].size[s] = k < count ? at[k + 1][s] - at[k][s] : 0;
                parts[k].first[s] = k < count ? at[k][s] : 0;
            }
    }
    char *slots[MAX_SLOTS];
    if (tape->slots > MAX_SLOTS) return 3;
    /* Threads work on parts; on one operation only where one molecule is all, and large. */
    const int together = count == 1 && size[PAIRS] >= 2 * PAIRS_A_PART;
    if (count == 1 && !together) threads = parts[0].threads = 1;
    const int limit = functions->limit_gemm && !together ? functions->limit_gemm(1) : -1;
    lay_out(tape, common, NULL, 1, external, slots);
    if (!backward) failed = execute_once(tape, common, functions, start, weights, threads, 0, tape->before);
    const int64_t from = backward ? tape->until : tape->before, until = backward ? tape->after : tape->until;
#pragma omp parallel for num_threads(threads < count ? threads : count) schedule(dynamic, 1) \
    if (count > 1 && threads > 1)
    for (int64_t k = 0; k < count; k++) {
        Part *part = &parts[k];
        char *own[MAX_SLOTS];
        lay_out(tape, part, common, 0, external, own);
        int wrong = 0;
        if (!backward) {
            const int64_t *batch = (int64_t *)external[tape->batch] + part->first[ATOMS];
            for (int64_t i = 0; i < part->size[ATOMS]; i++) part->batch[i] = batch[i] - part->first[MOLECULES];
            if (!is_within(part->batch, part->size[ATOMS], part->size[MOLECULES]) ||
                !renumber(external[tape->pairs], size[PAIRS], part, ATOMS, part->pairs) ||
                (tape->places >= 0 && !renumber(external[tape->places], size[PAIRS], part, SITES, part->places)))
                wrong = BAD_INDEX;
        }
        for (int64_t o = from; o < until && !wrong; o++)
            wrong = execute(&tape->op[o], part, functions, start, weights);
        if (wrong) {
#pragma omp atomic write
            failed = wrong;
        }
    }
    if (backward && !failed) {
        add_up(tape, parts, count, common);
        failed = execute_once(tape, common, functions, start, weights, threads, tape->after, tape->ops);
        for (int64_t v = 0; v < tape->values; v++) /* results of what was done once, for `collect` */
            if (tape->value[v].kind == 0 && tape->value[v].shared) parts[0].view[v] = common->view[v];
    }
    if (limit >= 0) functions->limit_gemm(limit);
    if (!failed) collect(tape, parts, count, results);
    return failed;
}
