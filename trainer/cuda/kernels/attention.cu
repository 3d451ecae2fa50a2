// Attention in both directions with grouped heads and optional segments, by tiles: the scores of a
// row never exist as a whole. Four warps a block; tensor cores; sums in f32.
//
// Matrices are [tokens, heads * HEAD]. `ranges` has for every token the keys [x, y) of its row that
// it reads, or is null: all of them. Ranges never fall within a row, and a token's range holds
// exactly the tokens whose ranges hold it. Scores are kept as powers of two: `scale` is
// log2(e) / sqrt(HEAD), `log_sums` the binary logarithm of a query's sum.

#define THREADS 128
// Shared rows lie 16 bytes further apart than they are long, so that the eight rows of a tile fall
// into different banks.
#define PITCH(HEAD) ((HEAD) + 8)

struct Sizes {
    int length, heads, kv_heads;
};

// Rows [first, last) of a head into shared memory, zeros behind `last`.
template <int HEAD, int ROWS>
__device__ __forceinline__ void load_rows(bf16* tile, const bf16* matrix, u64 row_start, int width,
                                          int head, int first, int last) {
    const uint4 zero = {0, 0, 0, 0};
    for (int i = threadIdx.x; i < ROWS * (HEAD / 8); i += THREADS) {
        const int r = i / (HEAD / 8), c = i % (HEAD / 8) * 8;
        const bf16* at = matrix + (row_start + first + r) * width + head * HEAD + c;
        uint4 value = zero;
        if (first + r < last) value = *reinterpret_cast<const uint4*>(at);
        *reinterpret_cast<uint4*>(tile + r * PITCH(HEAD) + c) = value;
    }
}

// The 16 x 16 tile at (row, k) as the left factor; rows of the tile are rows of the factor.
template <int HEAD>
__device__ __forceinline__ void left(unsigned (&a)[4], const bf16* tile, int row, int k) {
    const int lane = threadIdx.x & 31;
    load_tiles(a, tile + (row + (lane & 15)) * PITCH(HEAD) + k + (lane >> 4) * 8);
}

// The right factors of columns n..n+16 over k..k+16, from a tile whose rows are those columns:
// {b[0], b[1]} for the first eight, {b[2], b[3]} for the others.
template <int HEAD>
__device__ __forceinline__ void right(unsigned (&b)[4], const bf16* tile, int n, int k) {
    const int lane = threadIdx.x & 31;
    load_tiles(b, tile + (n + (lane & 7) + (lane >> 4) * 8) * PITCH(HEAD) + k + ((lane >> 3) & 1) * 8);
}

// The same from a tile whose rows are k.
template <int HEAD>
__device__ __forceinline__ void right_of_rows(unsigned (&b)[4], const bf16* tile, int n, int k) {
    const int lane = threadIdx.x & 31;
    load_tiles_transposed(b, tile + (k + (lane & 15)) * PITCH(HEAD) + n + (lane >> 4) * 8);
}

// out[n tile] = left (16 x HEAD, at `row` of `a`) times the rows of `b` (COLUMNS of them).
template <int HEAD, int COLUMNS>
__device__ __forceinline__ void scores(float (&out)[COLUMNS / 8][4], const bf16* a, int row,
                                       const bf16* b) {
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) out[j][i] = 0.0f;
#pragma unroll
    for (int k = 0; k < HEAD; k += 16) {
        unsigned l[4];
        left<HEAD>(l, a, row, k);
#pragma unroll
        for (int n = 0; n < COLUMNS; n += 16) {
            unsigned r[4];
            right<HEAD>(r, b, n, k);
            mma(out[n / 8], l, r[0], r[1]);
            mma(out[n / 8 + 1], l, r[2], r[3]);
        }
    }
}

// out (16 x HEAD) += p (16 x COLUMNS, as `scores` leaves it, rounded to bf16) times the rows of `b`.
template <int HEAD, int COLUMNS>
__device__ __forceinline__ void accumulate(float (&out)[HEAD / 8][4],
                                           const float (&p)[COLUMNS / 8][4], const bf16* b) {
#pragma unroll
    for (int k = 0; k < COLUMNS; k += 16) {
        const float(&low)[4] = p[k / 8];
        const float(&high)[4] = p[k / 8 + 1];
        const unsigned l[4] = {pack2(low[0], low[1]), pack2(low[2], low[3]),
                               pack2(high[0], high[1]), pack2(high[2], high[3])};
#pragma unroll
        for (int n = 0; n < HEAD; n += 16) {
            unsigned r[4];
            right_of_rows<HEAD>(r, b, n, k);
            mma(out[n / 8], l, r[0], r[1]);
            mma(out[n / 8 + 1], l, r[2], r[3]);
        }
    }
}

