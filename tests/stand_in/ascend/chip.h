// A chip that is host memory and one thread for each stream: what the parts of this runtime share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace chip {

constexpr int OK = 0, INVALID = 107000, NO_CONTEXT = 107002, OUT_OF_MEMORY = 207001;

// Writes a name into the file that ASCEND_STAND_IN_CALLS names; once in a process, by the macro below.
bool tell(const char* name);
#define CALLED                                        \
    {                                                 \
        static const bool told = chip::tell(__func__); \
        (void)told;                                   \
    }

// A whole number from the environment.
int64_t setting(const char* name, int64_t otherwise);

double now_ms();

// A task for a stream, behind all that the stream was given. A null stream is the chip's default one.
void enqueue(void* stream, std::function<void()> task);

// Bytes that somebody takes from the chip's memory, or gives back (negative); false where it has not so many.
bool claim(int64_t bytes);

}  // namespace chip
