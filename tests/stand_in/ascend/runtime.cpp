// The part of CANN's runtime (aclrt) that torch_npu uses: devices, memory, streams, events. Nothing computes here.
//
// Read from the environment: ASCEND_RT_VISIBLE_DEVICES, ASCEND_STAND_IN_CHIPS, ASCEND_STAND_IN_MEMORY (bytes),
// ASCEND_STAND_IN_SOC, ASCEND_STAND_IN_DRIVER (its version), ASCEND_STAND_IN_COPY_US (what a copy takes at least), ASCEND_STAND_IN_CALLS.

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "acl/acl.h"
#include "chip.h"

namespace {

constexpr size_t DEVICE_ALIGNMENT = 512, PAGE = 4096, SPILL = 32;
constexpr const char* CANN_VERSION = "9.1.0";
constexpr int64_t GIB = int64_t(1) << 30;

// Tasks one after the other, in a thread of its own from the first one on.
class Stream {
public:
    void put(std::function<void()> task) {
        std::lock_guard<std::mutex> lock(mutex_);
        if (!started_) std::thread([this] { run(); }).detach();
        started_ = true;
        tasks_.push_back(std::move(task));
        todo_.notify_one();
    }

    void synchronize() {
        std::unique_lock<std::mutex> lock(mutex_);
        idle_.wait(lock, [this] { return tasks_.empty() && !busy_; });
    }