// Writes two rows of a 16 x HEAD result; each lane holds pairs of neighbours.
template <int HEAD>
__device__ __forceinline__ void store_rows(bf16* matrix, const float (&x)[HEAD / 8][4], u64 row_start,
                                           int width, int head, int first, int last, float low_factor,
                                           float high_factor) {
    const int lane = threadIdx.x & 31, row = first + lane / 4, column = lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < HEAD / 8; j++) {
        bf16* at = matrix + (row_start + row) * width + head * HEAD + j * 8 + column;
        if (row < last)
            *reinterpret_cast<unsigned*>(at) = pack2(x[j][0] * low_factor, x[j][1] * low_factor);
        if (row + 8 < last)
            *reinterpret_cast<unsigned*>(at + u64(8) * width) =
                pack2(x[j][2] * high_factor, x[j][3] * high_factor);
    }
}

template <int N>
__device__ __forceinline__ void clear(float (&x)[N][4]) {
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) x[j][i] = 0.0f;
}

// Keys of a token; of a place behind the row's end, those of its last token.
__device__ __forceinline__ int2 reach(const int2* ranges, u64 row_start, int token, int length) {
    if (ranges == nullptr) {
        int2 all;
        all.x = 0;
        all.y = length;
        return all;
    }
    return ranges[row_start + min(token, length - 1)];
}

__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Queries, and keys at a time, of a block of the forward pass.
#define TILE 64

// Grid (query tiles, heads, rows). A warp has 16 queries; a lane two of them, g and g + 8.
template <int HEAD>
__device__ __forceinline__ void attention_forward(const bf16* q, const bf16* k, const bf16* v,
                                                  const int2* ranges, bf16* y, float* log_sums,
                                                  Sizes sizes, float scale, bf16* shared) {
    bf16* keys = shared;
    bf16* values = shared + TILE * PITCH(HEAD);
    const int head = blockIdx.y, kv_head = head / (sizes.heads / sizes.kv_heads);
    const int q_width = sizes.heads * HEAD, kv_width = sizes.kv_heads * HEAD;
    const u64 row_start = u64(blockIdx.z) * sizes.length;
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const int block_first = blockIdx.x * TILE, first = block_first + warp * 16;

    // The queries pass through the room of the keys into registers.
    load_rows<HEAD, TILE>(keys, q, row_start, q_width, head, block_first, sizes.length);
    __syncthreads();
    unsigned queries[HEAD / 16][4];
#pragma unroll
    for (int i = 0; i < HEAD / 16; i++) left<HEAD>(queries[i], keys, warp * 16, i * 16);

    const int2 low = reach(ranges, row_start, first + lane / 4, sizes.length);
    const int2 high = reach(ranges, row_start, first + lane / 4 + 8, sizes.length);
    const int begin = reach(ranges, row_start, block_first, sizes.length).x;
    const int end = reach(ranges, row_start, block_first + TILE - 1, sizes.length).y;

    float out[HEAD / 8][4];
    clear(out);
    // The largest finite negative number stands for "no key yet".
    float most_low = -3.0e38f, most_high = -3.0e38f, sum_low = 0.0f, sum_high = 0.0f;
    for (int tile = begin; tile < end; tile += TILE) {
        __syncthreads();
        load_rows<HEAD, TILE>(keys, k, row_start, kv_width, kv_head, tile, end);
        load_rows<HEAD, TILE>(values, v, row_start, kv_width, kv_head, tile, end);
        __syncthreads();
        float p[TILE / 8][4];
        clear(p);
#pragma unroll
        for (int i = 0; i < HEAD / 16; i++) {
#pragma unroll
            for (int n = 0; n < TILE; n += 16) {
                unsigned r[4];
                right<HEAD>(r, keys, n, i * 16);
                mma(p[n / 8], queries[i], r[0], r[1]);
                mma(p[n / 8 + 1], queries[i], r[2], r[3]);
            }
        }
        float tile_low = -3.0e38f, tile_high = -3.0e38f;
#pragma unroll
        for (int j = 0; j < TILE / 8; j++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int key = tile + j * 8 + lane % 4 * 2 + i;
                p[j][i] = key >= low.x && key < low.y ? p[j][i] * scale : -3.0e38f;
                p[j][i + 2] = key >= high.x && key < high.y ? p[j][i + 2] * scale : -3.0e38f;
                tile_low = fmaxf(tile_low, p[j][i]);
                tile_high = fmaxf(tile_high, p[j][i + 2]);
            }
        }
        const float new_low = fmaxf(most_low, quad_max(tile_low));
        const float new_high = fmaxf(most_high, quad_max(tile_high));
        const float shrink_low = exp2f(most_low - new_low), shrink_high = exp2f(most_high - new_high);
        most_low = new_low;
        most_high = new_high;
        float added_low = 0.0f, added_high = 0.0f;
#pragma unroll
        for (int j = 0; j < TILE / 8; j++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                // A key that is not read counts as nothing even where no key was read yet.
                p[j][i] = p[j][i] > -1.0e38f ? exp2f(p[j][i] - new_low) : 0.0f;
                p[j][i + 2] = p[j][i + 2] > -1.0e38f ? exp2f(p[j][i + 2] - new_high) : 0.0f;
                added_low += p[j][i];
                added_high += p[j][i + 2];
            }
        }
        sum_low = sum_low * shrink_low + quad_sum(added_low);
        sum_high = sum_high * shrink_high + quad_sum(added_high);
