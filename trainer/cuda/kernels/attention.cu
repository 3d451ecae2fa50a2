// Attention in both directions with grouped heads and optional segments, by tiles: the scores of a
// row never exist as a whole. Eight warps a block; tensor cores; sums in f32. While a tile is worked
// on, the next one is on its way into the other of two places in shared memory.
//
// Matrices are [tokens, heads * HEAD]. `ranges` has for every token the keys [x, y) of its row that
// it reads, or is null: all of them. Ranges never fall within a row, and a token's range holds
// exactly the tokens whose ranges hold it. Scores are kept as powers of two: `scale` is
// log2(e) / sqrt(HEAD), `log_sums` the binary logarithm of a query's sum.

#define THREADS 256

// Where a row's eight values from `column` on lie in a tile: the pieces of 16 bytes of a row are
// exchanged by the row's number, so that those of eight rows fall into different banks.
template <int HEAD>
__device__ __forceinline__ int place_of(int row, int column) {
    return row * HEAD + (column ^ (row & 7) * 8);
}

struct Sizes {
    int length, heads, kv_heads;
};

// Sends rows [first, last) of a head to shared memory, zeros behind `last`.
template <int HEAD, int ROWS>
__device__ __forceinline__ void load_rows(bf16* tile, const bf16* matrix, u64 row_start, int width,
                                          int head, int first, int last) {
#pragma unroll
    for (int n = 0; n < ROWS * (HEAD / 8) / THREADS; n++) {
        const int i = n * THREADS + threadIdx.x, r = i / (HEAD / 8), c = i % (HEAD / 8) * 8;
        const bool there = first + r < last;
        const u64 row = row_start + (there ? first + r : 0);
        copy16(tile + place_of<HEAD>(r, c), matrix + row * width + head * HEAD + c, there);
    }
}

// The 16 x 16 tile at (row, k) as the left factor; rows of the tile are rows of the factor.
template <int HEAD>
__device__ __forceinline__ void left(unsigned (&a)[4], const bf16* tile, int row, int k) {
    const int lane = threadIdx.x & 31;
    load_tiles(a, tile + place_of<HEAD>(row + (lane & 15), k + (lane >> 4) * 8));
}

// The right factors of columns n..n+16 over k..k+16, from a tile whose rows are those columns:
// {b[0], b[1]} for the first eight, {b[2], b[3]} for the others.
template <int HEAD>
__device__ __forceinline__ void right(unsigned (&b)[4], const bf16* tile, int n, int k) {
    const int lane = threadIdx.x & 31;
    const int row = n + (lane & 7) + (lane >> 4) * 8;
    load_tiles(b, tile + place_of<HEAD>(row, k + ((lane >> 3) & 1) * 8));
}

