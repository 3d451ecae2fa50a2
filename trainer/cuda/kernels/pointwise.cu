// SwiGLU, sums, casts, and moving rows. A thread takes eight values where nothing else is said.

// y = silu(gate) * up by rows: a row of gate_up has `inner` values of the gate, then as many of up. A block
// takes 2048 columns of a row, which has `blocks` of them.
KERNEL(256, swiglu_forward, const bf16* __restrict__ gate_up, bf16* __restrict__ y, int inner, int blocks) {
    const u64 row = blockIdx.x / blocks;
    const int c = (int(blockIdx.x) % blocks * 256 + int(threadIdx.x)) * 8;
    if (c >= inner) return;
    const bf16* gate = gate_up + row * 2 * inner + c;
    const Eight g = load8(gate), u = load8(gate + inner);
    Eight out;
#pragma unroll
    for (int i = 0; i < 8; i++) out.v[i] = g.v[i] / (1.0f + expf(-g.v[i])) * u.v[i];
    store8(y + row * inner + c, out);
}

// With s = sigmoid(gate): g_gate = gy up (s + gate s (1 - s)), g_up = gy gate s.
KERNEL(256, swiglu_backward, bf16* __restrict__ g_gate_up, const bf16* __restrict__ gy,
       const bf16* __restrict__ gate_up, int inner, int blocks) {
    const u64 row = blockIdx.x / blocks;
    const int c = (int(blockIdx.x) % blocks * 256 + int(threadIdx.x)) * 8;
    if (c >= inner) return;
    const u64 at = row * 2 * inner + c;
    const Eight g = load8(gate_up + at), u = load8(gate_up + at + inner);
    const Eight grad = load8(gy + row * inner + c);
    Eight of_gate, of_up;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float s = 1.0f / (1.0f + expf(-g.v[i]));
        const float silu = g.v[i] * s;
        of_gate.v[i] = grad.v[i] * u.v[i] * (s + silu * (1.0f - s));
        of_up.v[i] = grad.v[i] * silu;
    }
    store8(g_gate_up + at, of_gate);
    store8(g_gate_up + at + inner, of_up);
}

// into += from.
KERNEL(256, add_into, bf16* __restrict__ into, const bf16* __restrict__ from, u64 eights) {
    const u64 at = u64(blockIdx.x) * 256 + threadIdx.x;
    if (at >= eights) return;
    Eight a = load8(into + at * 8);
    const Eight b = load8(from + at * 8);
#pragma unroll
    for (int i = 0; i < 8; i++) a.v[i] += b.v[i];
    store8(into + at * 8, a);
}

// into += from, f32.
KERNEL(256, add_floats, float* __restrict__ into, const float* __restrict__ from, u64 count) {
    const u64 first = u64(blockIdx.x) * 1024 + threadIdx.x;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const u64 at = first + 256 * k;
        if (at < count) into[at] += from[at];
    }
}

// Rounds f32 values to bf16. Counts need not be multiples of eight.
KERNEL(256, round_to_bf16, const float* __restrict__ from, bf16* __restrict__ into, u64 count) {
    const u64 at = u64(blockIdx.x) * 256 + threadIdx.x;
    if (at < count) into[at] = narrow(from[at]);
}

// out[i] = rows[indices[i]]: embeddings of ids, or hidden states of scored tokens. One block a row.
KERNEL(128, gather_rows, const bf16* __restrict__ rows, const unsigned* __restrict__ indices,
       bf16* __restrict__ out, int width) {
    const u64 from = u64(indices[blockIdx.x]) * width, to = u64(blockIdx.x) * width;
    for (int c = threadIdx.x * 8; c < width; c += 128 * 8) store8(out + to + c, load8(rows + from + c));
}

// out[indices[i]] = rows[i]; no index comes twice.
KERNEL(128, scatter_rows, const bf16* __restrict__ rows, const unsigned* __restrict__ indices,
       bf16* __restrict__ out, int width) {
    const u64 from = u64(blockIdx.x) * width, to = u64(indices[blockIdx.x]) * width;
    for (int c = threadIdx.x * 8; c < width; c += 128 * 8) store8(out + to + c, load8(rows + from + c));
}

// The gradient of embeddings: grad[ids[i]] += the sum of gy[tokens[k]] for k in
// starts[i]..starts[i + 1], first token first. Grid (ids that occur, pieces of 256 columns): nothing is
// written by two blocks. Every second token may be the mask, so the loop reads ahead of its sums.
KERNEL(32, embedding_backward, float* __restrict__ grad, const bf16* __restrict__ gy,
       const unsigned* __restrict__ ids, const unsigned* __restrict__ starts,
       const unsigned* __restrict__ tokens, int width) {
    const int c = (blockIdx.y * 32 + threadIdx.x) * 8;
    if (c >= width) return;
    const unsigned first = starts[blockIdx.x], last = starts[blockIdx.x + 1];
    float sums[8];
#pragma unroll
    for (int i = 0; i < 8; i++) sums[i] = 0.0f;
    unsigned k = first;
    for (; k + 8 <= last; k += 8) {
        Eight g[8];
#pragma unroll
        for (int n = 0; n < 8; n++) g[n] = load8(gy + u64(tokens[k + n]) * width + c);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 8; i++) sums[i] += g[n].v[i];
    }
    for (; k < last; k++) {
        const Eight g = load8(gy + u64(tokens[k]) * width + c);
#pragma unroll
        for (int i = 0; i < 8; i++) sums[i] += g.v[i];
    }
    float* into = grad + u64(ids[blockIdx.x]) * width + c;
#pragma unroll
    for (int i = 0; i < 8; i++) into[i] += sums[i];
}
