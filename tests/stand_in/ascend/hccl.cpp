// HCCL between processes of one machine, as strict as the real one: the first use of a communicator blocks until all its
// ranks have come, a send is over only once it was received, and what a communicator is given happens in that order.
//
// Read from the environment: HCCL_CONNECT_TIMEOUT and HCCL_BUFFSIZE, as the real one does.

#include "hccl/hccl.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "chip.h"

namespace {

constexpr int64_t MIB = 1 << 20;

// A socket to every other rank for each direction, so that a pair may send to each other at once.
struct Communicator {
    uint32_t size, me;
    std::string name;
    int64_t buffer_bytes;
    std::vector<int> out, in;
};

Communicator& of(HcclComm comm) { return *static_cast<Communicator*>(comm); }

// A broken connection ends the process: the real one leaves the stream in error, and nothing of it can be used.
void fail(const char* what) {
    perror(what);
    _exit(70);
}

void put(int socket, const void* data, size_t bytes) {
    auto* next = static_cast<const char*>(data);
    while (bytes) {
        const ssize_t done = send(socket, next, bytes, MSG_NOSIGNAL);
        if (done < 0 && errno != EINTR) fail("hccl: send");
        if (done > 0) next += done, bytes -= done;
    }
}

void get(int socket, void* data, size_t bytes) {
    auto* next = static_cast<char*>(data);
    while (bytes) {
        const ssize_t done = recv(socket, next, bytes, 0);
        if (done == 0 || (done < 0 && errno != EINTR)) fail("hccl: receive");
        if (done > 0) next += done, bytes -= done;
    }
}

// Meeting: rank r listens at a name of the kernel's that root and rank give; higher ranks come to lower ones.

struct Greeting {
    uint32_t rank;
    bool towards_lower;
};

socklen_t address_of(const std::string& root, uint32_t rank, sockaddr_un& address) {
    const std::string name = "hccl-stand-in-" + root + "-" + std::to_string(rank);
    address = {};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path + 1, name.data(), name.size());
    return offsetof(sockaddr_un, sun_path) + 1 + name.size();
}

int listen_as(const Communicator& comm) {
    sockaddr_un address;
    const socklen_t length = address_of(comm.name, comm.me, address);
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (sockaddr*)&address, length) || listen(listener, 2 * comm.size)) fail("hccl: listen");
    return listener;
}

int connect_to(const Communicator& comm, uint32_t rank, bool towards_lower, double until_ms) {
    sockaddr_un address;
    const socklen_t length = address_of(comm.name, rank, address);
    while (chip::now_ms() < until_ms) {
        const int found = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (!connect(found, (sockaddr*)&address, length)) {
            const Greeting greeting{comm.me, towards_lower};
            put(found, &greeting, sizeof greeting);
            return found;
        }
        close(found);
        usleep(2000);
    }
    return -1;
}

bool await_higher(Communicator& comm, int listener, double until_ms) {
    for (uint32_t missing = 2 * (comm.size - 1 - comm.me); missing; --missing) {
        pollfd wait{listener, POLLIN, 0};
        const double left_ms = until_ms - chip::now_ms();
        if (left_ms <= 0 || poll(&wait, 1, int(left_ms)) <= 0) return false;
        const int found = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        Greeting greeting;
        get(found, &greeting, sizeof greeting);
        (greeting.towards_lower ? comm.in : comm.out)[greeting.rank] = found;
    }
    return true;
}

bool meet(Communicator& comm) {
    const double until_ms = chip::now_ms() + 1e3 * chip::setting("HCCL_CONNECT_TIMEOUT", 120);
    const int listener = listen_as(comm);
    bool met = true;
    for (uint32_t rank = 0; met && rank < comm.me; ++rank) {
        comm.out[rank] = connect_to(comm, rank, true, until_ms);
        comm.in[rank] = connect_to(comm, rank, false, until_ms);
        met = comm.out[rank] >= 0 && comm.in[rank] >= 0;
    }
    met = met && await_higher(comm, listener, until_ms);
    close(listener);
    return met;
}

// Types and reductions: those that 910B and 910C have.

