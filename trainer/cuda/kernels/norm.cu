// RMSNorm over rows, and RMSNorm over heads with the rotation of positions.
//
// What a thread needs from memory is asked for before it is used, a few rows at a time: these kernels wait
// for memory alone.

__device__ __forceinline__ uint4 load_raw(const bf16* at) { return *reinterpret_cast<const uint4*>(at); }

// y = x / sqrt(mean(x^2) + eps) * weight, row by row; scales keeps 1 / sqrt(..). A warp takes a row of up
// to CHUNKS * 2048 columns, a multiple of 8.
template <int CHUNKS>
__device__ __forceinline__ void norm_forward(const bf16* __restrict__ x, const bf16* __restrict__ weight,
                                             bf16* __restrict__ y, float* __restrict__ scales, int rows,
                                             int width, float eps) {
    const int lane = threadIdx.x & 31, row = blockIdx.x * 8 + (threadIdx.x >> 5);
    if (row >= rows) return;
    const bf16* from = x + u64(row) * width;
    bf16* to = y + u64(row) * width;
    uint4 raw[8 * CHUNKS];
#pragma unroll
    for (int k = 0; k < 8 * CHUNKS; k++) {
        const int c = (k * 32 + lane) * 8;
        if (c < width) raw[k] = load_raw(from + c);
    }
    float squares = 0.0f;
#pragma unroll
    for (int k = 0; k < 8 * CHUNKS; k++) {
        if ((k * 32 + lane) * 8 >= width) continue;
        const Eight in = unpack8(raw[k]);
#pragma unroll
        for (int i = 0; i < 8; i++) squares += in.v[i] * in.v[i];
    }
    const float scale = 1.0f / sqrtf(warp_sum(squares) / float(width) + eps);
    if (lane == 0) scales[row] = scale;
#pragma unroll
    for (int k = 0; k < 8 * CHUNKS; k++) {
        const int c = (k * 32 + lane) * 8;
        if (c >= width) continue;
        Eight in = unpack8(raw[k]);
        const Eight w = load8(weight + c);
#pragma unroll
        for (int i = 0; i < 8; i++) in.v[i] = in.v[i] * scale * w.v[i];
        store8(to + c, in);
    }
}

// With s the row's scale and m = sum(gy w x) / width: gx (+)= s (gy w - x m s^2); the block's rows
// give partial[block] = sum(gy x s). A block takes rows_per_block rows, TOGETHER at a time; width is at
// most CHUNKS * 2048.
template <int CHUNKS, int TOGETHER>
__device__ __forceinline__ void norm_backward(bf16* __restrict__ gx, float* __restrict__ partial,
                                              const bf16* __restrict__ gy, const bf16* __restrict__ x,
                                              const bf16* __restrict__ weight,
                                              const float* __restrict__ scales, int rows,
                                              int rows_per_block, int width, int accumulate) {
    // Used in turns, so that one barrier is enough.
    __shared__ float room[2][8][TOGETHER];
    const int warp = threadIdx.x >> 5;
    float sums[CHUNKS][8];
    uint4 raw_w[CHUNKS];
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        const int c = (k * 256 + threadIdx.x) * 8;
        if (c < width) raw_w[k] = load_raw(weight + c);
#pragma unroll
        for (int i = 0; i < 8; i++) sums[k][i] = 0.0f;
    }
    const int first = blockIdx.x * rows_per_block;
    const int last = min(first + rows_per_block, rows);
    int turn = 0;
    for (int r = first; r < last; r += TOGETHER) {
        uint4 raw_g[TOGETHER][CHUNKS], raw_x[TOGETHER][CHUNKS], raw_old[TOGETHER][CHUNKS];
        float s[TOGETHER], pull[TOGETHER];
#pragma unroll
        for (int n = 0; n < TOGETHER; n++) {
            // A row behind the last stands for nothing, and is not written.
            const int row = min(r + n, last - 1);
            s[n] = scales[row];
            pull[n] = 0.0f;
#pragma unroll
            for (int k = 0; k < CHUNKS; k++) {
                const int c = (k * 256 + threadIdx.x) * 8;
                if (c >= width) continue;
                const u64 at = u64(row) * width + c;
                raw_g[n][k] = load_raw(gy + at);
                raw_x[n][k] = load_raw(x + at);
                raw_old[n][k] = accumulate ? load_raw(gx + at) : uint4{0, 0, 0, 0};
            }
        }
#pragma unroll
        for (int n = 0; n < TOGETHER; n++) {
#pragma unroll
            for (int k = 0; k < CHUNKS; k++) {
                if ((k * 256 + threadIdx.x) * 8 >= width || r + n >= last) continue;
                const Eight g = unpack8(raw_g[n][k]), in = unpack8(raw_x[n][k]), w = unpack8(raw_w[k]);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    pull[n] += g.v[i] * w.v[i] * in.v[i];
                    sums[k][i] += g.v[i] * in.v[i] * s[n];
                }
            }
            pull[n] = warp_sum(pull[n]);
        }
        if ((threadIdx.x & 31) == 0) {
#pragma unroll
            for (int n = 0; n < TOGETHER; n++) room[turn][warp][n] = pull[n];
        }
        __syncthreads();
