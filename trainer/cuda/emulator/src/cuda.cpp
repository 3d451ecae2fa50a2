// A stand-in for libcuda: memory is the process's, streams are queues that run when something waits
// for them, and a module is a library that the stand-in for NVRTC has made of kernels.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace {

enum Result { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, LAUNCH_FAILED = 719 };

struct Index { unsigned x, y, z; };
struct Launch {
    Index grid, block;
    size_t shared;
    void** params;
    bool reverse;
};

struct Stream {
    int card = 0;
    // A task that is not ready is asked again.
    std::deque<std::function<int()>> waiting;
    uint64_t queued = 0, done = 0;
};

// A clock that ticks with every mark stands for the time.
struct Event { Stream* stream = nullptr; uint64_t at = 0, tick = 0; };

struct Function {
    int (*run)(const Launch*);
    std::vector<int> sizes;
    // 48 KiB on a card, of which the kernel's own shared memory is taken.
    int shared_limit = 40 << 10;
};

constexpr size_t GUARD = 64;
constexpr unsigned char GUARD_BYTE = 0xa5;

std::recursive_mutex lock;
std::map<uintptr_t, size_t> allocations;
std::set<void*> pinned;
std::set<Stream*> streams;
size_t used = 0;
uint64_t ticks = 0;
bool reverse_order = false;

// Cards share the memory; a context only tells which card a thread has.
constexpr int MOST_CARDS = 8;
char contexts[MOST_CARDS];
thread_local void* current = nullptr;
int holders[MOST_CARDS];

// What a card answers once a task has failed, until nobody holds its context any more.
int failures[MOST_CARDS];

// What can be made to fail, how often each card has done it, and the one that fails, or 0.
enum Kind { TASK, ALLOCATION, GROUP, KINDS };
int64_t done_of[MOST_CARDS][KINDS], breaks_at[MOST_CARDS][KINDS];

// Longer than any card of a test is at work: who waits for so long waits for what never comes.
constexpr auto PATIENCE = std::chrono::seconds(60);

// As the environment says: a card, a kind and a number, such as 2,0,500.
__attribute__((constructor)) void told_to_break() {
    const char* told = std::getenv("CODA_EMULATOR_BREAK");
    int card, kind, nth;
    if (told && std::sscanf(told, "%d,%d,%d", &card, &kind, &nth) == 3 && card >= 0 && card < MOST_CARDS && kind >= 0 && kind < KINDS)
        breaks_at[card][kind] = nth;
}

int own_card() { return current ? int(static_cast<char*>(current) - contexts) : -1; }

// Counts one of what a card does: whether it is to fail. A card without room stays without.
bool breaks(int card, Kind kind) {
    if (card < 0) return false;
    const int64_t done = ++done_of[card][kind], at = breaks_at[card][kind];
    return at > 0 && (kind == ALLOCATION ? done >= at : done == at);
}

// 0: as the environment says.
int told_cards = 0;

int cards() {
    const char* told = std::getenv("CODA_EMULATOR_CARDS");
    const int count = told_cards ? told_cards : told ? std::atoi(told) : 1;
    return count < MOST_CARDS ? count : MOST_CARDS;
}

size_t capacity() {
    const char* told = std::getenv("CODA_EMULATOR_MEMORY");
    return told ? std::strtoull(told, nullptr, 10) : size_t(8) << 30;
}

// Whether nothing was written behind a block.
bool guards_hold() {
    for (const auto& [start, bytes] : allocations) {
        const unsigned char* guard = reinterpret_cast<unsigned char*>(start + bytes);
        for (size_t i = 0; i < GUARD; i++) {
            if (guard[i] != GUARD_BYTE) {
                std::fprintf(stderr, "emulator: written behind a block of %zu bytes\n", bytes);
                return false;
            }
        }
    }
    return true;
}

// Whether the bytes lie inside one block.
bool inside(uint64_t pointer, size_t bytes) {
    auto next = allocations.upper_bound(pointer);
    if (next == allocations.begin()) return false;
    --next;
    return pointer + bytes <= next->first + next->second;
}

