// What a kernel sees when it is compiled for the CPU: the built-in names of CUDA, and a scheduler
// that runs the threads of a block as coroutines, one block after the other.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#define CODA_EMULATED 1

typedef unsigned long long u64;
using std::min;

struct alignas(8) int2 { int x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };

#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static

namespace emulator {

struct Index { unsigned x, y, z; };

// What cuLaunchKernel was told.
struct Launch {
    Index grid, block;
    size_t shared;
    void** params;
    bool reverse;
};

constexpr size_t STACK = 64 << 10;
constexpr unsigned WARP = 32;

// A copy to shared memory that was sent and is not waited for yet.
struct Copy {
    void* to;
    const void* from;
    bool there;
};

struct Thread {
    Index index;
    void* stack_pointer;
    bool done;
    std::vector<std::vector<Copy>> groups;
    std::vector<Copy> open;
};

// A place where threads meet: `generation` grows when all that are expected have come.
struct Meeting { unsigned arrived = 0, generation = 0; };

struct Warp {
    Meeting meeting;
    unsigned alive, parity;
    // Room for what the lanes tell each other, twice: who comes to the next meeting early must not
    // overwrite what others still read.
    alignas(16) unsigned char words[2][WARP][64];
    unsigned turn[WARP];
};

static std::vector<Thread> threads;
static std::vector<Warp> warps;
static char* stacks = nullptr;
static void* scheduler;
static Thread* current;
static Index block_index, block_size, grid_size;
static Meeting block_meeting;
static unsigned alive, moves;
static uint4* dynamic_shared = nullptr;
static void (*body)(void**);
static void** arguments;

extern "C" void emulator_switch(void** save, void* load);
#if defined(__x86_64__)
asm(R"(
.text
.local emulator_switch
.type emulator_switch,@function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#else
#error "the emulator's coroutines are written for x86-64"
#endif

static void yield() { emulator_switch(&current->stack_pointer, scheduler); }

static void meet(Meeting& meeting, const unsigned& expected) {
    const unsigned generation = meeting.generation;
    meeting.arrived++;
    moves++;
    while (meeting.generation == generation) {
        // `expected` falls when a thread ends.
        if (meeting.arrived >= expected) {
            meeting.arrived = 0;
            meeting.generation++;
            moves++;
            return;
        }
        yield();
    }
    moves++;
}

static unsigned linear() {
    return current->index.x + block_size.x * (current->index.y + block_size.y * current->index.z);
}

// Gives `mine` to the warp and returns what all lanes gave.
template <class T>
const T* exchange(const T& mine) {
    static_assert(sizeof(T) <= 64, "room of a lane");
    Warp& warp = warps[linear() / WARP];
    const unsigned lane = linear() % WARP, parity = warp.turn[lane]++ & 1;
    unsigned char* room = warp.words[parity][0];
    std::memcpy(room + lane * sizeof(T), &mine, sizeof(T));
    meet(warp.meeting, warp.alive);
    return reinterpret_cast<const T*>(room);
}

static void enter() {
    body(arguments);
    current->done = true;
    alive--;
    warps[linear() / WARP].alive--;
    moves++;
    for (;;) yield();
}

static void* fresh_stack(unsigned at) {
    void** top = reinterpret_cast<void**>(stacks + (at + 1) * STACK);
    *--top = nullptr;  // keeps the stack aligned as at a call
    *--top = reinterpret_cast<void*>(&enter);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    return top;
}

static int run_block(bool reverse) {
    const unsigned count = block_size.x * block_size.y * block_size.z;
    threads.resize(count);
    warps.assign((count + WARP - 1) / WARP, Warp{});
    block_meeting = Meeting{};
    alive = count;
    for (unsigned t = 0; t < count; t++) {
        const unsigned x = t % block_size.x, y = t / block_size.x % block_size.y;
        threads[t] = Thread{{x, y, t / block_size.x / block_size.y}, fresh_stack(t), false, {}, {}};
        warps[t / WARP].alive++;
    }
    while (alive > 0) {
        moves = 0;
        for (unsigned i = 0; i < count; i++) {
            current = &threads[reverse ? count - 1 - i : i];
            if (!current->done) emulator_switch(&scheduler, current->stack_pointer);
        }
        if (moves == 0) {
            std::fprintf(stderr, "emulator: the threads of a block wait for each other for ever\n");
            return 1;
        }
    }
    return 0;
}

// Runs a kernel; what it returns is whether something went wrong.
static int run(const Launch* launch, unsigned limit, void (*kernel)(void**)) {
    block_size = launch->block;
    grid_size = launch->grid;
    const unsigned count = block_size.x * block_size.y * block_size.z;
    if (count > limit) {
        std::fprintf(stderr, "emulator: %u threads in a block, made for %u\n", count, limit);
        return 1;
    }
    body = kernel;
    arguments = launch->params;
    if (stacks == nullptr) stacks = static_cast<char*>(std::aligned_alloc(4096, 1024 * STACK));
    dynamic_shared = static_cast<uint4*>(std::aligned_alloc(256, (launch->shared + 511) / 256 * 256));
    int failed = 0;
    for (unsigned z = 0; z < grid_size.z && !failed; z++)
        for (unsigned y = 0; y < grid_size.y && !failed; y++)
            for (unsigned x = 0; x < grid_size.x && !failed; x++) {
                block_index = Index{x, y, z};
                std::memset(static_cast<void*>(dynamic_shared), 0xff, launch->shared);
                failed = run_block(launch->reverse);
            }
    std::free(dynamic_shared);
    return failed;
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** params, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<A>*>(params[I])...);
}

template <class... A>
void call(void (*kernel)(A...), void** params) {
    call(kernel, params, std::index_sequence_for<A...>{});
}

template <class... A>
int sizes_of(void (*)(A...), int* sizes) {
    const int all[] = {int(sizeof(A))...};
    for (size_t i = 0; i < sizeof...(A); i++) sizes[i] = all[i];
    return int(sizeof...(A));
}

}  // namespace emulator