// The same from a tile whose rows are k.
template <int HEAD>
__device__ __forceinline__ void right_of_rows(unsigned (&b)[4], const bf16* tile, int n, int k) {
    const int lane = threadIdx.x & 31;
    load_tiles_transposed(b, tile + place_of<HEAD>(k + (lane & 15), n + (lane >> 4) * 8));
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

// Tokens of a block, sixteen a warp, and keys at a time of the forward pass.
#define BLOCK 128
#define TILE 64

// What the sixteen tokens of a warp read: [begin, end) some of them, [all_begin, all_end) all of them.
struct Span {
    int begin, end, all_begin, all_end;

    __device__ __forceinline__ Span(const int2* ranges, u64 row_start, int first, int length) {
        const int2 one = reach(ranges, row_start, first, length);
        const int2 other = reach(ranges, row_start, first + 15, length);
        begin = one.x;
        end = other.y;
        all_begin = other.x;
        all_end = one.y;
    }

    __device__ __forceinline__ bool meets(int tile, int size) const {
        return tile < end && tile + size > begin;
    }

    __device__ __forceinline__ bool covers(int tile, int size) const {
        return tile >= all_begin && tile + size <= all_end;
    }
};

// Grid (blocks of queries, heads, rows). A warp has 16 queries; a lane two of them, g and g + 8. A row has
// `count` queries: all of its tokens, or where every one reads all keys some of them.
template <int HEAD>
__device__ __forceinline__ void attention_forward(const bf16* q, const bf16* k, const bf16* v,
                                                  const int2* ranges, bf16* y, float* log_sums,
                                                  Sizes sizes, int count, float scale,
                                                  bf16* shared) {
    const int head = blockIdx.y, kv_head = head / (sizes.heads / sizes.kv_heads);
    const int q_width = sizes.heads * HEAD, kv_width = sizes.kv_heads * HEAD;
    const u64 row_start = u64(blockIdx.z) * sizes.length, query_start = u64(blockIdx.z) * count;
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const int block_first = blockIdx.x * BLOCK, first = block_first + warp * 16;

    // The queries pass through the room of keys and values into registers.
    load_rows<HEAD, BLOCK>(shared, q, query_start, q_width, head, block_first, count);
    copies_sent();
    copies_there<0>();
    __syncthreads();
    unsigned queries[HEAD / 16][4];
#pragma unroll
    for (int i = 0; i < HEAD / 16; i++) left<HEAD>(queries[i], shared, warp * 16, i * 16);
    __syncthreads();

    const int2 low = reach(ranges, row_start, first + lane / 4, sizes.length);
    const int2 high = reach(ranges, row_start, first + lane / 4 + 8, sizes.length);
    const Span span(ranges, row_start, first, sizes.length);
    const int begin = reach(ranges, row_start, block_first, sizes.length).x;
    const int end = reach(ranges, row_start, block_first + BLOCK - 1, sizes.length).y;
    auto load = [&](int tile, int place) {
        bf16* at = shared + place * 2 * TILE * HEAD;
        load_rows<HEAD, TILE>(at, k, row_start, kv_width, kv_head, tile, end);
        load_rows<HEAD, TILE>(at + TILE * HEAD, v, row_start, kv_width, kv_head, tile, end);
        copies_sent();
    };

    float out[HEAD / 8][4];
    clear(out);
    // -1e38 stands for "no key yet": below every score, and far from where differences overflow.
    float most_low = -1.0e38f, most_high = -1.0e38f, sum_low = 0.0f, sum_high = 0.0f;
    load(begin, 0);
    int place = 0;
    for (int tile = begin; tile < end; tile += TILE, place ^= 1) {
        if (tile + TILE < end) {
            load(tile + TILE, place ^ 1);
            copies_there<1>();
        } else {
            copies_there<0>();
        }
        __syncthreads();
        const bf16* keys = shared + place * 2 * TILE * HEAD;
        if (span.meets(tile, TILE)) {
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
            if (!span.covers(tile, TILE)) {
#pragma unroll
                for (int j = 0; j < TILE / 8; j++) {
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        const int key = tile + j * 8 + lane % 4 * 2 + i;
                        if (key < low.x || key >= low.y) p[j][i] = from_bits(0xff800000u);
                        if (key < high.x || key >= high.y) p[j][i + 2] = from_bits(0xff800000u);
                    }
                }
            }
            float tile_low = p[0][0], tile_high = p[0][2];
#pragma unroll
            for (int j = 0; j < TILE / 8; j++) {
                tile_low = fmaxf(tile_low, fmaxf(p[j][0], p[j][1]));
                tile_high = fmaxf(tile_high, fmaxf(p[j][2], p[j][3]));
            }
            const float new_low = fmaxf(most_low, quad_max(tile_low) * scale);
            const float new_high = fmaxf(most_high, quad_max(tile_high) * scale);
            const float shrink_low = power2(most_low - new_low);
            const float shrink_high = power2(most_high - new_high);
            most_low = new_low;
            most_high = new_high;
            float added_low = 0.0f, added_high = 0.0f;
#pragma unroll
            for (int j = 0; j < TILE / 8; j++) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    p[j][i] = power2(fmaf(p[j][i], scale, -new_low));
                    p[j][i + 2] = power2(fmaf(p[j][i + 2], scale, -new_high));
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
            accumulate<HEAD, TILE>(out, p, keys + TILE * HEAD);
        }
        __syncthreads();
    }
    store_rows<HEAD>(y, out, query_start, q_width, head, first, count, 1.0f / sum_low,
                     1.0f / sum_high);
    if (log_sums != nullptr && lane % 4 == 0) {
        float* at = log_sums + (u64(blockIdx.z) * sizes.heads + head) * count;
        const int query = first + lane / 4;
        if (query < count) at[query] = most_low + log2f(sum_low);
        if (query + 8 < count) at[query + 8] = most_high + log2f(sum_high);
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

// Grid (blocks of keys, key heads, rows). A warp has 16 keys; scores are transposed: a row is a key.
// The queries of a key are the keys of that key taken as a query. Heads, and queries within them, are
// added in order.
template <int HEAD>
__device__ __forceinline__ void attention_backward_keys(const bf16* q, const bf16* k, const bf16* v,
                                                        const bf16* gy, const float* log_sums,
                                                        const float* deltas, const int2* ranges,
                                                        bf16* gk, bf16* gv, Sizes sizes, float scale,
                                                        bf16* shared) {
    bf16* keys = shared;
    bf16* values = keys + BLOCK * HEAD;
    bf16* tiles = values + BLOCK * HEAD;
    __shared__ float sums[2][SMALL], pulls[2][SMALL];
    const int kv_head = blockIdx.y, group = sizes.heads / sizes.kv_heads;
    const int q_width = sizes.heads * HEAD, kv_width = sizes.kv_heads * HEAD;
    const u64 row_start = u64(blockIdx.z) * sizes.length;
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const int block_first = blockIdx.x * BLOCK, first = block_first + warp * 16;

    load_rows<HEAD, BLOCK>(keys, k, row_start, kv_width, kv_head, block_first, sizes.length);
    load_rows<HEAD, BLOCK>(values, v, row_start, kv_width, kv_head, block_first, sizes.length);
    const int2 low = reach(ranges, row_start, first + lane / 4, sizes.length);
    const int2 high = reach(ranges, row_start, first + lane / 4 + 8, sizes.length);
    const Span span(ranges, row_start, first, sizes.length);
    const int begin = reach(ranges, row_start, block_first, sizes.length).x;
    const int end = reach(ranges, row_start, block_first + BLOCK - 1, sizes.length).y;
    const int tiles_of_head = (end - begin + SMALL - 1) / SMALL, steps = group * tiles_of_head;
    auto load = [&](int step, int place) {
        const int head = kv_head * group + step / tiles_of_head;
        const int tile = begin + step % tiles_of_head * SMALL;
        bf16* at = tiles + place * 2 * SMALL * HEAD;
        load_rows<HEAD, SMALL>(at, q, row_start, q_width, head, tile, end);
        load_rows<HEAD, SMALL>(at + SMALL * HEAD, gy, row_start, q_width, head, tile, end);
        if (threadIdx.x < SMALL) {
            const u64 of_head = (u64(blockIdx.z) * sizes.heads + head) * sizes.length;
            const bool there = tile + int(threadIdx.x) < end;
            sums[place][threadIdx.x] = there ? log_sums[of_head + tile + threadIdx.x] : 0.0f;
            pulls[place][threadIdx.x] = there ? deltas[of_head + tile + threadIdx.x] : 0.0f;
        }
        copies_sent();
    };

    float of_keys[HEAD / 8][4], of_values[HEAD / 8][4];
    clear(of_keys);
    clear(of_values);
    load(0, 0);
    int place = 0;
    for (int step = 0; step < steps; step++, place ^= 1) {
        if (step + 1 < steps) {
            load(step + 1, place ^ 1);
            copies_there<1>();
        } else {
            copies_there<0>();
        }
        __syncthreads();
        const bf16* queries = tiles + place * 2 * SMALL * HEAD;
        const bf16* gradients = queries + SMALL * HEAD;
        const int tile = begin + step % tiles_of_head * SMALL;
        if (span.meets(tile, SMALL)) {
            float p[SMALL / 8][4], gs[SMALL / 8][4];
            scores<HEAD, SMALL>(p, keys, warp * 16, queries);
#pragma unroll
            for (int j = 0; j < SMALL / 8; j++) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const float sum = sums[place][j * 8 + lane % 4 * 2 + i];
                    p[j][i] = power2(fmaf(p[j][i], scale, -sum));
                    p[j][i + 2] = power2(fmaf(p[j][i + 2], scale, -sum));
                }
            }
            if (!span.covers(tile, SMALL)) {
#pragma unroll
                for (int j = 0; j < SMALL / 8; j++) {
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        const int query = tile + j * 8 + lane % 4 * 2 + i;
                        if (query < low.x || query >= low.y) p[j][i] = 0.0f;
                        if (query < high.x || query >= high.y) p[j][i + 2] = 0.0f;
                    }
                }
            }
            accumulate<HEAD, SMALL>(of_values, p, gradients);
            scores<HEAD, SMALL>(gs, values, warp * 16, gradients);
#pragma unroll
            for (int j = 0; j < SMALL / 8; j++) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const float pull = pulls[place][j * 8 + lane % 4 * 2 + i];
                    gs[j][i] = p[j][i] * (gs[j][i] - pull);
                    gs[j][i + 2] = p[j][i + 2] * (gs[j][i + 2] - pull);
                }
            }
            accumulate<HEAD, SMALL>(of_keys, gs, queries);
        }
        __syncthreads();
    }
    // `scale` is for powers of two; the scores' own factor is scale * ln(2).
    const float factor = scale * 0.69314718055994531f;
    store_rows<HEAD>(gk, of_keys, row_start, kv_width, kv_head, first, sizes.length, factor, factor);
    store_rows<HEAD>(gv, of_values, row_start, kv_width, kv_head, first, sizes.length, 1.0f, 1.0f);
}

