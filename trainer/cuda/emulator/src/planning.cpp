// A libcuda with which cuDNN makes plans for a card that is not there.
//
// cuDNN looks up these functions before it plans, and calls only the first seven: it hands over the
// kernel that it has made and asks for its name. Whatever would need a card says that there is none.

namespace {
constexpr int NO_DEVICE = 100;
int code, kernel, function;
}

extern "C" {
int cuDriverGetVersion(int* version) { *version = 13000; return 0; }
int cuLibraryLoadData(void** out) { *out = &code; return 0; }
int cuLibraryUnload() { return 0; }
int cuLibraryGetKernel(void** out) { *out = &kernel; return 0; }
int cuKernelSetAttribute() { return 0; }
int cuKernelGetAttribute(int* value) { *value = 0; return 0; }
int cuKernelGetFunction(void** out) { *out = &function; return 0; }

int cuInit() { return NO_DEVICE; }
int cuCtxGetCurrent() { return NO_DEVICE; }
int cuCtxGetLimit() { return NO_DEVICE; }
int cuCtxPopCurrent() { return NO_DEVICE; }
int cuCtxPushCurrent() { return NO_DEVICE; }
int cuDeviceGet() { return NO_DEVICE; }
int cuDeviceGetCount() { return NO_DEVICE; }
int cuGetErrorName() { return NO_DEVICE; }
int cuGetErrorString() { return NO_DEVICE; }
int cuLaunchCooperativeKernel() { return NO_DEVICE; }
int cuLaunchKernel() { return NO_DEVICE; }
int cuLaunchKernelEx() { return NO_DEVICE; }
int cuLibraryLoadFromFile() { return NO_DEVICE; }
int cuLinkAddData() { return NO_DEVICE; }
int cuLinkComplete() { return NO_DEVICE; }
int cuLinkCreate() { return NO_DEVICE; }
int cuLinkDestroy() { return NO_DEVICE; }
int cuOccupancyMaxPotentialClusterSize() { return NO_DEVICE; }
int cuStreamGetCtx() { return NO_DEVICE; }
}