size_t bytes_of(HcclDataType type) {
    switch (type) {
        case HCCL_DATA_TYPE_INT8: case HCCL_DATA_TYPE_UINT8: return 1;
        case HCCL_DATA_TYPE_INT16: case HCCL_DATA_TYPE_UINT16: return 2;
        case HCCL_DATA_TYPE_FP16: case HCCL_DATA_TYPE_BFP16: return 2;
        case HCCL_DATA_TYPE_INT32: case HCCL_DATA_TYPE_UINT32: case HCCL_DATA_TYPE_FP32: return 4;
        case HCCL_DATA_TYPE_INT64: case HCCL_DATA_TYPE_UINT64: case HCCL_DATA_TYPE_FP64: return 8;
        default: return 0;
    }
}

struct BFloat16 {
    uint16_t bits;
    operator float() const {
        const uint32_t wide = uint32_t(bits) << 16;
        float value;
        memcpy(&value, &wide, sizeof value);
        return value;
    }
    BFloat16& operator=(float value) {
        uint32_t wide;
        memcpy(&wide, &value, sizeof wide);
        bits = (value != value) ? 0x7fc0 : (wide + 0x7fff + (wide >> 16 & 1)) >> 16;
        return *this;
    }
};

template <typename T, typename Wide>
void fold(void* target, const void* source, uint64_t count, HcclReduceOp op) {
    auto* a = static_cast<T*>(target);
    auto* b = static_cast<const T*>(source);
    for (uint64_t i = 0; i < count; ++i) {
        const Wide x = a[i], y = b[i];
        a[i] = op == HCCL_REDUCE_SUM ? x + y : op == HCCL_REDUCE_PROD ? x * y : op == HCCL_REDUCE_MAX ? std::max(x, y) : std::min(x, y);
    }
}

using Fold = void (*)(void*, const void*, uint64_t, HcclReduceOp);

Fold fold_of(HcclDataType type) {
    switch (type) {
        case HCCL_DATA_TYPE_INT8: return fold<int8_t, int8_t>;
        case HCCL_DATA_TYPE_INT16: return fold<int16_t, int16_t>;
        case HCCL_DATA_TYPE_INT32: return fold<int32_t, int32_t>;
        case HCCL_DATA_TYPE_INT64: return fold<int64_t, int64_t>;
        case HCCL_DATA_TYPE_FP32: return fold<float, float>;
        case HCCL_DATA_TYPE_FP16: return fold<_Float16, float>;
        case HCCL_DATA_TYPE_BFP16: return fold<BFloat16, float>;
        default: return nullptr;  // no float64, no unsigned types
    }
}

// Collectives: in round k rank k gives every other rank its part, so that nobody waits for somebody who waits for him.

struct Bytes {
    void* at;
    size_t size;
};
using To = std::function<Bytes(uint32_t)>;
using From = std::function<void(uint32_t, const void*, size_t)>;

void rounds(const Communicator& comm, const To& given, const std::function<size_t(uint32_t)>& expected, const From& taken) {
    std::vector<char> room;
    for (uint32_t k = 0; k < comm.size; ++k) {
        if (k == comm.me) {
            for (uint32_t rank = 0; rank < comm.size; ++rank) {
                const Bytes part = given(rank);
                if (rank == comm.me) taken(rank, part.at, part.size);
                else put(comm.out[rank], part.at, part.size);
            }
        } else {
            room.resize(expected(k));
            get(comm.in[k], room.data(), room.size());
            taken(k, room.data(), room.size());
        }
    }
}

// Folds what all ranks give in the order of ranks, so that the sum is the same everywhere.
HcclResult reduce(const Communicator& comm, To given, void* target, uint64_t count, HcclDataType type, HcclReduceOp op, void* stream) {
    const Fold folding = fold_of(type);
    if (!folding) return HCCL_E_NOT_SUPPORT;
    const size_t bytes = count * bytes_of(type);
    chip::enqueue(stream, [=, &comm] {
        std::vector<char> sum(bytes);
        rounds(comm, given, [=](uint32_t) { return bytes; }, [&](uint32_t rank, const void* part, size_t) {
            if (rank == 0) memcpy(sum.data(), part, bytes);
            else folding(sum.data(), part, count, op);
        });
        memcpy(target, sum.data(), bytes);
    });
    return HCCL_SUCCESS;
}