// Grid (blocks of queries, heads, rows). A warp has 16 queries.
template <int HEAD>
__device__ __forceinline__ void attention_backward_queries(const bf16* q, const bf16* k,
                                                           const bf16* v, const bf16* gy,
                                                           const float* log_sums, const float* deltas,
                                                           const int2* ranges, bf16* gq, Sizes sizes,
                                                           float scale, bf16* shared) {
    bf16* queries = shared;
    bf16* gradients = queries + BLOCK * HEAD;
    bf16* tiles = gradients + BLOCK * HEAD;
    const int head = blockIdx.y, kv_head = head / (sizes.heads / sizes.kv_heads);
    const int q_width = sizes.heads * HEAD, kv_width = sizes.kv_heads * HEAD;
    const u64 row_start = u64(blockIdx.z) * sizes.length;
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const int block_first = blockIdx.x * BLOCK, first = block_first + warp * 16;

    load_rows<HEAD, BLOCK>(queries, q, row_start, q_width, head, block_first, sizes.length);
    load_rows<HEAD, BLOCK>(gradients, gy, row_start, q_width, head, block_first, sizes.length);
    const int query = first + lane / 4;
    const int2 low = reach(ranges, row_start, query, sizes.length);
    const int2 high = reach(ranges, row_start, query + 8, sizes.length);
    const Span span(ranges, row_start, first, sizes.length);
    const int begin = reach(ranges, row_start, block_first, sizes.length).x;
    const int end = reach(ranges, row_start, block_first + BLOCK - 1, sizes.length).y;
    // A query behind the row's end reads zeros, and its gradient is one.
    const u64 statistics = (u64(blockIdx.z) * sizes.heads + head) * sizes.length;
    const bool low_there = query < sizes.length, high_there = query + 8 < sizes.length;
    const float sum_low = low_there ? log_sums[statistics + query] : 0.0f;
    const float sum_high = high_there ? log_sums[statistics + query + 8] : 0.0f;
    const float pull_low = low_there ? deltas[statistics + query] : 0.0f;
    const float pull_high = high_there ? deltas[statistics + query + 8] : 0.0f;
    auto load = [&](int tile, int place) {
        bf16* at = tiles + place * 2 * SMALL * HEAD;
        load_rows<HEAD, SMALL>(at, k, row_start, kv_width, kv_head, tile, end);
        load_rows<HEAD, SMALL>(at + SMALL * HEAD, v, row_start, kv_width, kv_head, tile, end);
        copies_sent();
    };

    float out[HEAD / 8][4];
    clear(out);
    load(begin, 0);
    int place = 0;
    for (int tile = begin; tile < end; tile += SMALL, place ^= 1) {
        if (tile + SMALL < end) {
            load(tile + SMALL, place ^ 1);
            copies_there<1>();
        } else {
            copies_there<0>();
        }
        __syncthreads();
        const bf16* keys = tiles + place * 2 * SMALL * HEAD;
        const bf16* values = keys + SMALL * HEAD;
        if (span.meets(tile, SMALL)) {
            float p[SMALL / 8][4], gs[SMALL / 8][4];
            scores<HEAD, SMALL>(p, queries, warp * 16, keys);
            scores<HEAD, SMALL>(gs, gradients, warp * 16, values);
#pragma unroll
            for (int j = 0; j < SMALL / 8; j++) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    gs[j][i] = power2(fmaf(p[j][i], scale, -sum_low)) * (gs[j][i] - pull_low);
                    gs[j][i + 2] =
                        power2(fmaf(p[j][i + 2], scale, -sum_high)) * (gs[j][i + 2] - pull_high);
                }
            }
            if (!span.covers(tile, SMALL)) {
#pragma unroll
                for (int j = 0; j < SMALL / 8; j++) {
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        const int key = tile + j * 8 + lane % 4 * 2 + i;
                        if (key < low.x || key >= low.y) gs[j][i] = 0.0f;
                        if (key < high.x || key >= high.y) gs[j][i + 2] = 0.0f;
                    }
                }
            }
            accumulate<HEAD, SMALL>(out, gs, keys);
        }
        __syncthreads();
    }
    const float factor = scale * 0.69314718055994531f;
    store_rows<HEAD>(gq, out, row_start, q_width, head, first, sizes.length, factor, factor);
}

#define ATTENTION_KERNELS(HEAD)                                                                      \
    KERNEL(THREADS, attention_forward_##HEAD, const bf16* __restrict__ q, const bf16* __restrict__ k, \
           const bf16* __restrict__ v, const int2* __restrict__ ranges, bf16* __restrict__ y,        \
           float* __restrict__ log_sums, int length, int heads, int kv_heads, int count,             \
           float scale) {                                                                            \
        DYNAMIC_SHARED(room);                                                                        \
        const Sizes sizes = {length, heads, kv_heads};                                               \
        attention_forward<HEAD>(q, k, v, ranges, y, log_sums, sizes, count, scale,                   \
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