#pragma unroll
        for (int n = 0; n < TOGETHER; n++) {
            float all = room[turn][0][n];
#pragma unroll
            for (int i = 1; i < 8; i++) all += room[turn][i][n];
            all = all / float(width) * s[n] * s[n];
#pragma unroll
            for (int k = 0; k < CHUNKS; k++) {
                const int c = (k * 256 + threadIdx.x) * 8;
                if (c >= width || r + n >= last) continue;
                const Eight g = unpack8(raw_g[n][k]), in = unpack8(raw_x[n][k]), w = unpack8(raw_w[k]);
                Eight out = unpack8(raw_old[n][k]);
#pragma unroll
                for (int i = 0; i < 8; i++) out.v[i] += s[n] * (g.v[i] * w.v[i] - in.v[i] * all);
                store8(gx + u64(r + n) * width + c, out);
            }
        }
        turn ^= 1;
    }
    float* into = partial + u64(blockIdx.x) * width;
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        const int c = (k * 256 + threadIdx.x) * 8;
        if (c >= width) continue;
#pragma unroll
        for (int i = 0; i < 8; i++) into[c + i] = sums[k][i];
    }
}

#define NORM_KERNELS(columns, chunks, together)                                                     \
    KERNEL(256, rms_norm_forward_##columns, const bf16* __restrict__ x,                             \
           const bf16* __restrict__ weight, bf16* __restrict__ y, float* __restrict__ scales,       \
           int rows, int width, float eps) {                                                        \
        norm_forward<chunks>(x, weight, y, scales, rows, width, eps);                               \
    }                                                                                               \
    KERNEL(256, rms_norm_backward_##columns, bf16* __restrict__ gx, float* __restrict__ partial,    \
           const bf16* __restrict__ gy, const bf16* __restrict__ x,                                 \
           const bf16* __restrict__ weight, const float* __restrict__ scales, int rows,             \
           int rows_per_block, int width, int accumulate) {                                         \
        norm_backward<chunks, together>(gx, partial, gy, x, weight, scales, rows, rows_per_block,   \
                                        width, accumulate);                                         \
    }

NORM_KERNELS(2048, 1, 4)
NORM_KERNELS(4096, 2, 2)
NORM_KERNELS(8192, 4, 1)

// into[c] += the sum over rows of partial[row][c]: every 32nd row from each of the first 32, then those
// sums in order. A block takes 32 columns.
KERNEL(1024, add_rows, float* __restrict__ into, const float* __restrict__ partial, int rows,
       int width) {
    __shared__ float room[32][33];
    const int lane = threadIdx.x & 31, group = threadIdx.x >> 5, c = blockIdx.x * 32 + lane;
    float sum = 0.0f;
    if (c < width) {
#pragma unroll 4
        for (int r = group; r < rows; r += 32) sum += partial[u64(r) * width + c];
    }
    room[group][lane] = sum;
    __syncthreads();
    if (group > 0 || c >= width) return;
    float all = 0.0f;
#pragma unroll
    for (int i = 0; i < 32; i++) all += room[i][lane];
    into[c] += all;
}

// LANES threads hold a head of 16 * LANES values: each eight of the first half and the eight that they are
// turned with.
template <int LANES>
struct Head {
    Eight low, high;

    __device__ __forceinline__ void load(const bf16* at, int lane) {
        low = load8(at + lane * 8);
        high = load8(at + (LANES + lane) * 8);
    }

    __device__ __forceinline__ void store(bf16* at, int lane) const {
        store8(at + lane * 8, low);
        store8(at + (LANES + lane) * 8, high);
    }

    // (a, b) -> (a cos - b sin, b cos + a sin); sign -1 turns back.
    __device__ __forceinline__ void rotate(const Eight& cosines, const Eight& sines, float sign) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float c = cosines.v[j], s = sign * sines.v[j];
            const float a = low.v[j], b = high.v[j];
            low.v[j] = a * c - b * s;
            high.v[j] = b * c + a * s;
        }
    }
};

// The sum over the threads of a head, the same in each.
template <int LANES>
__device__ __forceinline__ float head_sum(float x) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// Where a head lies among the columns of its token, of which there are `stride`.
__device__ __forceinline__ u64 place(int item, int heads, int width, int stride) {
    return u64(item / heads) * stride + item % heads * width;
}

