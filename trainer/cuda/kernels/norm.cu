// RMSNorm over rows, and RMSNorm over heads with the rotation of positions.

// y = x / sqrt(mean(x^2) + eps) * weight, row by row; scales keeps 1 / sqrt(..). One block a row;
// width is a multiple of 8.
KERNEL(256, rms_norm_forward, const bf16* __restrict__ x, const bf16* __restrict__ weight,
       bf16* __restrict__ y, float* __restrict__ scales, int width, float eps) {
    __shared__ float room[8];
    const u64 row = u64(blockIdx.x) * width;
    float squares = 0.0f;
    for (int c = threadIdx.x * 8; c < width; c += 256 * 8) {
        const Eight in = load8(x + row + c);
#pragma unroll
        for (int i = 0; i < 8; i++) squares += in.v[i] * in.v[i];
    }
    const float mean = block_sum<256>(squares, room) / float(width);
    const float scale = 1.0f / sqrtf(mean + eps);
    if (threadIdx.x == 0) scales[blockIdx.x] = scale;
    for (int c = threadIdx.x * 8; c < width; c += 256 * 8) {
        Eight in = load8(x + row + c);
        const Eight w = load8(weight + c);
#pragma unroll
        for (int i = 0; i < 8; i++) in.v[i] = in.v[i] * scale * w.v[i];
        store8(y + row + c, in);
    }
}

// Chunks of 2048 columns that a thread keeps sums for.
#define NORM_CHUNKS 4

// With s the row's scale and m = sum(gy w x) / width: gx (+)= s (gy w - x m s^2); the block's rows
// give partial[block] = sum(gy x s). A block takes rows_per_block rows; width is at most
// NORM_CHUNKS * 2048.
KERNEL(256, rms_norm_backward, bf16* __restrict__ gx, float* __restrict__ partial,
       const bf16* __restrict__ gy, const bf16* __restrict__ x, const bf16* __restrict__ weight,
       const float* __restrict__ scales, int rows, int rows_per_block, int width, int accumulate) {
    __shared__ float room[8];
    float sums[NORM_CHUNKS][8];
#pragma unroll
    for (int k = 0; k < NORM_CHUNKS; k++)
#pragma unroll
        for (int i = 0; i < 8; i++) sums[k][i] = 0.0f;
    const int first = blockIdx.x * rows_per_block;
    const int last = min(first + rows_per_block, rows);
    for (int r = first; r < last; r++) {
        const u64 row = u64(r) * width;
        const float s = scales[r];
        float pull = 0.0f;
#pragma unroll
        for (int k = 0; k < NORM_CHUNKS; k++) {
            const int c = (k * 256 + threadIdx.x) * 8;
            if (c < width) {
                const Eight g = load8(gy + row + c), in = load8(x + row + c), w = load8(weight + c);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    pull += g.v[i] * w.v[i] * in.v[i];
                    sums[k][i] += g.v[i] * in.v[i] * s;
                }
            }
        }
        pull = block_sum<256>(pull, room) / float(width) * s * s;
#pragma unroll
        for (int k = 0; k < NORM_CHUNKS; k++) {
            const int c = (k * 256 + threadIdx.x) * 8;
            if (c < width) {
                const Eight g = load8(gy + row + c), in = load8(x + row + c), w = load8(weight + c);
                Eight out;
                if (accumulate) {
                    out = load8(gx + row + c);
                } else {
#pragma unroll
                    for (int i = 0; i < 8; i++) out.v[i] = 0.0f;
                }
#pragma unroll
                for (int i = 0; i < 8; i++) out.v[i] += s * (g.v[i] * w.v[i] - in.v[i] * pull);
                store8(gx + row + c, out);
            }
        }
    }
    float* into = partial + u64(blockIdx.x) * width;
#pragma unroll
    for (int k = 0; k < NORM_CHUNKS; k++) {
        const int c = (k * 256 + threadIdx.x) * 8;
        if (c < width) {
#pragma unroll
            for (int i = 0; i < 8; i++) into[c + i] = sums[k][i];
        }
    }
}

// into[c] += the sum over rows of partial[row][c], first row first.
KERNEL(256, add_rows, float* __restrict__ into, const float* __restrict__ partial, int rows,
       int width) {
    const int c = blockIdx.x * 256 + threadIdx.x;
    if (c >= width) return;
    float sum = 0.0f;
    for (int r = 0; r < rows; r++) sum += partial[u64(r) * width + c];
    into[c] += sum;
}

// One warp holds a head: lane l the values l * EACH + j of both halves.
template <int EACH>
struct Head {
    float low[EACH], high[EACH];