    bool idle() {
        std::lock_guard<std::mutex> lock(mutex_);
        return tasks_.empty() && !busy_;
    }

private:
    void run() {
        for (std::unique_lock<std::mutex> lock(mutex_);;) {
            todo_.wait(lock, [this] { return !tasks_.empty(); });
            auto task = std::move(tasks_.front());
            tasks_.pop_front();
            busy_ = true;
            lock.unlock();
            task();
            task = nullptr;
            lock.lock();
            busy_ = false;
            if (tasks_.empty()) idle_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable todo_, idle_;
    std::deque<std::function<void()>> tasks_;
    bool started_ = false, busy_ = false;
};

// Is reached when a stream has come to where it was last recorded.
class Event {
public:
    void record(void* stream) {
        long turn;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            turn = ++recorded_;
        }
        chip::enqueue(stream, [this, turn] {
            std::lock_guard<std::mutex> lock(mutex_);
            reached_ = turn;
            at_ms_ = chip::now_ms();
            passed_.notify_all();
        });
    }

    void hold(void* stream) {
        const long turn = recorded();
        chip::enqueue(stream, [this, turn] { wait(turn); });
    }

    void wait(long turn) {
        std::unique_lock<std::mutex> lock(mutex_);
        passed_.wait(lock, [this, turn] { return reached_ >= turn; });
    }

    long recorded() {
        std::lock_guard<std::mutex> lock(mutex_);
        return recorded_;
    }

    bool reached() {
        std::lock_guard<std::mutex> lock(mutex_);
        return reached_ == recorded_;
    }

    double at_ms() const { return at_ms_; }

private:
    std::mutex mutex_;
    std::condition_variable passed_;
    long recorded_ = 0, reached_ = 0;
    double at_ms_ = 0;
};

// Never freed: threads may still run while the process ends.
std::mutex& mutex = *new std::mutex;
std::vector<Stream*>& streams = *new std::vector<Stream*>;
std::map<void*, int64_t>& device_memory = *new std::map<void*, int64_t>;
std::map<void*, uint64_t>&registered = *new std::map<void*, uint64_t>, &host_memory = *new std::map<void*, uint64_t>;
std::atomic<int64_t> used_bytes{0};
thread_local int device = -1;

Stream* new_stream() {
    auto* stream = new Stream;
    std::lock_guard<std::mutex> lock(mutex);
    streams.push_back(stream);
    return stream;
}

Stream* stream_of(void* handle) {
    static Stream* standard = new_stream();
    return handle ? static_cast<Stream*>(handle) : standard;
}

Event* event_of(void* handle) { return static_cast<Event*>(handle); }

// Whether host memory is the driver's own or registered with it. The lock is held.
bool pinned(const void* pointer) {
    for (auto* known : {&host_memory, &registered}) {
        auto next = known->upper_bound(const_cast<void*>(pointer));
        if (next == known->begin()) continue;
        const auto& [begin, bytes] = *--next;
        if (static_cast<const char*>(pointer) < static_cast<char*>(begin) + bytes) return true;
    }
    return false;
}

int64_t memory_bytes() { return chip::setting("ASCEND_STAND_IN_MEMORY", 64 * GIB); }

int allocate(void** pointer, size_t bytes) {
    if (!chip::claim(bytes)) return chip::OUT_OF_MEMORY;
    if (posix_memalign(pointer, DEVICE_ALIGNMENT, bytes + SPILL)) return chip::OUT_OF_MEMORY;
    std::lock_guard<std::mutex> lock(mutex);
    device_memory[*pointer] = bytes;
    return chip::OK;
}

void copy_later(void* target, const void* source, size_t bytes, void* stream) {
    chip::enqueue(stream, [=] {
        static const int64_t pause_us = chip::setting("ASCEND_STAND_IN_COPY_US", 0);
        if (pause_us) usleep(pause_us);
        memcpy(target, source, bytes);
    });
}

}  // namespace

bool chip::tell(const char* name) {
    if (const char* path = getenv("ASCEND_STAND_IN_CALLS")) {
        const std::string line = std::string(name) + "\n";
        const int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (file >= 0 && write(file, line.data(), line.size()) > 0) close(file);
    }
    return true;
}

int64_t chip::setting(const char* name, int64_t otherwise) {
    const char* text = getenv(name);
    return text ? atoll(text) : otherwise;
}

double chip::now_ms() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void chip::enqueue(void* stream, std::function<void()> task) { stream_of(stream)->put(std::move(task)); }

bool chip::claim(int64_t bytes) {
    if (used_bytes.fetch_add(bytes) + bytes <= memory_bytes()) return true;
    used_bytes -= bytes;
    return false;
}

extern "C" {

// Devices

aclError aclInit(const char*) { CALLED return chip::OK; }
aclError aclFinalize() { CALLED return chip::OK; }
const char* aclGetRecentErrMsg() { CALLED return ""; }
const char* aclrtGetSocName() {
    CALLED
    const char* name = getenv("ASCEND_STAND_IN_SOC");
    return name ? name : "Ascend910B2";
}

// What a wheel asks of CANN depends on what it says of itself.
aclError aclsysGetCANNVersion(aclCANNPackageName package, aclCANNPackageVersion* version) {
    CALLED
    const char* driver = getenv("ASCEND_STAND_IN_DRIVER");
    strcpy(version->version, package == ACL_PKG_NAME_DRIVER ? driver ? driver : "26.0.0" : CANN_VERSION);
    return chip::OK;
}
aclError aclsysGetVersionStr(char*, char* version) { CALLED strcpy(version, CANN_VERSION); return chip::OK; }

aclError aclrtGetDeviceCount(uint32_t* count) {
    CALLED
    *count = chip::setting("ASCEND_STAND_IN_CHIPS", 8);
    if (const char* visible = getenv("ASCEND_RT_VISIBLE_DEVICES")) {
        *count = *visible ? 1 : 0;
        for (; *visible; ++visible) *count += *visible == ',';
    }
    return chip::OK;
}

aclError aclrtSetDevice(int index) { CALLED device = index; return chip::OK; }
aclError aclrtResetDevice(int) { CALLED return chip::OK; }
aclError aclrtGetDevice(int* index) { CALLED *index = device; return device < 0 ? chip::NO_CONTEXT : chip::OK; }
aclError aclrtGetCurrentContext(void** context) {
    CALLED
    *context = reinterpret_cast<void*>(intptr_t(device + 1));
    return device < 0 ? chip::NO_CONTEXT : chip::OK;
}
aclError aclrtSetCurrentContext(void* context) { CALLED device = int(reinterpret_cast<intptr_t>(context)) - 1; return chip::OK; }
aclError aclrtGetPrimaryCtxState(int, uint32_t*, int* active) { CALLED *active = 1; return chip::OK; }
aclError aclrtGetDeviceInfo(uint32_t, aclrtDevAttr, int64_t* value) { CALLED *value = 24; return chip::OK; }
aclError aclGetDeviceCapability(uint32_t, aclDeviceInfo, int64_t* value) { CALLED *value = 24; return chip::OK; }
aclError aclrtDeviceCanAccessPeer(int* can, int, int) { CALLED *can = 1; return chip::OK; }
aclError aclrtDeviceEnablePeerAccess(int, uint32_t) { CALLED return chip::OK; }
aclError aclrtDeviceGetBareTgid(int* pid) { CALLED *pid = getpid(); return chip::OK; }
aclError aclrtGetSysParamOpt(aclSysParamOpt, int64_t* value) { CALLED *value = 0; return chip::OK; }

// Memory

aclError aclrtGetMemInfo(aclrtMemAttr, size_t* free, size_t* total) {
    CALLED
    *total = memory_bytes();
    *free = *total - used_bytes;
    return chip::OK;
}
aclError aclrtMalloc(void** pointer, size_t bytes, aclrtMemMallocPolicy) { CALLED return allocate(pointer, bytes); }
aclError aclrtMallocAlign32(void** pointer, size_t bytes, aclrtMemMallocPolicy) { CALLED return allocate(pointer, bytes); }
aclError aclrtFree(void* pointer) {
    CALLED
    std::lock_guard<std::mutex> lock(mutex);
    auto found = device_memory.find(pointer);
    if (found == device_memory.end()) return chip::INVALID;
    chip::claim(-found->second);
    device_memory.erase(found);
    free(pointer);
    return chip::OK;
}
aclError aclrtMallocHost(void** pointer, size_t bytes) {
    CALLED
    if (posix_memalign(pointer, PAGE, bytes)) return chip::OUT_OF_MEMORY;
    std::lock_guard<std::mutex> lock(mutex);
    host_memory[*pointer] = bytes;
    return chip::OK;
}
aclError aclrtFreeHost(void* pointer) {
    CALLED
    std::lock_guard<std::mutex> lock(mutex);
    host_memory.erase(pointer);
    free(pointer);
    return chip::OK;
}
aclError aclrtPointerGetAttributes(const void* pointer, aclrtPtrAttributes* attributes) {
    CALLED
    std::lock_guard<std::mutex> lock(mutex);
    attributes->location = {0, pinned(pointer) ? ACL_MEM_LOCATION_TYPE_HOST : ACL_MEM_LOCATION_TYPE_UNREGISTERED};
    return chip::OK;
}

// A page belongs to one registration, as the driver pins pages.
aclError aclrtHostRegisterV2(void* pointer, uint64_t bytes, uint32_t flags) {
    CALLED
    if (!(flags & (ACL_HOST_REG_MAPPED | ACL_HOST_REG_PINNED))) return chip::INVALID;
    const auto page_of = [](uintptr_t address) { return address / PAGE; };
    const auto first = page_of(uintptr_t(pointer)), last = page_of(uintptr_t(pointer) + bytes - 1);
    std::lock_guard<std::mutex> lock(mutex);
    for (auto& [other, size] : registered)
        if (page_of(uintptr_t(other)) <= last && first <= page_of(uintptr_t(other) + size - 1)) return chip::INVALID;
    registered[pointer] = bytes;
    return chip::OK;
}
aclError aclrtHostUnregister(void* pointer) {
    CALLED
    std::lock_guard<std::mutex> lock(mutex);
    return registered.erase(pointer) ? chip::OK : chip::INVALID;
}

aclError aclrtMemcpy(void* target, size_t, const void* source, size_t bytes, aclrtMemcpyKind) { CALLED memcpy(target, source, bytes); return chip::OK; }
aclError aclrtMemcpyAsync(void* target, size_t, const void* source, size_t bytes, aclrtMemcpyKind, void* stream) {
    CALLED
    copy_later(target, source, bytes, stream);
    return chip::OK;
}
aclError aclrtMemset(void* target, size_t, int value, size_t bytes) { CALLED memset(target, value, bytes); return chip::OK; }
aclError aclrtMemsetAsync(void* target, size_t, int value, size_t bytes, void* stream) {
    CALLED
    chip::enqueue(stream, [=] { memset(target, value, bytes); });
    return chip::OK;
}

// Streams

aclError aclrtCreateStream(void** stream) { CALLED *stream = new_stream(); return chip::OK; }
aclError aclrtCreateStreamWithConfig(void** stream, uint32_t, uint32_t) { CALLED *stream = new_stream(); return chip::OK; }
aclError aclrtDestroyStream(void*) { CALLED return chip::OK; }
aclError aclrtDestroyStreamForce(void*) { CALLED return chip::OK; }
aclError aclrtSynchronizeStream(void* stream) { CALLED stream_of(stream)->synchronize(); return chip::OK; }
aclError aclrtSynchronizeStreamWithTimeout(void* stream, int) { CALLED stream_of(stream)->synchronize(); return chip::OK; }
aclError aclrtSynchronizeDevice() {
    CALLED
    std::unique_lock<std::mutex> lock(mutex);
    const auto all = streams;
    lock.unlock();
    for (auto* stream : all) stream->synchronize();
    return chip::OK;
}
aclError aclrtSynchronizeDeviceWithTimeout(int) { CALLED return aclrtSynchronizeDevice(); }
aclError aclrtStreamQuery(void* stream, aclrtStreamStatus* status) {
    CALLED
    *status = stream_of(stream)->idle() ? ACL_STREAM_STATUS_COMPLETE : ACL_STREAM_STATUS_NOT_READY;
    return chip::OK;
}
aclError aclrtStreamGetId(void* stream, int* id) { CALLED *id = int(uintptr_t(stream) >> 4 & 0x7fffffff); return chip::OK; }
aclError aclrtLaunchHostFunc(void* stream, aclrtHostFunc function, void* argument) {
    CALLED
    chip::enqueue(stream, [=] { function(argument); });
    return chip::OK;
}

// Events

aclError aclrtCreateEventWithFlag(void** event, uint32_t) { CALLED *event = new Event; return chip::OK; }
aclError aclrtCreateEventExWithFlag(void** event, uint32_t) { CALLED *event = new Event; return chip::OK; }
aclError aclrtDestroyEvent(void*) { CALLED return chip::OK; }  // a stream may still be on its way to it
aclError aclrtResetEvent(void*, void*) { CALLED return chip::OK; }
aclError aclrtRecordEvent(void* event, void* stream) { CALLED event_of(event)->record(stream); return chip::OK; }
aclError aclrtStreamWaitEvent(void* stream, void* event) { CALLED event_of(event)->hold(stream); return chip::OK; }
aclError aclrtSynchronizeEvent(void* event) { CALLED event_of(event)->wait(event_of(event)->recorded()); return chip::OK; }
aclError aclrtQueryEventStatus(void* event, aclrtEventRecordedStatus* status) {
    CALLED
    *status = event_of(event)->reached() ? ACL_EVENT_RECORDED_STATUS_COMPLETE : ACL_EVENT_RECORDED_STATUS_NOT_READY;
    return chip::OK;
}
aclError aclrtQueryEventWaitStatus(void*, aclrtEventWaitStatus* status) {
    CALLED
    *status = ACL_EVENT_WAIT_STATUS_COMPLETE;
    return chip::OK;
}
aclError aclrtEventElapsedTime(float* ms, void* first, void* last) {
    CALLED
    *ms = float(event_of(last)->at_ms() - event_of(first)->at_ms());
    return chip::OK;
}

}  // extern "C"