int drain(Stream* stream, uint64_t until) {
    int& failure = failures[stream->card];
    while (stream->done < until && failure == SUCCESS) {
        const int result = stream->waiting.front()();
        if (result == NOT_READY) return result;
        stream->waiting.pop_front();
        stream->done++;
        if (result != SUCCESS) failure = result;
        else if (breaks(stream->card, TASK)) failure = ILLEGAL_ADDRESS;
    }
    return failure;
}

// All that this thread's card has to do.
int drain_card() {
    const int card = own_card();
    for (Stream* stream : streams) {
        const int result = stream->card == card ? drain(stream, stream->queued) : int(SUCCESS);
        if (result != SUCCESS) return result;
    }
    return SUCCESS;
}

int enqueue(void* handle, std::function<int()> task) {
    Stream* stream = static_cast<Stream*>(handle);
    if (streams.count(stream) == 0) return INVALID_VALUE;
    stream->waiting.push_back(std::move(task));
    stream->queued++;
    return failures[stream->card];
}

#define LOCKED std::lock_guard<std::recursive_mutex> guard(lock)

// Asks until something is ready; other threads have their turn in between.
template <typename F>
int wait(F result) {
    const auto began = std::chrono::steady_clock::now();
    for (;;) {
        {
            LOCKED;
            const int found = result();
            if (found != NOT_READY) return found;
        }
        if (std::chrono::steady_clock::now() - began > PATIENCE) {
            std::fprintf(stderr, "emulator: a card waits for another that does nothing\n");
            return LAUNCH_FAILED;
        }
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
}

}  // namespace

#define CALL extern "C" __attribute__((visibility("default"))) int

// For the stand-ins for cuBLASLt and NCCL.
CALL emulator_enqueue(void* stream, int (*task)(void*), void* data) {
    LOCKED;
    return enqueue(stream, [=] { return task(data); });
}

CALL emulator_inside(uint64_t pointer, size_t bytes) {
    LOCKED;
    return inside(pointer, bytes);
}

// The card of this thread; -1 if it has none. For the stand-in for NCCL.
CALL emulator_card() { return own_card(); }

// Counts a group of NCCL's calls: whether it is to fail.
CALL emulator_group() {
    LOCKED;
    return breaks(own_card(), GROUP);
}

// Lets what a card does for the n-th time from now on fail: a task, and the card with it; an allocation, and
// those after it; a group of NCCL's, once. With 0 nothing fails.
CALL emulator_break(int card, int kind, int nth) {
    LOCKED;
    done_of[card][kind] = 0;
    breaks_at[card][kind] = nth;
    return SUCCESS;
}

// How often a card has done it since then.
CALL emulator_done(int card, int kind, int) {
    LOCKED;
    return int(done_of[card][kind]);
}

CALL emulator_set_cards(int count) { return told_cards = count, SUCCESS; }

// Whether the threads of a block run from the last to the first.
CALL emulator_reverse(int reverse) {
    LOCKED;
    return reverse_order = reverse != 0, SUCCESS;
}

CALL cuInit(unsigned) { return SUCCESS; }
CALL cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }
CALL cuDeviceGetCount(int* count) { return *count = cards(), SUCCESS; }
CALL cuDeviceGet(int* device, int ordinal) {
    if (ordinal < 0 || ordinal >= cards()) return INVALID_VALUE;
    return *device = ordinal, SUCCESS;
}
CALL cuDeviceGetName(char* name, int room, int) {
    return std::snprintf(name, size_t(room), "emulated card"), SUCCESS;
}
CALL cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = capacity(), SUCCESS; }
CALL cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case 16: return *value = 4, SUCCESS;   // multiprocessors
        case 75: return *value = 9, SUCCESS;   // compute capability, major
        case 76: return *value = 0, SUCCESS;   // minor
        default: return INVALID_VALUE;
    }
}
CALL cuDevicePrimaryCtxRetain(void** context, int device) {
    LOCKED;
    holders[device]++;
    return *context = &contexts[device], SUCCESS;
}
CALL cuDevicePrimaryCtxRelease_v2(int device) {
    LOCKED;
    if (--holders[device] == 0) failures[device] = SUCCESS;
    return SUCCESS;
}
CALL cuCtxSetCurrent(void* context) { return current = context, SUCCESS; }
CALL cuMemGetInfo_v2(size_t* free, size_t* total) {
    LOCKED;
    *total = capacity();
    *free = *total - used;
    return SUCCESS;
}

