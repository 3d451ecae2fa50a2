// A stand-in for NVRTC: it has the system's C++ compiler make a library of the kernels, beside this
// library, and gives its path as the compiled code.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <functional>
#include <mutex>
#include <sstream>
#include <string>
#include <unistd.h>

namespace {

struct Program { std::string source, name, log, path; };

std::string folder() {
    Dl_info info;
    dladdr(reinterpret_cast<void*>(&folder), &info);
    const std::string path = info.dli_fname;
    return path.substr(0, path.rfind('/'));
}

std::string header() {
    std::stringstream all;
    all << std::ifstream(CODA_KERNEL_HEADER).rdbuf();
    return all.str();
}

}  // namespace

#define CALL extern "C" __attribute__((visibility("default"))) int

// No version of the real one, and another for every header that kernels are compiled with: what is
// kept of compiled kernels by version must not be mistaken.
CALL nvrtcVersion(int* major, int* minor) {
    *major = 0;
    *minor = int(std::hash<std::string>{}(header()) & 0x7fffffff);
    return 0;
}

CALL nvrtcCreateProgram(Program** program, const char* source, const char* name, int, const char**,
                        const char**) {
    *program = new Program{source, name ? name : "kernel", "", ""};
    return 0;
}

CALL nvrtcCompileProgram(Program* program, int, const char**) {
    static std::mutex lock;
    std::lock_guard<std::mutex> guard(lock);
    const size_t key = std::hash<std::string>{}(header() + program->source);
    const std::string stem = folder() + "/kernels-" + std::to_string(key);
    program->path = stem + ".so";
    if (access(program->path.c_str(), R_OK) == 0) return 0;
    const std::string own = stem + "-" + std::to_string(getpid());
    std::ofstream(own + ".cpp") << program->source;
    const std::string command = std::string(CODA_COMPILER) +
        " -std=c++17 -O2 -ffp-contract=off -fPIC -shared -w -include " CODA_KERNEL_HEADER " -o " + own +
        ".so " + own + ".cpp > " + own + ".log 2>&1";
    const int failed = std::system(command.c_str());
    std::stringstream log;
    log << std::ifstream(own + ".log").rdbuf();
    program->log = log.str();
    std::remove((own + ".log").c_str());
    if (failed) return 6;
    std::remove((own + ".cpp").c_str());
    // Several processes may compile the same: each renames a whole file.
    return std::rename((own + ".so").c_str(), program->path.c_str()) ? 11 : 0;
}

CALL nvrtcGetProgramLogSize(Program* program, size_t* size) { return *size = program->log.size() + 1, 0; }
CALL nvrtcGetProgramLog(Program* program, char* log) {
    return std::memcpy(log, program->log.c_str(), program->log.size() + 1), 0;
}
CALL nvrtcGetCUBINSize(Program* program, size_t* size) { return *size = program->path.size() + 1, 0; }
CALL nvrtcGetCUBIN(Program* program, char* code) {
    return std::memcpy(code, program->path.c_str(), program->path.size() + 1), 0;
}
CALL nvrtcDestroyProgram(Program** program) { return delete *program, 0; }