// A kernel, its parameters' sizes (`_sizes`) and the way to run it (`_run`).
#define KERNEL(threads, name, ...)                                                                \
    void name(__VA_ARGS__);                                                                       \
    extern "C" int name##_sizes(int* sizes) { return emulator::sizes_of(&name, sizes); }          \
    extern "C" int name##_run(const emulator::Launch* launch) {                                   \
        return emulator::run(launch, threads, [](void** params) { emulator::call(&name, params); }); \
    }                                                                                             \
    void name(__VA_ARGS__)
#define DYNAMIC_SHARED(name) uint4* name = emulator::dynamic_shared

#define threadIdx (emulator::current->index)
#define blockIdx (emulator::block_index)
#define blockDim (emulator::block_size)
#define gridDim (emulator::grid_size)

inline void __syncthreads() { emulator::meet(emulator::block_meeting, emulator::alive); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    return emulator::exchange(value)[(emulator::linear() % emulator::WARP) ^ unsigned(mask)];
}

// Copies happen when they are waited for, so that what is read too early is not there.
inline void copy16(void* to, const void* from, bool there) {
    emulator::current->open.push_back({to, from, there});
}

inline void copies_sent() {
    emulator::current->groups.push_back(std::move(emulator::current->open));
    emulator::current->open.clear();
}

template <int LATER>
void copies_there() {
    auto& groups = emulator::current->groups;
    while (groups.size() > LATER) {
        for (const emulator::Copy& copy : groups.front()) {
            if (copy.there) std::memcpy(copy.to, copy.from, 16);
            else std::memset(copy.to, 0, 16);
        }
        groups.erase(groups.begin());
    }
}

inline float power2(float x) {
    const float y = std::exp2(x);
    return y < 1.17549435e-38f ? 0.0f : y;
}

inline float from_bits(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// To the nearest bf16, ties to even; a NaN stays one.
inline unsigned rounded(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return 0x7fff;
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

inline unsigned pack2(float low, float high) { return rounded(low) | rounded(high) << 16; }

namespace emulator {

inline float half_of(unsigned word, unsigned high) {
    return from_bits(high ? word & 0xffff0000u : word << 16);
}

struct Fragments { unsigned a[4], b[2]; };

}  // namespace emulator

// The PTX manual, "Matrix fragments for mma.m16n8k16": with g = lane / 4 and t = lane % 4, register
// i of the left factor holds row g + 8 (i % 2), columns 2 t + 8 (i / 2) and the next; register i of
// the right factor rows 2 t + 8 i and the next of column g; the sum's elements 0, 1 lie in row g,
// columns 2 t and the next, 2 and 3 eight rows below.
inline void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    const emulator::Fragments own = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
    const emulator::Fragments* all = emulator::exchange(own);
    const unsigned lane = emulator::linear() % emulator::WARP;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
        float sum = 0.0f;
        for (unsigned k = 0; k < 16; k++) {
            const unsigned from = k % 8 / 2, upper = k / 8;
            const unsigned left = all[row % 8 * 4 + from].a[row / 8 + 2 * upper];
            const unsigned right = all[column * 4 + from].b[upper];
            sum += emulator::half_of(left, k & 1) * emulator::half_of(right, k & 1);
        }
        d[i] += sum;
    }
}

// ldmatrix: lanes 8 i .. 8 i + 7 name the rows of tile i; lane l receives of every tile row l / 4,
// columns 2 (l % 4) and the next, or with `transposed` rows and columns exchanged.
inline void load_tiles_as(unsigned (&r)[4], const void* row, bool transposed) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
        std::fprintf(stderr, "emulator: a row of a tile does not lie at a multiple of 16 bytes\n");
        std::abort();
    }
    const unsigned short* own = static_cast<const unsigned short*>(row);
    const unsigned short* const* rows = emulator::exchange(own);
    const unsigned lane = emulator::linear() % emulator::WARP;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned line = lane / 4, column = lane % 4 * 2;
        const unsigned low = transposed ? rows[8 * i + column][line] : rows[8 * i + line][column];
        const unsigned high =
            transposed ? rows[8 * i + column + 1][line] : rows[8 * i + line][column + 1];
        r[i] = low | high << 16;
    }
}

inline void load_tiles(unsigned (&r)[4], const void* row) { load_tiles_as(r, row, false); }
inline void load_tiles_transposed(unsigned (&r)[4], const void* row) { load_tiles_as(r, row, true); }
