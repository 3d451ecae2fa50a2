// A stand-in for NCCL among the threads of one process: what one card sends is copied to the other when
// both have ended their groups. As on cards, a group is done only when its partners have done their
// parts of it, and no two ranks may have one card; whoever waits for too long is refused instead of
// hanging.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

enum Result { SUCCESS = 0, CUDA_ERROR = 1, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };

constexpr int UINT8 = 1;
constexpr auto PATIENCE = std::chrono::seconds(60);

struct Id { char bytes[128]; };

struct Way {
    std::deque<std::vector<char>> waiting;
    uint64_t sent = 0, taken = 0;
};

struct World {
    std::set<int> ranks, cards;
    bool refused = false;
    std::map<std::pair<int, int>, Way> ways;
};

struct Comm { World* world; int rank, ranks; };

struct Operation { Comm* comm; bool sends; void* buffer; size_t bytes; int peer; void* stream; };

std::mutex lock;
std::condition_variable changed;
std::map<std::string, World> worlds;
uint64_t ids = 0;

thread_local int depth = 0;
thread_local std::vector<Operation> group;

template <typename F>
F* driver(const char* name) {
    return reinterpret_cast<F*>(dlsym(RTLD_DEFAULT, name));
}

struct Arrival { void* to; std::vector<char> bytes; };

int arrive(void* data) {
    Arrival* arrival = static_cast<Arrival*>(data);
    std::memcpy(arrival->to, arrival->bytes.data(), arrival->bytes.size());
    delete arrival;
    return SUCCESS;
}

int run(std::vector<Operation> operations) {
    static auto* synchronize = driver<int(void*)>("cuStreamSynchronize");
    static auto* inside = driver<int(uint64_t, size_t)>("emulator_inside");
    static auto* enqueue = driver<int(void*, int (*)(void*), void*)>("emulator_enqueue");
    for (const Operation& o : operations) {
        if (o.peer < 0 || o.peer >= o.comm->ranks) return INVALID_ARGUMENT;
        if (!inside(reinterpret_cast<uint64_t>(o.buffer), o.bytes)) return CUDA_ERROR;
        if (o.sends && synchronize(o.stream) != 0) return CUDA_ERROR;
    }
    std::vector<std::pair<Way*, uint64_t>> sent;
    std::vector<std::pair<void*, Arrival*>> arrived;
    {
        std::unique_lock<std::mutex> held(lock);
        for (const Operation& o : operations) {
            if (!o.sends) continue;
            Way& way = o.comm->world->ways[{o.comm->rank, o.peer}];
            const char* start = static_cast<const char*>(o.buffer);
            way.waiting.emplace_back(start, start + o.bytes);
            sent.emplace_back(&way, ++way.sent);
        }
        changed.notify_all();
        for (const Operation& o : operations) {
            if (o.sends) continue;
            Way& way = o.comm->world->ways[{o.peer, o.comm->rank}];
            if (!changed.wait_for(held, PATIENCE, [&] { return !way.waiting.empty(); })) {
                std::fprintf(stderr, "emulator: nothing comes from rank %d\n", o.peer);
                return SYSTEM_ERROR;
            }
            if (way.waiting.front().size() != o.bytes) {
                std::fprintf(stderr, "emulator: %zu bytes for %zu\n", way.waiting.front().size(), o.bytes);
                return INVALID_USAGE;
            }
            arrived.emplace_back(o.stream, new Arrival{o.buffer, std::move(way.waiting.front())});
            way.waiting.pop_front();
            way.taken++;
            changed.notify_all();
        }
        for (const auto& [way, number] : sent) {
            const Way* of = way;
            const uint64_t last = number;
            if (!changed.wait_for(held, PATIENCE, [=] { return of->taken >= last; })) {
                std::fprintf(stderr, "emulator: nobody takes what was sent\n");
                return SYSTEM_ERROR;
            }
        }
    }
    for (const auto& [stream, arrival] : arrived) {
        if (enqueue(stream, arrive, arrival) != 0) return CUDA_ERROR;
    }
    return SUCCESS;
}

int add(Operation operation) {
    if (depth > 0) return group.push_back(operation), SUCCESS;
    return run({operation});
}

}  // namespace

#define CALL extern "C" __attribute__((visibility("default"))) int

CALL ncclGetVersion(int* version) { return *version = 22800, SUCCESS; }
CALL ncclGetUniqueId(Id* id) {
    std::lock_guard<std::mutex> guard(lock);
    std::memset(id, 0, sizeof(Id));
    std::snprintf(id->bytes, sizeof(id->bytes), "emulated %llu", static_cast<unsigned long long>(++ids));
    return SUCCESS;
}
CALL ncclCommInitRank(Comm** comm, int ranks, Id id, int rank) {
    static auto* card = driver<int()>("emulator_card");
    std::unique_lock<std::mutex> held(lock);
    World& world = worlds[id.bytes];
    if (rank < 0 || rank >= ranks || !world.ranks.insert(rank).second) return INVALID_ARGUMENT;
    if (!world.cards.insert(card()).second) {
        std::fprintf(stderr, "emulator: two ranks have one card\n");
        world.refused = true;
    }
    changed.notify_all();
    const auto complete = [&] { return world.refused || world.ranks.size() == size_t(ranks); };
    if (!changed.wait_for(held, PATIENCE, complete)) return SYSTEM_ERROR;
    if (world.refused) return INVALID_USAGE;
    *comm = new Comm{&world, rank, ranks};
    return SUCCESS;
}
CALL ncclCommDestroy(Comm* comm) { return delete comm, SUCCESS; }
CALL ncclGroupStart() { return depth++, SUCCESS; }
CALL ncclGroupEnd() {
    if (depth == 0) return INVALID_USAGE;
    if (--depth > 0) return SUCCESS;
    std::vector<Operation> operations;
    operations.swap(group);
    return run(std::move(operations));
}
CALL ncclSend(const void* from, size_t count, int type, int peer, Comm* comm, void* stream) {
    if (type != UINT8) return INVALID_ARGUMENT;
    return add({comm, true, const_cast<void*>(from), count, peer, stream});
}
CALL ncclRecv(void* to, size_t count, int type, int peer, Comm* comm, void* stream) {
    if (type != UINT8) return INVALID_ARGUMENT;
    return add({comm, false, to, count, peer, stream});
}
