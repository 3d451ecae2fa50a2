// A stand-in for NCCL among the threads of one process, with communicators that do not block: what one
// card sends is copied to the other when both have come to it in their queues. As on cards, a group is
// done only when its partners have done their parts of it, joining and the first group with a partner
// are not done before the partner has come to it, no two ranks may have one card, and an abort lets
// what the card still waits for end.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

enum Result {
    SUCCESS = 0, CUDA_ERROR = 1, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, IN_PROGRESS = 7
};

// What the stand-in for the driver makes of tasks.
enum Task { NOT_READY = 600, LAUNCH_FAILED = 719 };

constexpr int UINT8 = 1;
constexpr unsigned MAGIC = 0xcafebeef;

struct Id { char bytes[128]; };

// As much of a configuration as is looked at.
struct Config { size_t size; unsigned magic, version; int blocking; };

struct Way {
    std::deque<std::vector<char>> waiting;
    uint64_t sent = 0, taken = 0;
};

struct World {
    std::set<int> ranks, cards;
    // Who has come to a group with whom.
    std::set<std::pair<int, int>> met;
    bool refused = false;
    std::map<std::pair<int, int>, Way> ways;
};

// What outlives an abort, for the tasks that are still queued.
struct State {
    World* world;
    int rank, ranks;
    bool aborted = false;
    // Partners whose groups this rank's last one waits for.
    std::set<int> awaited;
};

struct Comm { std::shared_ptr<State> state; };

struct Operation { Comm* comm; bool sends; void* buffer; size_t bytes; int peer; void* stream; };

// Taken after the driver's lock, if both are.
std::mutex lock;
std::map<std::string, World> worlds;
uint64_t ids = 0;

thread_local int depth = 0;
thread_local std::vector<Operation> group;

template <typename F>
F* driver(const char* name) {
    return reinterpret_cast<F*>(dlsym(RTLD_DEFAULT, name));
}

// A group in a card's queue.
struct Exchange {
    std::shared_ptr<State> state;
    std::vector<Operation> operations;
    bool begun = false;
    std::vector<std::pair<Way*, uint64_t>> sent;

    int go_on() {
        std::lock_guard<std::mutex> guard(lock);
        if (state->aborted) return SUCCESS;
        std::map<std::pair<int, int>, Way>& ways = state->world->ways;
        if (!begun) {
            for (const Operation& o : operations) {
                if (!o.sends) continue;
                Way& way = ways[{state->rank, o.peer}];
                const char* start = static_cast<const char*>(o.buffer);
                way.waiting.emplace_back(start, start + o.bytes);
                sent.emplace_back(&way, ++way.sent);
            }
            begun = true;
        }
        std::vector<Operation> missing;
        std::set<int> behind;
        for (const Operation& o : operations) {
            if (o.sends) continue;
            Way& way = ways[{o.peer, state->rank}];
            // What comes from one rank comes in order.
            if (way.waiting.empty() || behind.count(o.peer)) {
                behind.insert(o.peer);
                missing.push_back(o);
                continue;
            }
            const std::vector<char>& bytes = way.waiting.front();
            if (bytes.size() != o.bytes) {
                std::fprintf(stderr, "emulator: %zu bytes for %zu\n", bytes.size(), o.bytes);
                return LAUNCH_FAILED;
            }
            std::memcpy(o.buffer, bytes.data(), bytes.size());
            way.waiting.pop_front();
            way.taken++;
        }
        operations = std::move(missing);
        bool taken = true;
        for (const auto& [way, number] : sent) taken = taken && way->taken >= number;
        return operations.empty() && taken ? int(SUCCESS) : int(NOT_READY);
    }
};

int go_on(void* data) {
    Exchange* exchange = static_cast<Exchange*>(data);
    const int result = exchange->go_on();
    if (result != NOT_READY) delete exchange;
    return result;
}

int run(std::vector<Operation> operations) {
    static auto* breaks = driver<int()>("emulator_group");
    static auto* inside = driver<int(uint64_t, size_t)>("emulator_inside");
    static auto* enqueue = driver<int(void*, int (*)(void*), void*)>("emulator_enqueue");
    if (operations.empty()) return SUCCESS;
    if (breaks()) return SYSTEM_ERROR;
    const std::shared_ptr<State> state = operations[0].comm->state;
    for (const Operation& o : operations) {
        if (o.comm->state != state || o.stream != operations[0].stream) return INVALID_USAGE;
        if (o.peer < 0 || o.peer >= state->ranks) return INVALID_ARGUMENT;
        if (!inside(reinterpret_cast<uint64_t>(o.buffer), o.bytes)) return CUDA_ERROR;
    }
    {
        std::lock_guard<std::mutex> guard(lock);
        // Nothing may be asked of a communicator before it has done what it was asked.
        if (state->aborted || !state->awaited.empty()) return INVALID_USAGE;
        for (const Operation& o : operations) {
            state->world->met.insert({state->rank, o.peer});
            state->awaited.insert(o.peer);
        }
    }
    void* stream = operations[0].stream;
    Exchange* exchange = new Exchange{state, std::move(operations), false, {}};
    return enqueue(stream, go_on, exchange) == 0 ? int(IN_PROGRESS) : int(CUDA_ERROR);
}

int add(Operation operation) {
    if (depth == 0) return run({operation});
    return group.push_back(operation), SUCCESS;
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
CALL ncclCommInitRankConfig(Comm** comm, int ranks, Id id, int rank, const Config* config) {
    static auto* card = driver<int()>("emulator_card");
    if (config->magic != MAGIC || config->blocking != 0) return INVALID_ARGUMENT;
    std::lock_guard<std::mutex> guard(lock);
    World& world = worlds[id.bytes];
    if (rank < 0 || rank >= ranks || !world.ranks.insert(rank).second) return INVALID_ARGUMENT;
    if (!world.cards.insert(card()).second) {
        std::fprintf(stderr, "emulator: two ranks have one card\n");
        world.refused = true;
    }
    *comm = new Comm{std::make_shared<State>(State{&world, rank, ranks, false, {}})};
    return IN_PROGRESS;
}
CALL ncclCommGetAsyncError(Comm* comm, int* error) {
    std::lock_guard<std::mutex> guard(lock);
    State& state = *comm->state;
    const World& world = *state.world;
    std::set<int>& awaited = state.awaited;
    for (auto peer = awaited.begin(); peer != awaited.end();)
        peer = world.met.count({*peer, state.rank}) ? awaited.erase(peer) : std::next(peer);
    const bool complete = world.ranks.size() == size_t(state.ranks) && awaited.empty();
    *error = world.refused ? INVALID_USAGE : complete ? SUCCESS : IN_PROGRESS;
    return SUCCESS;
}
CALL ncclCommAbort(Comm* comm) {
    {
        std::lock_guard<std::mutex> guard(lock);
        comm->state->aborted = true;
    }
    return delete comm, SUCCESS;
}
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