char* offset(const void* base, uint64_t bytes) { return static_cast<char*>(const_cast<void*>(base)) + bytes; }

// Point to point: the receiver says that it is there, and only then the sender's bytes go.

constexpr char READY = 'r';

void send_one(const Communicator& comm, uint32_t peer, const void* data, size_t bytes) {
    char ready;
    get(comm.out[peer], &ready, 1);
    put(comm.out[peer], data, bytes);
}

void receive_one(const Communicator& comm, uint32_t peer, void* data, size_t bytes) {
    put(comm.in[peer], &READY, 1);
    get(comm.in[peer], data, bytes);
}

}  // namespace

extern "C" {

HcclResult HcclGetRootInfo(HcclRootInfo* root) {
    CALLED
    static std::atomic<int> made{0};
    memset(root, 0, sizeof *root);
    snprintf(root->internal, 64, "%d-%d-%ld", getpid(), made++, long(1e3 * chip::now_ms()));
    return HCCL_SUCCESS;
}

uint32_t HcclGetCommConfigCapability() { CALLED return HCCL_COMM_CONFIG_COMM_NAME + 1; }

HcclResult HcclCommInitRootInfoConfig(
    uint32_t size, const HcclRootInfo* root, uint32_t rank, const HcclCommConfig* config, HcclComm* comm) {
    CALLED
    int64_t mib = chip::setting("HCCL_BUFFSIZE", HCCL_COMM_DEFAULT_BUFFSIZE);
    if (config && config->hcclBufferSize != HCCL_COMM_BUFFSIZE_CONFIG_NOT_SET) mib = config->hcclBufferSize;
    auto* made = new Communicator{size, rank, root->internal, 2 * mib * MIB, std::vector<int>(size, -1), std::vector<int>(size, -1)};
    if (!chip::claim(made->buffer_bytes)) return HCCL_E_OOM;
    *comm = made;
    return meet(*made) ? HCCL_SUCCESS : HCCL_E_TIMEOUT;
}

HcclResult HcclCommInitRootInfo(uint32_t size, const HcclRootInfo* root, uint32_t rank, HcclComm* comm) {
    CALLED return HcclCommInitRootInfoConfig(size, root, rank, nullptr, comm);
}

HcclResult HcclCommDestroy(HcclComm comm) {
    CALLED
    chip::claim(-of(comm).buffer_bytes);
    for (auto* sockets : {&of(comm).out, &of(comm).in})
        for (int one : *sockets)
            if (one >= 0) close(one);
    return HCCL_SUCCESS;  // the name is kept: a stream may still hold it
}

HcclResult HcclGetCommName(HcclComm comm, char* name) {
    CALLED
    strncpy(name, of(comm).name.c_str(), COMM_NAME_MAX_LENGTH - 1);
    return HCCL_SUCCESS;
}

HcclResult HcclGetCommAsyncError(HcclComm, HcclResult* error) { CALLED *error = HCCL_SUCCESS; return HCCL_SUCCESS; }

HcclResult HcclSend(void* data, uint64_t count, HcclDataType type, uint32_t peer, HcclComm comm, aclrtStream stream) {
    CALLED
    chip::enqueue(stream, [=] { send_one(of(comm), peer, data, count * bytes_of(type)); });
    return HCCL_SUCCESS;
}

HcclResult HcclRecv(void* data, uint64_t count, HcclDataType type, uint32_t peer, HcclComm comm, aclrtStream stream) {
    CALLED
    chip::enqueue(stream, [=] { receive_one(of(comm), peer, data, count * bytes_of(type)); });
    return HCCL_SUCCESS;
}

// All at once; those of one peer and direction one after the other.
HcclResult HcclBatchSendRecv(HcclSendRecvItem* items, uint32_t count, HcclComm comm, aclrtStream stream) {
    CALLED
    const std::vector<HcclSendRecvItem> all(items, items + count);
    chip::enqueue(stream, [=] {
        std::vector<std::thread> lanes;
        for (uint32_t peer = 0; peer < of(comm).size; ++peer)
            for (auto direction : {HCCL_SEND, HCCL_RECV})
                lanes.emplace_back([&all, comm, peer, direction] {
                    for (auto& one : all) {
                        if (one.remoteRank != peer || one.sendRecvType != direction) continue;
                        const size_t bytes = one.count * bytes_of(one.dataType);
                        direction == HCCL_SEND ? send_one(of(comm), peer, one.buf, bytes) : receive_one(of(comm), peer, one.buf, bytes);
                    }
                });
        for (auto& lane : lanes) lane.join();
    });
    return HCCL_SUCCESS;
}

HcclResult HcclAllReduce(
    void* source, void* target, uint64_t count, HcclDataType type, HcclReduceOp op, HcclComm comm, aclrtStream stream) {
    CALLED
    const Bytes all{source, count * bytes_of(type)};
    return reduce(of(comm), [=](uint32_t) { return all; }, target, count, type, op, stream);
}

HcclResult HcclReduceScatter(
    void* source, void* target, uint64_t count, HcclDataType type, HcclReduceOp op, HcclComm comm, aclrtStream stream) {
    CALLED
    const size_t part = count * bytes_of(type);
    return reduce(of(comm), [=](uint32_t rank) { return Bytes{offset(source, rank * part), part}; }, target, count, type, op, stream);
}

HcclResult HcclReduce(
    void* source, void* target, uint64_t count, HcclDataType type, HcclReduceOp op, uint32_t root, HcclComm comm,
    aclrtStream stream) {
    CALLED
    const Bytes all{source, count * bytes_of(type)};
    void* sum = of(comm).me == root ? target : source;  // all fold, the root alone is told
    return reduce(of(comm), [=](uint32_t) { return all; }, sum, count, type, op, stream);
}

HcclResult HcclAllGather(void* source, void* target, uint64_t count, HcclDataType type, HcclComm comm, aclrtStream stream) {
    CALLED
    const size_t part = count * bytes_of(type);
    chip::enqueue(stream, [=] {
        rounds(of(comm), [=](uint32_t) { return Bytes{source, part}; }, [=](uint32_t) { return part; },
               [=](uint32_t rank, const void* data, size_t bytes) { memmove(offset(target, rank * part), data, bytes); });
    });
    return HCCL_SUCCESS;
}

HcclResult HcclBroadcast(void* data, uint64_t count, HcclDataType type, uint32_t root, HcclComm comm, aclrtStream stream) {
    CALLED
    const size_t bytes = count * bytes_of(type);
    chip::enqueue(stream, [=] {
        if (of(comm).me != root) return get(of(comm).in[root], data, bytes);
        for (uint32_t rank = 0; rank < of(comm).size; ++rank)
            if (rank != root) put(of(comm).out[rank], data, bytes);
    });
    return HCCL_SUCCESS;
}

HcclResult HcclAlltoAllV(
    const void* source, const void* given, const void* given_at, HcclDataType given_type, const void* target, const void* taken,
    const void* taken_at, HcclDataType taken_type, HcclComm comm, aclrtStream stream) {
    CALLED
    const uint32_t size = of(comm).size;
    const auto numbers = [size](const void* at) { return std::vector<uint64_t>((const uint64_t*)at, (const uint64_t*)at + size); };
    const auto out = numbers(given), out_at = numbers(given_at), in = numbers(taken), in_at = numbers(taken_at);
    const size_t out_bytes = bytes_of(given_type), in_bytes = bytes_of(taken_type);
    chip::enqueue(stream, [=] {
        rounds(of(comm), [&](uint32_t rank) { return Bytes{offset(source, out_at[rank] * out_bytes), out[rank] * out_bytes}; },
               [&](uint32_t rank) { return in[rank] * in_bytes; },
               [&](uint32_t rank, const void* data, size_t bytes) { memmove(offset(target, in_at[rank] * in_bytes), data, bytes); });
    });
    return HCCL_SUCCESS;
}

}  // extern "C"
