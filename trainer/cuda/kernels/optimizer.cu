// The global norm, AdamW and Adafactor. Gradients come multiplied by `clip`, which the host knows.

// Values that one block of a sum takes.
#define SUM_CHUNK 16384

// partial[block] = the sum of squares of the block's chunk, in f64.
KERNEL(256, squares, const float* __restrict__ values, double* __restrict__ partial, u64 count) {
    __shared__ double room[8];
    const u64 first = u64(blockIdx.x) * SUM_CHUNK;
    const u64 last = first + SUM_CHUNK < count ? first + SUM_CHUNK : count;
    double sum = 0.0;
    for (u64 i = first + threadIdx.x; i < last; i += 256) sum += double(values[i]) * double(values[i]);
    sum = block_sum<256>(sum, room);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// out[0] = the sum of values; one block, the same order whatever the card.
KERNEL(256, total, const double* __restrict__ values, double* __restrict__ out, int count) {
    __shared__ double room[8];
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += 256) sum += values[i];
    sum = block_sum<256>(sum, room);
    if (threadIdx.x == 0) out[0] = sum;
}

// A weight: the f32 master copy if there is one, and what the model computes with.
struct Parameter {
    float* master;
    bf16* weights;

    __device__ __forceinline__ float get(u64 i) const {
        return master != nullptr ? master[i] : widen(weights[i]);
    }

    __device__ __forceinline__ void set(u64 i, float value) const {
        if (master != nullptr) master[i] = value;
        weights[i] = narrow(value);
    }
};

// The numbers of a step of AdamW.
struct Adam {
    float clip, beta1, rest1, beta2, rest2, eps, step_size, root_of_correction, keep;

    __device__ __forceinline__ float step(float p, float grad, float& m, float& v) const {
        const float g = grad * clip;
        m = beta1 * m + rest1 * g;
        v = beta2 * v + rest2 * g * g;
        return p * keep - step_size * (m / (sqrtf(v) / root_of_correction + eps));
    }
};

// A thread takes four values; all arrays begin where four do.
KERNEL(256, adamw, float* __restrict__ master, bf16* __restrict__ weights,
       const float* __restrict__ grad, float* __restrict__ first, float* __restrict__ second,
       u64 count, float clip, float beta1, float rest1, float beta2, float rest2, float eps,
       float step_size, float root_of_correction, float keep) {
    const Adam adam = {clip, beta1, rest1, beta2, rest2, eps, step_size, root_of_correction, keep};
    const u64 four = u64(blockIdx.x) * 256 + threadIdx.x, i = 4 * four;
    if (i + 4 > count) {
        const Parameter parameter = {master, weights};
        for (u64 k = i; k < count; k++)
            parameter.set(k, adam.step(parameter.get(k), grad[k], first[k], second[k]));
        return;
    }
    const float4 g = reinterpret_cast<const float4*>(grad)[four];
    float4 m = reinterpret_cast<float4*>(first)[four], v = reinterpret_cast<float4*>(second)[four];
    float4 p;
    if (master != nullptr) {
        p = reinterpret_cast<float4*>(master)[four];
    } else {
        const uint2 raw = reinterpret_cast<uint2*>(weights)[four];
        p = {from_bits(raw.x << 16), from_bits(raw.x & 0xffff0000u), from_bits(raw.y << 16),
             from_bits(raw.y & 0xffff0000u)};
    }
    p.x = adam.step(p.x, g.x, m.x, v.x);
    p.y = adam.step(p.y, g.y, m.y, v.y);
    p.z = adam.step(p.z, g.z, m.z, v.z);
    p.w = adam.step(p.w, g.w, m.w, v.w);
    reinterpret_cast<float4*>(first)[four] = m;
    reinterpret_cast<float4*>(second)[four] = v;
    if (master != nullptr) reinterpret_cast<float4*>(master)[four] = p;
    reinterpret_cast<uint2*>(weights)[four] = uint2{pack2(p.x, p.y), pack2(p.z, p.w)};
}

// The row averages of a matrix: one block a row.
KERNEL(256, adafactor_rows, const float* __restrict__ grad, float* __restrict__ row, int columns,
       float clip, double beta2, double eps) {
    __shared__ double room[8];
    const float* line = grad + u64(blockIdx.x) * columns;
    double sum = 0.0;
    for (int c = threadIdx.x; c < columns; c += 256) {
        const double g = double(line[c] * clip);
        sum += g * g;
    }
    sum = block_sum<256>(sum, room);
    if (threadIdx.x == 0)
        row[blockIdx.x] =
            float(beta2 * double(row[blockIdx.x]) + (1.0 - beta2) * (sum / columns + eps));
}

// Rows that one block of column sums takes.
#define COLUMN_ROWS 128

