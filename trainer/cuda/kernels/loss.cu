// Cross entropy over a chunk of logits.

// The largest value so far and the sum of exp(value - largest).
struct Running {
    float most, sum;

    __device__ __forceinline__ void add(float x) {
        if (x > most) {
            sum = sum * expf(most - x) + 1.0f;
            most = x;
        } else {
            sum += expf(x - most);
        }
    }

    __device__ __forceinline__ void add(const float4& x) {
        const float larger = fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w));
        if (larger > most) {
            sum *= expf(most - larger);
            most = larger;
        }
        sum += expf(x.x - most) + expf(x.y - most) + (expf(x.z - most) + expf(x.w - most));
    }

    __device__ __forceinline__ void merge(float other_most, float other_sum) {
        const float larger = fmaxf(most, other_most);
        sum = sum * expf(most - larger) + other_sum * expf(other_most - larger);
        most = larger;
    }
};

// For every token i: losses[i] = log(sum(exp(logits[i]))) - logits[i][targets[i]], and, if grad is
// there, grad[i] = (softmax(logits[i]) - onehot) * scales[i]. One block a token. The largest finite
// negative number stands for "nothing yet", so that no difference of infinities is taken.
KERNEL(512, cross_entropy, const float* __restrict__ logits, const unsigned* __restrict__ targets,
       const float* __restrict__ scales, float* __restrict__ losses, bf16* __restrict__ grad,
       int vocabulary) {
    __shared__ float mosts[16], sums[16];
    const float* row = logits + u64(blockIdx.x) * vocabulary;
    Running own = {-3.0e38f, 0.0f};
    // Four at a time, if every row begins where four do.
    const int fours = vocabulary % 4 == 0 ? vocabulary / 4 : 0;
    const float4* row4 = reinterpret_cast<const float4*>(row);
#pragma unroll 4
    for (int v = threadIdx.x; v < fours; v += 512) own.add(row4[v]);
    for (int v = 4 * fours + threadIdx.x; v < vocabulary; v += 512) own.add(row[v]);
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
        const float most = __shfl_xor_sync(0xffffffffu, own.most, step);
        const float sum = __shfl_xor_sync(0xffffffffu, own.sum, step);
        own.merge(most, sum);
    }
    if ((threadIdx.x & 31) == 0) {
        mosts[threadIdx.x >> 5] = own.most;
        sums[threadIdx.x >> 5] = own.sum;
    }
    __syncthreads();
    Running all = {mosts[0], sums[0]};
#pragma unroll
    for (int i = 1; i < 16; i++) all.merge(mosts[i], sums[i]);
    const int target = int(targets[blockIdx.x]);
    const float log_sum = all.most + logf(all.sum);
    if (threadIdx.x == 0) losses[blockIdx.x] = log_sum - row[target];
    if (grad == nullptr) return;
    const float scale = scales[blockIdx.x];
    bf16* out = grad + u64(blockIdx.x) * vocabulary;
    const auto of = [&](int v, float logit) {
        const float p = expf(logit - log_sum);
        return (v == target ? p - 1.0f : p) * scale;
    };
#pragma unroll 4
    for (int v = threadIdx.x; v < fours; v += 512) {
        const float4 x = row4[v];
        const unsigned low = pack2(of(4 * v, x.x), of(4 * v + 1, x.y));
        const unsigned high = pack2(of(4 * v + 2, x.z), of(4 * v + 3, x.w));
        reinterpret_cast<uint2*>(out)[v] = uint2{low, high};
    }
    for (int v = 4 * fours + threadIdx.x; v < vocabulary; v += 512) out[v] = narrow(of(v, row[v]));
}