#pragma unroll
        for (int j = 0; j < HEAD / 8; j++) {
            out[j][0] *= shrink_low;
            out[j][1] *= shrink_low;
            out[j][2] *= shrink_high;
            out[j][3] *= shrink_high;
        }
        accumulate<HEAD, TILE>(out, p, values);
    }
    store_rows<HEAD>(y, out, row_start, q_width, head, first, sizes.length, 1.0f / sum_low,
                     1.0f / sum_high);
    if (lane % 4 == 0) {
        float* at = log_sums + (u64(blockIdx.z) * sizes.heads + head) * sizes.length;
        const int query = first + lane / 4;
        if (query < sizes.length) at[query] = most_low + log2f(sum_low);
        if (query + 8 < sizes.length) at[query + 8] = most_high + log2f(sum_high);
    }
}

// deltas[row][head][token] = sum(y gy) over the head: one warp a token and head.
template <int HEAD>
__device__ __forceinline__ void attention_deltas(const bf16* y, const bf16* gy, float* deltas,
                                                 int items, int heads, int length) {
    const int item = blockIdx.x * (THREADS / 32) + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    if (item >= items) return;
    float sum = 0.0f;
    for (int c = lane; c < HEAD; c += 32)
        sum += widen(y[u64(item) * HEAD + c]) * widen(gy[u64(item) * HEAD + c]);
    sum = warp_sum(sum);
    const int token = item / heads, head = item % heads;
    const int row = token / length, at = token % length;
    if (lane == 0) deltas[(u64(row) * heads + head) * length + at] = sum;
}

// Queries at a time of the keys' gradients, and keys at a time of the queries'.
#define SMALL 32