    __device__ __forceinline__ void load(const bf16* at, int lane) {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            low[j] = widen(at[lane * EACH + j]);
            high[j] = widen(at[(32 + lane) * EACH + j]);
        }
    }

    __device__ __forceinline__ void store(bf16* at, int lane) const {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            at[lane * EACH + j] = narrow(low[j]);
            at[(32 + lane) * EACH + j] = narrow(high[j]);
        }
    }

    // (a, b) -> (a cos - b sin, b cos + a sin); sign -1 turns back.
    __device__ __forceinline__ void rotate(const float* cosines, const float* sines, int lane,
                                           float sign) {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const float c = cosines[lane * EACH + j], s = sign * sines[lane * EACH + j];
            const float a = low[j], b = high[j];
            low[j] = a * c - b * s;
            high[j] = b * c + a * s;
        }
    }
};

// The norm over each head, then its rotation by the position (token mod length). A warp takes one
// head of one token at a time. Tables are [length, head / 2].
template <int EACH>
__device__ __forceinline__ void head_forward(const bf16* x, const bf16* weight, const float* cosines,
                                             const float* sines, bf16* y, int items, int heads,
                                             int length, float eps) {
    const int lane = threadIdx.x & 31, width = 64 * EACH;
    const int item = blockIdx.x * 8 + (threadIdx.x >> 5);
    if (item >= items) return;
    Head<EACH> head, w;
    head.load(x + u64(item) * width, lane);
    w.load(weight, lane);
    float squares = 0.0f;
#pragma unroll
    for (int j = 0; j < EACH; j++) squares += head.low[j] * head.low[j] + head.high[j] * head.high[j];
    const float scale = 1.0f / sqrtf(warp_sum(squares) / float(width) + eps);
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        head.low[j] = head.low[j] * scale * w.low[j];
        head.high[j] = head.high[j] * scale * w.high[j];
    }
    const int at = (item / heads % length) * 32 * EACH;
    head.rotate(cosines + at, sines + at, lane, 1.0f);
    head.store(y + u64(item) * width, lane);
}

// gx = s (gw - x m s^2) with gw the gradient turned back times the weight; a block gives
// partial[block] = sum(g x s) of its items. A warp takes every eighth item of the block's.
template <int EACH>
__device__ __forceinline__ void head_backward(bf16* gx, float* partial, const bf16* gy, const bf16* x,
                                              const bf16* weight, const float* cosines,
                                              const float* sines, int items, int items_per_block,
                                              int heads, int length, float eps) {
    __shared__ float sums[8][64 * EACH];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, width = 64 * EACH;
    Head<EACH> w;
    w.load(weight, lane);
    float low[EACH], high[EACH];
#pragma unroll
    for (int j = 0; j < EACH; j++) low[j] = high[j] = 0.0f;
    const int first = blockIdx.x * items_per_block;
    const int last = min(first + items_per_block, items);
    for (int item = first + warp; item < last; item += 8) {
        Head<EACH> in, g;
        in.load(x + u64(item) * width, lane);
        g.load(gy + u64(item) * width, lane);
        const int at = (item / heads % length) * 32 * EACH;
        g.rotate(cosines + at, sines + at, lane, -1.0f);
        float squares = 0.0f, pull = 0.0f;
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            squares += in.low[j] * in.low[j] + in.high[j] * in.high[j];
            pull += g.low[j] * w.low[j] * in.low[j] + g.high[j] * w.high[j] * in.high[j];
        }
        const float s = 1.0f / sqrtf(warp_sum(squares) / float(width) + eps);
        pull = warp_sum(pull) / float(width) * s * s;
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            low[j] += g.low[j] * in.low[j] * s;
            high[j] += g.high[j] * in.high[j] * s;
            in.low[j] = s * (g.low[j] * w.low[j] - in.low[j] * pull);
            in.high[j] = s * (g.high[j] * w.high[j] - in.high[j] * pull);
        }
        in.store(gx + u64(item) * width, lane);
    }
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        sums[warp][lane * EACH + j] = low[j];
        sums[warp][(32 + lane) * EACH + j] = high[j];
    }
    __syncthreads();
    if (threadIdx.x < width) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; i++) sum += sums[i][threadIdx.x];
        partial[u64(blockIdx.x) * width + threadIdx.x] = sum;
    }
}

#define HEAD_KERNELS(size, each)                                                                    \
    KERNEL(256, head_norm_rope_forward_##size, const bf16* __restrict__ x,                          \
           const bf16* __restrict__ weight, const float* __restrict__ cosines,                      \
           const float* __restrict__ sines, bf16* __restrict__ y, int items, int heads, int length, \
           float eps) {                                                                             \
        head_forward<each>(x, weight, cosines, sines, y, items, heads, length, eps);                \
    }                                                                                               \
    KERNEL(256, head_norm_rope_backward_##size, bf16* __restrict__ gx, float* __restrict__ partial, \
           const bf16* __restrict__ gy, const bf16* __restrict__ x,                                 \
           const bf16* __restrict__ weight, const float* __restrict__ cosines,                      \
           const float* __restrict__ sines, int items, int items_per_block, int heads, int length,  \
           float eps) {                                                                             \
        head_backward<each>(gx, partial, gy, x, weight, cosines, sines, items, items_per_block,     \
                            heads, length, eps);                                                    \
    }

HEAD_KERNELS(64, 1)
HEAD_KERNELS(128, 2)