// partial[chunk][c] = the sum of squares of column c over the chunk's rows.
KERNEL(256, adafactor_column_sums, const float* __restrict__ grad, double* __restrict__ partial,
       int rows, int columns, float clip) {
    const int c = blockIdx.x * 256 + threadIdx.x;
    if (c >= columns) return;
    const int first = blockIdx.y * COLUMN_ROWS, last = min(first + COLUMN_ROWS, rows);
    double sum = 0.0;
    for (int r = first; r < last; r++) {
        const double g = double(grad[u64(r) * columns + c] * clip);
        sum += g * g;
    }
    partial[u64(blockIdx.y) * columns + c] = sum;
}

// The column averages from the chunks' sums, first chunk first.
KERNEL(256, adafactor_columns, const double* __restrict__ partial, float* __restrict__ column,
       int chunks, int rows, int columns, double beta2, double eps) {
    const int c = blockIdx.x * 256 + threadIdx.x;
    if (c >= columns) return;
    double sum = 0.0;
    for (int k = 0; k < chunks; k++) sum += partial[u64(k) * columns + c];
    column[c] = float(beta2 * double(column[c]) + (1.0 - beta2) * (sum / rows + eps));
}

// out[0] = mean(row), one block.
KERNEL(256, adafactor_row_mean, const float* __restrict__ row, double* __restrict__ out, int rows) {
    __shared__ double room[8];
    double sum = 0.0;
    for (int r = threadIdx.x; r < rows; r += 256) sum += double(row[r]);
    sum = block_sum<256>(sum, room);
    if (threadIdx.x == 0) out[0] = sum / rows;
}

// What a gradient is multiplied by: sqrt(mean(row) / row) / sqrt(column).
struct Factored {
    const float *row, *column;
    double row_mean;

    __device__ __forceinline__ float update(float g, int r, int c) const {
        const float by_row = float(sqrt(row_mean / double(row[r])));
        const float by_column = float(1.0 / sqrt(double(column[c])));
        return g * by_row * by_column;
    }
};

// partial[row] = the sum of squared updates of a row.
KERNEL(256, adafactor_update_squares, const float* __restrict__ grad, const float* __restrict__ row,
       const float* __restrict__ column, const double* __restrict__ row_mean,
       double* __restrict__ partial, int columns, float clip) {
    __shared__ double room[8];
    const Factored f = {row, column, row_mean[0]};
    const u64 line = u64(blockIdx.x) * columns;
    double sum = 0.0;
    for (int c = threadIdx.x; c < columns; c += 256) {
        const double u = double(f.update(grad[line + c] * clip, blockIdx.x, c));
        sum += u * u;
    }
    sum = block_sum<256>(sum, room);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__device__ __forceinline__ float size_of_step(double squares, double elements, double lr,
                                              double threshold) {
    const double ratio = sqrt(squares / elements) / threshold;
    return float(lr / (ratio > 1.0 ? ratio : 1.0));
}

// The step itself: one block a row; squares[0] is the sum over all rows.
KERNEL(256, adafactor_apply, float* __restrict__ master, bf16* __restrict__ weights,
       const float* __restrict__ grad, const float* __restrict__ row,
       const float* __restrict__ column, const double* __restrict__ row_mean,
       const double* __restrict__ squares, int rows, int columns, float clip, double lr,
       double threshold, float keep) {
    const Parameter p = {master, weights};
    const Factored f = {row, column, row_mean[0]};
    const float size = size_of_step(squares[0], double(rows) * columns, lr, threshold);
    const u64 line = u64(blockIdx.x) * columns;
    for (int c = threadIdx.x; c < columns; c += 256) {
        const float u = f.update(grad[line + c] * clip, blockIdx.x, c);
        p.set(line + c, p.get(line + c) * keep - size * u);
    }
}

// A vector, whose elements have second moments of their own: one block does all of it.
KERNEL(256, adafactor_vector, float* __restrict__ master, bf16* __restrict__ weights,
       const float* __restrict__ grad, float* __restrict__ square, int count, float clip,
       double beta2, double eps, double lr, double threshold, float keep) {
    __shared__ double room[8];
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += 256) {
        const double g = double(grad[i] * clip);
        square[i] = float(beta2 * double(square[i]) + (1.0 - beta2) * (g * g + eps));
        const double u = double(float(g / sqrt(double(square[i]))));
        sum += u * u;
    }
    sum = block_sum<256>(sum, room);
    const float size = size_of_step(sum, count, lr, threshold);
    const Parameter p = {master, weights};
    for (int i = threadIdx.x; i < count; i += 256) {
        const float u = float(double(grad[i] * clip) / sqrt(double(square[i])));
        p.set(i, p.get(i) * keep - size * u);
    }
}
