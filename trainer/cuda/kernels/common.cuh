// What all kernels share: bf16 storage, sums over a block, tensor-core products.
//
// The kernels include nothing, so that NVRTC alone compiles them. The same text is compiled for the
// CPU by the emulator (trainer/cuda/emulator), which defines CODA_EMULATED and gives the built-in
// names and the few instructions below a meaning of their own.

#ifndef CODA_EMULATED

typedef unsigned long long u64;

#define KERNEL(threads, name, ...) \
    extern "C" __global__ void __launch_bounds__(threads, 1) name(__VA_ARGS__)
#define DYNAMIC_SHARED(name) extern __shared__ uint4 name[]

// Rounds two values to bf16, ties to even; `low` lies at the lower address.
__device__ __forceinline__ unsigned pack2(float low, float high) {
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

__device__ __forceinline__ float from_bits(unsigned bits) { return __uint_as_float(bits); }

// d += a * b for a 16 x 16 (row-major) by 16 x 8 (column-major) tile of bf16, summed in f32.
__device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 tiles of bf16 from shared memory; each lane names one row of 16 bytes.
__device__ __forceinline__ void load_tiles(unsigned (&r)[4], const void* row) {
    unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

// The same, every tile transposed.
__device__ __forceinline__ void load_tiles_transposed(unsigned (&r)[4], const void* row) {
    unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

// Sends 16 bytes to shared memory, beside the work; zeros if they are not there.
__device__ __forceinline__ void copy16(void* to, const void* from, bool there) {
    unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(address), "l"(from), "r"(there ? 16 : 0) : "memory");
}

// Closes a group of copies.
__device__ __forceinline__ void copies_sent() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until this thread's groups have arrived, but for the newest LATER of them.
template <int LATER>
__device__ __forceinline__ void copies_there() {
    asm volatile("cp.async.wait_group %0;" :: "n"(LATER) : "memory");
}

// 2^x; 0 where the result would be below the smallest normal number.
__device__ __forceinline__ float power2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif

typedef unsigned short bf16;

__device__ __forceinline__ float widen(bf16 x) { return from_bits(unsigned(x) << 16); }
__device__ __forceinline__ bf16 narrow(float x) { return bf16(pack2(x, 0.0f) & 0xffffu); }

// Eight values: of bf16 16 bytes, of f32 twice as many.
struct Eight {
    float v[8];
};

__device__ __forceinline__ Eight unpack8(uint4 raw) {
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
    Eight out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out.v[2 * i] = from_bits(words[i] << 16);
        out.v[2 * i + 1] = from_bits(words[i] & 0xffff0000u);
    }
    return out;
}

__device__ __forceinline__ uint4 pack8(const Eight& x) {
    uint4 out;
    out.x = pack2(x.v[0], x.v[1]);
    out.y = pack2(x.v[2], x.v[3]);
    out.z = pack2(x.v[4], x.v[5]);
    out.w = pack2(x.v[6], x.v[7]);
    return out;
}

__device__ __forceinline__ Eight load8(const bf16* at) {
    return unpack8(*reinterpret_cast<const uint4*>(at));
}

__device__ __forceinline__ Eight load8(const float* at) {
    const float4 a = reinterpret_cast<const float4*>(at)[0], b = reinterpret_cast<const float4*>(at)[1];
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

__device__ __forceinline__ void store8(bf16* at, const Eight& x) {
    *reinterpret_cast<uint4*>(at) = pack8(x);
}

// The sum over a warp, the same in every lane.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// The sum over a block of THREADS, the same in every thread; warps are added in order. `room` holds
// one value a warp and may be used again behind the next barrier.
template <int THREADS, typename T>
__device__ __forceinline__ T block_sum(T x, T* room) {
    x = warp_sum(x);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) room[threadIdx.x >> 5] = x;
    __syncthreads();
    T sum = room[0];
#pragma unroll
    for (int i = 1; i < THREADS / 32; i++) sum += room[i];
    return sum;
}
