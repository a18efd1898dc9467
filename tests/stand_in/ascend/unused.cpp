// Names that torch_npu links and that no path of the project asks anything of. Each says that all is well.

#include "chip.h"

#define QUIET(name) \
    int name() { CALLED return chip::OK; }
#define HANDLE(name)                          \
    void* name() {                            \
        CALLED static char something[64];     \
        return something;                     \
    }

extern "C" {

QUIET(aclAppLog)
QUIET(aclrtBinaryGetFunction) QUIET(aclrtBinaryLoadFromData) QUIET(aclrtGetFunctionAddr)
QUIET(aclrtMallocPhysical) QUIET(aclrtFreePhysical) QUIET(aclrtMapMem) QUIET(aclrtUnmapMem)
QUIET(aclrtReserveMemAddress) QUIET(aclrtReleaseMemAddress)
QUIET(aclrtMemExportToShareableHandle) QUIET(aclrtMemImportFromShareableHandle) QUIET(aclrtMemSetPidToShareableHandle)
QUIET(aclrtProcessReport) QUIET(aclrtPeekAtLastError) QUIET(aclrtGetLastError)
QUIET(aclrtSetOpExecuteTimeOut) QUIET(aclrtSetOpWaitTimeout) QUIET(aclrtSetDeviceSatMode) QUIET(aclrtSetStreamFailureMode)
QUIET(aclrtSetSysParamOpt) QUIET(aclrtCtxSetSysParamOpt)
QUIET(MsprofGetHashId) QUIET(MsprofRegisterCallback) QUIET(MsprofReportAdditionalInfo) QUIET(MsprofReportApi)
QUIET(MsprofReportCompactInfo) QUIET(MsprofSysCycleTime)
QUIET(aclmdlInitDump) QUIET(aclmdlSetDump) QUIET(aclmdlFinalizeDump)
QUIET(rtDevBinaryRegister) QUIET(rtFunctionRegister) QUIET(rtGetC2cCtrlAddr) QUIET(rtKernelLaunch)

// The old way of giving operators to a chip. Nothing may come this way.
HANDLE(aclCreateDataBuffer) HANDLE(aclCreateTensorDesc) HANDLE(aclopCreateAttr)
QUIET(aclDestroyDataBuffer) QUIET(aclDestroyTensorDesc) QUIET(aclopDestroyAttr)
QUIET(aclGetTensorDescDimV2) QUIET(aclGetTensorDescFormat) QUIET(aclGetTensorDescNumDims) QUIET(aclGetTensorDescType)
QUIET(aclSetTensorDescName) QUIET(aclSetTensorFormat) QUIET(aclSetTensorPlaceMent) QUIET(aclSetTensorShape)
QUIET(aclSetCompileopt)
QUIET(aclopSetAttrBool) QUIET(aclopSetAttrDataType) QUIET(aclopSetAttrFloat) QUIET(aclopSetAttrInt)
QUIET(aclopSetAttrListBool) QUIET(aclopSetAttrListFloat) QUIET(aclopSetAttrListInt) QUIET(aclopSetAttrListListInt)
QUIET(aclopSetAttrString)
int aclopCompileAndExecute() { CALLED return 500002; }

}  // extern "C"
