// The two operators (aclnn) that this runtime has itself: copies within the chip, and casts. All others are computed by
// the CPU's kernels, see kernels.py. No float8, as on 910B and 910C.

#include <cstring>
#include <vector>

#include "acl/acl_base.h"
#include "chip.h"

namespace {

constexpr int REFUSED = 161002;  // ACLNN_ERR_PARAM_INVALID

struct Tensor {
    std::vector<int64_t> shape, strides;
    int64_t offset;
    aclDataType type;
    char* data;
};

struct Task {
    Tensor target, source;
};

// Calls `with` with a value of the C++ type that stands for an element type; false if there is none.
template <typename With>
bool typed(aclDataType type, With with) {
    switch (type) {
        case ACL_FLOAT: return with(float()), true;
        case ACL_FLOAT16: return with(_Float16()), true;
        case ACL_DOUBLE: return with(double()), true;
        case ACL_INT8: return with(int8_t()), true;
        case ACL_INT16: return with(int16_t()), true;
        case ACL_INT32: return with(int32_t()), true;
        case ACL_INT64: return with(int64_t()), true;
        case ACL_UINT8: return with(uint8_t()), true;
        case ACL_BOOL: return with(bool()), true;
        default: return false;
    }
}

uint16_t narrowed(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

float widened(uint16_t value) {
    const uint32_t bits = uint32_t(value) << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

template <typename T>
T load(const Tensor& from, int64_t at) {
    if (from.type == ACL_BF16) return T(widened(reinterpret_cast<uint16_t*>(from.data)[at]));
    T value{};
    typed(from.type, [&](auto kind) { value = T(reinterpret_cast<decltype(kind)*>(from.data)[at]); });
    return value;
}

template <typename T>
void store(const Tensor& to, int64_t at, T value) {
    if (to.type == ACL_BF16) reinterpret_cast<uint16_t*>(to.data)[at] = narrowed(float(value));
    else typed(to.type, [&](auto kind) { reinterpret_cast<decltype(kind)*>(to.data)[at] = decltype(kind)(value); });
}

bool known(aclDataType type) { return type == ACL_BF16 || typed(type, [](auto) {}); }
bool whole(aclDataType type) { return type == ACL_INT64 || type == ACL_INT32; }

// Where element number `index` of a tensor of `shape` lies in `tensor`, which may be broadcast.
int64_t place(const Tensor& tensor, const std::vector<int64_t>& shape, int64_t index) {
    int64_t at = tensor.offset;
    const int64_t missing = int64_t(shape.size()) - int64_t(tensor.shape.size());
    for (int64_t axis = int64_t(shape.size()) - 1; axis >= 0; --axis) {
        const int64_t here = index % shape[axis], own = axis - missing;
        index /= shape[axis];
        if (own >= 0 && tensor.shape[own] != 1) at += here * tensor.strides[own];
    }
    return at;
}

void copy(const Tensor& to, const Tensor& from) {
    int64_t count = 1;
    for (int64_t extent : to.shape) count *= extent;
    const bool exact = whole(from.type) || whole(to.type);
    for (int64_t index = 0; index < count; ++index) {
        const int64_t there = place(to, to.shape, index), here = place(from, to.shape, index);
        if (exact) store(to, there, load<int64_t>(from, here));
        else store(to, there, load<double>(from, here));
    }
}

int prepare(const Tensor& to, const Tensor& from, uint64_t* workspace, void** task) {
    if (!known(to.type) || !known(from.type)) return REFUSED;
    *workspace = 0;
    *task = new Task{to, from};
    return chip::OK;
}

int start(void* task, void* stream) {
    chip::enqueue(stream, [job = static_cast<Task*>(task)] {
        copy(job->target, job->source);
        delete job;
    });
    return chip::OK;
}

const Tensor& tensor(const void* handle) { return *static_cast<const Tensor*>(handle); }

}  // namespace

extern "C" {

void* aclCreateTensor(
    const int64_t* shape, uint64_t axes, aclDataType type, const int64_t* strides, int64_t offset, aclFormat, const int64_t*,
    uint64_t, void* data) {
    CALLED
    return new Tensor{{shape, shape + axes}, {strides, strides + axes}, offset, type, static_cast<char*>(data)};
}
int aclDestroyTensor(const void* handle) { CALLED delete static_cast<const Tensor*>(handle); return chip::OK; }
void* aclCreateScalar(void*, aclDataType) { CALLED return new double; }
int aclDestroyScalar(const void* handle) { CALLED delete static_cast<const double*>(handle); return chip::OK; }

int aclnnInplaceCopyGetWorkspaceSize(void* target, const void* source, uint64_t* workspace, void** task) {
    CALLED return prepare(tensor(target), tensor(source), workspace, task);
}
int aclnnInplaceCopy(void*, uint64_t, void* task, void* stream) { CALLED return start(task, stream); }

int aclnnCastGetWorkspaceSize(const void* source, aclDataType, void* target, uint64_t* workspace, void** task) {
    CALLED return prepare(tensor(target), tensor(source), workspace, task);
}
int aclnnCast(void*, uint64_t, void* task, void* stream) { CALLED return start(task, stream); }

}  // extern "C"