CALL cuStreamCreate(void** stream, unsigned) {
    LOCKED;
    if (current == nullptr) return INVALID_VALUE;
    Stream* made = new Stream;
    made->card = own_card();
    streams.insert(made);
    *stream = made;
    return SUCCESS;
}
CALL cuStreamSynchronize(void* stream) {
    Stream* known = static_cast<Stream*>(stream);
    return wait([=] { return streams.count(known) ? drain(known, known->queued) : int(INVALID_VALUE); });
}
CALL cuStreamDestroy_v2(void* stream) {
    wait(drain_card);
    LOCKED;
    streams.erase(static_cast<Stream*>(stream));
    delete static_cast<Stream*>(stream);
    return SUCCESS;
}
CALL cuStreamWaitEvent(void* stream, void* event, unsigned) {
    LOCKED;
    const Event mark = *static_cast<Event*>(event);
    return enqueue(stream, [mark] {
        return mark.stream && streams.count(mark.stream) ? drain(mark.stream, mark.at) : int(SUCCESS);
    });
}
CALL cuEventCreate(void** event, unsigned) { return *event = new Event, SUCCESS; }
CALL cuEventRecord(void* event, void* stream) {
    LOCKED;
    Stream* known = static_cast<Stream*>(stream);
    *static_cast<Event*>(event) = Event{known, known->queued, ++ticks};
    return SUCCESS;
}
CALL cuEventQuery(void* event) {
    LOCKED;
    const Event mark = *static_cast<Event*>(event);
    return mark.stream && streams.count(mark.stream) ? drain(mark.stream, mark.at) : int(SUCCESS);
}
CALL cuEventSynchronize(void* event) {
    return wait([=] { return cuEventQuery(event); });
}
CALL cuEventElapsedTime_v2(float* milliseconds, void* from, void* to) {
    LOCKED;
    const Event *first = static_cast<Event*>(from), *last = static_cast<Event*>(to);
    const bool passed = last->stream && last->stream->done >= last->at;
    if (!passed) return NOT_READY;
    *milliseconds = float(last->tick - first->tick);
    return SUCCESS;
}
CALL cuEventElapsedTime(float* milliseconds, void* from, void* to) {
    return cuEventElapsedTime_v2(milliseconds, from, to);
}
CALL cuEventDestroy_v2(void* event) { return delete static_cast<Event*>(event), SUCCESS; }

