// A stand-in for cuBLASLt: products of column-major matrices of bf16 and f32, summed in f32.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <vector>

namespace {

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum Type { F32 = 0, BF16 = 14 };
enum Operation { PLAIN = 0, TRANSPOSED = 1 };

struct Description { int compute, scale, a = PLAIN, b = PLAIN; };
struct Layout { int type; uint64_t rows, columns; int64_t leading; };
struct Heuristic { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; };

struct Product {
    Description description;
    Layout a_layout, b_layout, c_layout, d_layout;
    float alpha, beta;
    const void *a, *b, *c;
    void* d;
};

float get(const void* matrix, const Layout& layout, uint64_t row, uint64_t column) {
    const uint64_t at = column * uint64_t(layout.leading) + row;
    if (layout.type == F32) return static_cast<const float*>(matrix)[at];
    const uint32_t bits = uint32_t(static_cast<const uint16_t*>(matrix)[at]) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

void put(void* matrix, const Layout& layout, uint64_t row, uint64_t column, float value) {
    const uint64_t at = column * uint64_t(layout.leading) + row;
    if (layout.type == F32) {
        static_cast<float*>(matrix)[at] = value;
        return;
    }
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits = value != value ? 0x7fff : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    static_cast<uint16_t*>(matrix)[at] = uint16_t(bits);
}

int run(void* data) {
    Product* p = static_cast<Product*>(data);
    const uint64_t m = p->d_layout.rows, n = p->d_layout.columns;
    const bool a_transposed = p->description.a == TRANSPOSED, b_transposed = p->description.b == TRANSPOSED;
    const uint64_t inner = a_transposed ? p->a_layout.rows : p->a_layout.columns;
    std::vector<float> a(m * inner), sums(m);
    for (uint64_t k = 0; k < inner; k++)
        for (uint64_t i = 0; i < m; i++)
            a[k * m + i] = a_transposed ? get(p->a, p->a_layout, k, i) : get(p->a, p->a_layout, i, k);
    for (uint64_t j = 0; j < n; j++) {
        sums.assign(m, 0.0f);
        for (uint64_t k = 0; k < inner; k++) {
            const float b = b_transposed ? get(p->b, p->b_layout, j, k) : get(p->b, p->b_layout, k, j);
            const float* column = &a[k * m];
            for (uint64_t i = 0; i < m; i++) sums[i] += column[i] * b;
        }
        for (uint64_t i = 0; i < m; i++) {
            // With beta 0 what is there is not read: it may be no number.
            const float old = p->beta == 0.0f ? 0.0f : p->beta * get(p->c, p->c_layout, i, j);
            put(p->d, p->d_layout, i, j, p->alpha * sums[i] + old);
        }
    }
    delete p;
    return SUCCESS;
}

bool lies_inside(const void* matrix, const Layout& layout) {
    static const auto inside = reinterpret_cast<int (*)(uint64_t, size_t)>(dlsym(RTLD_DEFAULT, "emulator_inside"));
    const uint64_t last = (layout.columns - 1) * uint64_t(layout.leading) + layout.rows;
    return inside && inside(reinterpret_cast<uint64_t>(matrix), last * (layout.type == F32 ? 4 : 2));
}

// What a card refuses or is slow at: matrices of bf16 whose columns do not lie at 16 bytes.
bool aligned(const Layout& layout) { return layout.type == F32 || layout.leading % 8 == 0; }

}  // namespace

#define CALL extern "C" __attribute__((visibility("default"))) int

CALL cublasLtCreate(void** handle) { return *handle = new int, SUCCESS; }
CALL cublasLtDestroy(void* handle) { return delete static_cast<int*>(handle), SUCCESS; }
CALL cublasLtMatmulDescCreate(Description** description, int compute, int scale) {
    return *description = new Description{compute, scale}, SUCCESS;
}
CALL cublasLtMatmulDescDestroy(Description* description) { return delete description, SUCCESS; }
CALL cublasLtMatmulDescSetAttribute(Description* description, int attribute, const void* value, size_t) {
    const int operation = *static_cast<const int*>(value);
    switch (attribute) {
        case 3: return description->a = operation, SUCCESS;
        case 4: return description->b = operation, SUCCESS;
        default: return INVALID_VALUE;
    }
}
CALL cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    if (type != F32 && type != BF16) return NOT_SUPPORTED;
    if (leading < int64_t(rows)) return INVALID_VALUE;
    return *layout = new Layout{type, rows, columns, leading}, SUCCESS;
}
CALL cublasLtMatrixLayoutDestroy(Layout* layout) { return delete layout, SUCCESS; }
CALL cublasLtMatmulPreferenceCreate(int** preference) { return *preference = new int(0), SUCCESS; }
CALL cublasLtMatmulPreferenceDestroy(int* preference) { return delete preference, SUCCESS; }
CALL cublasLtMatmulPreferenceSetAttribute(int*, int, const void*, size_t) { return SUCCESS; }

static bool fits(const Description* d, const Layout* a, const Layout* b, const Layout* c, const Layout* out) {
    const auto rows = [](const Layout* l, int op) { return op == TRANSPOSED ? l->columns : l->rows; };
    const auto columns = [](const Layout* l, int op) { return op == TRANSPOSED ? l->rows : l->columns; };
    return d->compute == 68 && d->scale == F32 && rows(a, d->a) == out->rows &&
           columns(b, d->b) == out->columns && columns(a, d->a) == rows(b, d->b) && c->rows == out->rows &&
           c->columns == out->columns && c->type == out->type && a->type == b->type;
}

CALL cublasLtMatmulAlgoGetHeuristic(void*, const Description* description, const Layout* a, const Layout* b,
                                    const Layout* c, const Layout* d, int*, int, Heuristic* results, int* count) {
    if (!fits(description, a, b, c, d)) return INVALID_VALUE;
    if (!aligned(*a) || !aligned(*b) || !aligned(*d)) return NOT_SUPPORTED;
    *results = Heuristic{};
    return *count = 1, SUCCESS;
}

CALL cublasLtMatmul(void*, const Description* description, const float* alpha, const void* a,
                    const Layout* a_layout, const void* b, const Layout* b_layout, const float* beta,
                    const void* c, const Layout* c_layout, void* d, const Layout* d_layout, const void*,
                    void*, size_t, void* stream) {
    static const auto enqueue = reinterpret_cast<int (*)(void*, int (*)(void*), void*)>(dlsym(RTLD_DEFAULT, "emulator_enqueue"));
    if (enqueue == nullptr) return NOT_INITIALIZED;
    if (!fits(description, a_layout, b_layout, c_layout, d_layout)) return INVALID_VALUE;
    if (!lies_inside(a, *a_layout) || !lies_inside(b, *b_layout) || !lies_inside(d, *d_layout)) return INVALID_VALUE;
    if (*beta != 0.0f && !lies_inside(c, *c_layout)) return INVALID_VALUE;
    Product* product = new Product{*description, *a_layout, *b_layout, *c_layout, *d_layout,
                                   *alpha, *beta, a, b, c, d};
    return enqueue(stream, run, product) == 0 ? SUCCESS : INVALID_VALUE;
}