// The norm over each head, then its rotation by the position (token mod length). Tables are
// [length, head / 2]. The heads of x lie among other columns, those of y alone.
template <int LANES>
__device__ __forceinline__ void head_forward(const bf16* __restrict__ x, const bf16* __restrict__ weight,
                                             const float* __restrict__ cosines,
                                             const float* __restrict__ sines, bf16* __restrict__ y,
                                             int items, int heads, int stride, int length, float eps) {
    const int lane = threadIdx.x % LANES, width = 16 * LANES;
    const int item = blockIdx.x * (256 / LANES) + threadIdx.x / LANES;
    // Threads behind the last head go along, since lanes add up together.
    const int read = min(item, items - 1);
    const int at = (read / heads % length) * 8 * LANES + lane * 8;
    Head<LANES> head, w;
    head.load(x + place(read, heads, width, stride), lane);
    const Eight c = load8(cosines + at), s = load8(sines + at);
    w.load(weight, lane);
    float squares = 0.0f;
#pragma unroll
    for (int j = 0; j < 8; j++)
        squares += head.low.v[j] * head.low.v[j] + head.high.v[j] * head.high.v[j];
    const float scale = 1.0f / sqrtf(head_sum<LANES>(squares) / float(width) + eps);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        head.low.v[j] = head.low.v[j] * scale * w.low.v[j];
        head.high.v[j] = head.high.v[j] * scale * w.high.v[j];
    }
    head.rotate(c, s, 1.0f);
    if (item < items) head.store(y + u64(item) * width, lane);
}

// gx = s (gw - x m s^2) with gw the gradient turned back times the weight; a block gives
// partial[block] = sum(g x s) of its items, a multiple of 256 / LANES. The heads of x and gx lie among other
// columns, those of gy alone.
template <int LANES>
__device__ __forceinline__ void head_backward(bf16* __restrict__ gx, float* __restrict__ partial,
                                              const bf16* __restrict__ gy, const bf16* __restrict__ x,
                                              const bf16* __restrict__ weight,
                                              const float* __restrict__ cosines,
                                              const float* __restrict__ sines, int items,
                                              int items_per_block, int heads, int stride, int length,
                                              float eps) {
    constexpr int GROUPS = 256 / LANES, width = 16 * LANES;
    __shared__ float sums[GROUPS][width];
    const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
    Head<LANES> w;
    w.load(weight, lane);
    Eight low, high;
#pragma unroll
    for (int j = 0; j < 8; j++) low.v[j] = high.v[j] = 0.0f;
    const int first = blockIdx.x * items_per_block + group;
#pragma unroll 2
    for (int n = 0; n < items_per_block; n += GROUPS) {
        const int item = first + n;
        const int read = min(item, items - 1);
        const int at = (read / heads % length) * 8 * LANES + lane * 8;
        Head<LANES> in, g;
        in.load(x + place(read, heads, width, stride), lane);
        g.load(gy + u64(read) * width, lane);
        const Eight c = load8(cosines + at), sine = load8(sines + at);
        g.rotate(c, sine, -1.0f);
        float squares = 0.0f, pull = 0.0f;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            squares += in.low.v[j] * in.low.v[j] + in.high.v[j] * in.high.v[j];
            pull += g.low.v[j] * w.low.v[j] * in.low.v[j] + g.high.v[j] * w.high.v[j] * in.high.v[j];
        }
        const float s = 1.0f / sqrtf(head_sum<LANES>(squares) / float(width) + eps);
        pull = head_sum<LANES>(pull) / float(width) * s * s;
        if (item >= items) continue;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            low.v[j] += g.low.v[j] * in.low.v[j] * s;
            high.v[j] += g.high.v[j] * in.high.v[j] * s;
            in.low.v[j] = s * (g.low.v[j] * w.low.v[j] - in.low.v[j] * pull);
            in.high.v[j] = s * (g.high.v[j] * w.high.v[j] - in.high.v[j] * pull);
        }
        in.store(gx + place(item, heads, width, stride), lane);
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        sums[group][lane * 8 + j] = low.v[j];
        sums[group][(LANES + lane) * 8 + j] = high.v[j];
    }
    __syncthreads();
    if (threadIdx.x < width) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < GROUPS; i++) sum += sums[i][threadIdx.x];
        partial[u64(blockIdx.x) * width + threadIdx.x] = sum;
    }
}

#define HEAD_KERNELS(size, lanes)                                                                   \
    KERNEL(256, head_norm_rope_forward_##size, const bf16* __restrict__ x,                          \
           const bf16* __restrict__ weight, const float* __restrict__ cosines,                      \
           const float* __restrict__ sines, bf16* __restrict__ y, int items, int heads, int stride, \
           int length, float eps) {                                                                 \
        head_forward<lanes>(x, weight, cosines, sines, y, items, heads, stride, length, eps);       \
    }                                                                                               \
    KERNEL(256, head_norm_rope_backward_##size, bf16* __restrict__ gx, float* __restrict__ partial, \
           const bf16* __restrict__ gy, const bf16* __restrict__ x,                                 \
           const bf16* __restrict__ weight, const float* __restrict__ cosines,                      \
           const float* __restrict__ sines, int items, int items_per_block, int heads, int stride,  \
           int length, float eps) {                                                                 \
        head_backward<lanes>(gx, partial, gy, x, weight, cosines, sines, items, items_per_block,    \
                             heads, stride, length, eps);                                           \
    }

HEAD_KERNELS(64, 4)
HEAD_KERNELS(128, 8)