// Grid (key tiles, key heads, rows). A warp has 16 keys; scores are transposed: a row is a key. The
// queries of a key are the keys of that key taken as a query. Heads, and queries within them, are
// added in order.
template <int HEAD>
__device__ __forceinline__ void attention_backward_keys(const bf16* q, const bf16* k, const bf16* v,
                                                        const bf16* gy, const float* log_sums,
                                                        const float* deltas, const int2* ranges,
                                                        bf16* gk, bf16* gv, Sizes sizes, float scale,
                                                        bf16* shared) {
    bf16* keys = shared;
    bf16* values = keys + TILE * PITCH(HEAD);
    bf16* queries = values + TILE * PITCH(HEAD);
    bf16* gradients = queries + SMALL * PITCH(HEAD);
    __shared__ float sums[SMALL], pulls[SMALL];
    const int kv_head = blockIdx.y, group = sizes.heads / sizes.kv_heads;
    const int q_width = sizes.heads * HEAD, kv_width = sizes.kv_heads * HEAD;
    const u64 row_start = u64(blockIdx.z) * sizes.length;
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const int block_first = blockIdx.x * TILE, first = block_first + warp * 16;

    load_rows<HEAD, TILE>(keys, k, row_start, kv_width, kv_head, block_first, sizes.length);
    load_rows<HEAD, TILE>(values, v, row_start, kv_width, kv_head, block_first, sizes.length);
    const int2 low = reach(ranges, row_start, first + lane / 4, sizes.length);
    const int2 high = reach(ranges, row_start, first + lane / 4 + 8, sizes.length);
    const int begin = reach(ranges, row_start, block_first, sizes.length).x;
    const int end = reach(ranges, row_start, block_first + TILE - 1, sizes.length).y;

    float of_keys[HEAD / 8][4], of_values[HEAD / 8][4];
    clear(of_keys);
    clear(of_values);
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        const u64 statistics = (u64(blockIdx.z) * sizes.heads + head) * sizes.length;
        for (int tile = begin; tile < end; tile += SMALL) {
            __syncthreads();
            load_rows<HEAD, SMALL>(queries, q, row_start, q_width, head, tile, end);
            load_rows<HEAD, SMALL>(gradients, gy, row_start, q_width, head, tile, end);
            if (threadIdx.x < SMALL) {
                const bool there = tile + int(threadIdx.x) < end;
                sums[threadIdx.x] = there ? log_sums[statistics + tile + threadIdx.x] : 0.0f;
                pulls[threadIdx.x] = there ? deltas[statistics + tile + threadIdx.x] : 0.0f;
            }
            __syncthreads();
            float p[SMALL / 8][4], gs[SMALL / 8][4];
            scores<HEAD, SMALL>(p, keys, warp * 16, queries);
#pragma unroll
            for (int j = 0; j < SMALL / 8; j++) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int at = j * 8 + lane % 4 * 2 + i, query = tile + at;
                    p[j][i] = query >= low.x && query < low.y ? exp2f(p[j][i] * scale - sums[at]) : 0.0f;
                    p[j][i + 2] =
                        query >= high.x && query < high.y ? exp2f(p[j][i + 2] * scale - sums[at]) : 0.0f;
                }
            }
            accumulate<HEAD, SMALL>(of_values, p, gradients);
            scores<HEAD, SMALL>(gs, values, warp * 16, gradients);
#pragma unroll
            for (int j = 0; j < SMALL / 8; j++) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const float pull = pulls[j * 8 + lane % 4 * 2 + i];
                    gs[j][i] = p[j][i] * (gs[j][i] - pull);
                    gs[j][i + 2] = p[j][i + 2] * (gs[j][i + 2] - pull);
                }
            }
            accumulate<HEAD, SMALL>(of_keys, gs, queries);
        }
    }
    // `scale` is for powers of two; the scores' own factor is scale * ln(2).
    const float factor = scale * 0.69314718055994531f;
    store_rows<HEAD>(gk, of_keys, row_start, kv_width, kv_head, first, sizes.length, factor, factor);
    store_rows<HEAD>(gv, of_values, row_start, kv_width, kv_head, first, sizes.length, 1.0f, 1.0f);
}

// Grid (query tiles, heads, rows). A warp has 16 queries.
template <int HEAD>
__device__ __forceinline__ void attention_backward_queries(const bf16* q, const bf16* k,
                                                           const bf16* v, const bf16* gy,
                                                           const float* log_sums, const float* deltas,
                                                           const int2* ranges, bf16* gq, Sizes sizes,
                                                           float scale, bf16* shared) {
    bf16* queries = shared;
    bf16* gradients = queries + TILE * PITCH(HEAD);
    bf16* keys = gradients + TILE * PITCH(HEAD);
    bf16* values = keys + SMALL * PITCH(HEAD);
    const int head = blockIdx.y, kv_head = head / (sizes.heads / sizes.kv_heads);
    const int q_width = sizes.heads * HEAD, kv_width = sizes.kv_heads * HEAD;
    const u64 row_start = u64(blockIdx.z) * sizes.length;
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const int block_first = blockIdx.x * TILE, first = block_first + warp * 16;

    load_rows<HEAD, TILE>(queries, q, row_start, q_width, head, block_first, sizes.length);
    load_rows<HEAD, TILE>(gradients, gy, row_start, q_width, head, block_first, sizes.length);
    const int query = first + lane / 4;
    const int2 low = reach(ranges, row_start, query, sizes.length);
    const int2 high = reach(ranges, row_start, query + 8, sizes.length);
    const int begin = reach(ranges, row_start, block_first, sizes.length).x;
    const int end = reach(ranges, row_start, block_first + TILE - 1, sizes.length).y;
    const u64 statistics = (u64(blockIdx.z) * sizes.heads + head) * sizes.length;
    const bool low_there = query < sizes.length, high_there = query + 8 < sizes.length;
    const float sum_low = low_there ? log_sums[statistics + query] : 0.0f;
    const float sum_high = high_there ? log_sums[statistics + query + 8] : 0.0f;
    const float pull_low = low_there ? deltas[statistics + query] : 0.0f;
    const float pull_high = high_there ? deltas[statistics + query + 8] : 0.0f;

    float out[HEAD / 8][4];
    clear(out);
    for (int tile = begin; tile < end; tile += SMALL) {
        __syncthreads();
        load_rows<HEAD, SMALL>(keys, k, row_start, kv_width, kv_head, tile, end);
        load_rows<HEAD, SMALL>(values, v, row_start, kv_width, kv_head, tile, end);
        __syncthreads();
        float p[SMALL / 8][4], gs[SMALL / 8][4];
        scores<HEAD, SMALL>(p, queries, warp * 16, keys);
        scores<HEAD, SMALL>(gs, gradients, warp * 16, values);
#pragma unroll
        for (int j = 0; j < SMALL / 8; j++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int key = tile + j * 8 + lane % 4 * 2 + i;
                const bool by_low = low_there && key >= low.x && key < low.y;
                const bool by_high = high_there && key >= high.x && key < high.y;
                gs[j][i] = by_low ? exp2f(p[j][i] * scale - sum_low) * (gs[j][i] - pull_low) : 0.0f;
                gs[j][i + 2] =
                    by_high ? exp2f(p[j][i + 2] * scale - sum_high) * (gs[j][i + 2] - pull_high) : 0.0f;
            }
        }
        accumulate<HEAD, SMALL>(out, gs, keys);
    }
    const float factor = scale * 0.69314718055994531f;
    store_rows<HEAD>(gq, out, row_start, q_width, head, first, sizes.length, factor, factor);
}