CALL cuMemAlloc_v2(uint64_t* pointer, size_t bytes) {
    LOCKED;
    if (bytes == 0) return INVALID_VALUE;
    if (used + bytes > capacity() || breaks(own_card(), ALLOCATION)) return OUT_OF_MEMORY;
    void* block = std::aligned_alloc(512, (bytes + GUARD + 511) / 512 * 512);
    if (block == nullptr) return OUT_OF_MEMORY;
    std::memset(block, 0xff, bytes);
    std::memset(static_cast<char*>(block) + bytes, GUARD_BYTE, GUARD);
    allocations[reinterpret_cast<uintptr_t>(block)] = bytes;
    used += bytes;
    *pointer = reinterpret_cast<uintptr_t>(block);
    return SUCCESS;
}
CALL cuMemFree_v2(uint64_t pointer) {
    wait(drain_card);
    LOCKED;
    const auto found = allocations.find(pointer);
    if (found == allocations.end()) return INVALID_VALUE;
    used -= found->second;
    allocations.erase(found);
    std::free(reinterpret_cast<void*>(pointer));
    return SUCCESS;
}
CALL cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
    LOCKED;
    *pointer = std::malloc(bytes);
    pinned.insert(*pointer);
    return SUCCESS;
}
CALL cuMemFreeHost(void* pointer) {
    LOCKED;
    pinned.erase(pointer);
    std::free(pointer);
    return SUCCESS;
}
CALL cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    LOCKED;
    if (!inside(to, bytes)) return INVALID_VALUE;
    void* target = reinterpret_cast<void*>(to);
    if (pinned.count(const_cast<void*>(from)))
        return enqueue(stream, [=] { return std::memcpy(target, from, bytes), int(SUCCESS); });
    // Pageable memory is read before the call returns.
    const char* start = static_cast<const char*>(from);
    std::vector<char> copy(start, start + bytes);
    return enqueue(stream, [=, copy = std::move(copy)] {
        return std::memcpy(target, copy.data(), bytes), int(SUCCESS);
    });
}
CALL cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
    LOCKED;
    if (!inside(from, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] {
        return std::memcpy(to, reinterpret_cast<void*>(from), bytes), int(SUCCESS);
    });
}
CALL cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    LOCKED;
    if (!inside(from, bytes) || !inside(to, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] {
        std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
        return int(SUCCESS);
    });
}
CALL cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void* stream) {
    LOCKED;
    if (!inside(to, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] {
        return std::memset(reinterpret_cast<void*>(to), value, bytes), int(SUCCESS);
    });
}

CALL cuModuleLoadData(void** module, const void* image) {
    // The stand-in for NVRTC gives the path of a library.
    *module = dlopen(static_cast<const char*>(image), RTLD_NOW | RTLD_LOCAL);
    if (*module == nullptr) std::fprintf(stderr, "emulator: %s\n", dlerror());
    return *module ? SUCCESS : INVALID_VALUE;
}
CALL cuModuleUnload(void*) { return SUCCESS; }
CALL cuModuleGetFunction(void** function, void* module, const char* name) {
    LOCKED;
    const auto run = reinterpret_cast<int (*)(const Launch*)>(dlsym(module, (std::string(name) + "_run").c_str()));
    const auto sizes = reinterpret_cast<int (*)(int*)>(dlsym(module, (std::string(name) + "_sizes").c_str()));
    if (!run || !sizes) return NOT_FOUND;
    Function* made = new Function{run, std::vector<int>(64), 40 << 10};
    made->sizes.resize(size_t(sizes(made->sizes.data())));
    *function = made;
    return SUCCESS;
}
CALL cuFuncSetAttribute(void* function, int attribute, int value) {
    // The most dynamic shared memory; no card that we support has less than this.
    if (attribute != 8 || value > (99 << 10)) return INVALID_VALUE;
    static_cast<Function*>(function)->shared_limit = value;
    return SUCCESS;
}
CALL cuLaunchKernel(void* handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                    unsigned bz, unsigned shared, void* stream, void** params, void**) {
    LOCKED;
    const Function* function = static_cast<Function*>(handle);
    const bool fits = gx && gy && gz && gx <= 0x7fffffffu && gy <= 65535 && gz <= 65535 && bx && by &&
                      bz && bx * by * bz <= 1024 && int(shared) <= function->shared_limit;
    if (!fits) return INVALID_VALUE;
    std::vector<std::vector<char>> values;
    for (size_t i = 0; i < function->sizes.size(); i++) {
        const char* start = static_cast<const char*>(params[i]);
        values.emplace_back(start, start + function->sizes[i]);
    }
    const bool reverse = reverse_order;
    return enqueue(stream, [=, values = std::move(values)]() mutable {
        std::vector<void*> pointers;
        for (auto& value : values) pointers.push_back(value.data());
        const Launch launch = {{gx, gy, gz}, {bx, by, bz}, shared, pointers.data(), reverse};
        if (function->run(&launch) != 0) return int(LAUNCH_FAILED);
        return guards_hold() ? int(SUCCESS) : int(ILLEGAL_ADDRESS);
    });
}

CALL cuGetErrorName(int code, const char** name) {
    return *name = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR", SUCCESS;
}
CALL cuGetErrorString(int, const char** words) { return *words = "the emulator refused", SUCCESS; }