#define ATTENTION_KERNELS(HEAD)                                                                      \
    KERNEL(THREADS, attention_forward_##HEAD, const bf16* __restrict__ q, const bf16* __restrict__ k, \
           const bf16* __restrict__ v, const int2* __restrict__ ranges, bf16* __restrict__ y,        \
           float* __restrict__ log_sums, int length, int heads, int kv_heads, float scale) {         \
        DYNAMIC_SHARED(room);                                                                        \
        const Sizes sizes = {length, heads, kv_heads};                                               \
        attention_forward<HEAD>(q, k, v, ranges, y, log_sums, sizes, scale,                          \
                                reinterpret_cast<bf16*>(room));                                      \
    }                                                                                                \
    KERNEL(THREADS, attention_deltas_##HEAD, const bf16* __restrict__ y,                             \
           const bf16* __restrict__ gy, float* __restrict__ deltas, int items, int heads,            \
           int length) {                                                                             \
        attention_deltas<HEAD>(y, gy, deltas, items, heads, length);                                 \
    }                                                                                                \
    KERNEL(THREADS, attention_backward_keys_##HEAD, const bf16* __restrict__ q,                      \
           const bf16* __restrict__ k, const bf16* __restrict__ v, const bf16* __restrict__ gy,      \
           const float* __restrict__ log_sums, const float* __restrict__ deltas,                     \
           const int2* __restrict__ ranges, bf16* __restrict__ gk, bf16* __restrict__ gv, int length, \
           int heads, int kv_heads, float scale) {                                                   \
        DYNAMIC_SHARED(room);                                                                        \
        const Sizes sizes = {length, heads, kv_heads};                                               \
        attention_backward_keys<HEAD>(q, k, v, gy, log_sums, deltas, ranges, gk, gv, sizes, scale,   \
                                      reinterpret_cast<bf16*>(room));                                \
    }                                                                                                \
    KERNEL(THREADS, attention_backward_queries_##HEAD, const bf16* __restrict__ q,                   \
           const bf16* __restrict__ k, const bf16* __restrict__ v, const bf16* __restrict__ gy,      \
           const float* __restrict__ log_sums, const float* __restrict__ deltas,                     \
           const int2* __restrict__ ranges, bf16* __restrict__ gq, int length, int heads,            \
           int kv_heads, float scale) {                                                              \
        DYNAMIC_SHARED(room);                                                                        \
        const Sizes sizes = {length, heads, kv_heads};                                               \
        attention_backward_queries<HEAD>(q, k, v, gy, log_sums, deltas, ranges, gq, sizes, scale,    \
                                         reinterpret_cast<bf16*>(room));                             \
    }

ATTENTION_KERNELS(64)
ATTENTION_KERNELS(128)
