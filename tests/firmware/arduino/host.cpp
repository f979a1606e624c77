// SPDX-License-Identifier: Apache-2.0
// Runs a sketch: prints the path of Serial's pseudo-terminal and loops for ever, or the given number of times and then
// prints the CRC-32 of the adapter's factors.
#include "Arduino.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "lmcu.h"

void setup();
void loop();
HostSerial Serial;
static int line = -1;

void HostSerial::begin(unsigned long)
{
    struct termios raw = {};
    line = posix_openpt(O_RDWR | O_NOCTTY);
    if (line < 0 || grantpt(line) != 0 || unlockpt(line) != 0) {
        std::exit(1);
    }
    const int other = open(ptsname(line), O_RDWR | O_NOCTTY);  // stays open: readers may come and go
    tcgetattr(other, &raw);
    raw.c_iflag = raw.c_oflag = raw.c_lflag = 0;
    tcsetattr(other, TCSANOW, &raw);
    std::printf("%s\n", ptsname(line));
    std::fflush(stdout);
}

int HostSerial::available()
{
    struct pollfd waiting = {line, POLLIN, 0};
    return poll(&waiting, 1, 0) == 1 && (waiting.revents & POLLIN) != 0;
}

int HostSerial::read()
{
    uint8_t byte = 0;
    return ::read(line, &byte, 1) == 1 ? byte : -1;
}

size_t HostSerial::write(const uint8_t *bytes, size_t count)
{
    return (size_t)::write(line, bytes, count);
}

size_t HostSerial::print(const char *text) { return (size_t)std::fprintf(stderr, "%s", text); }
size_t HostSerial::print(uint32_t number) { return (size_t)std::fprintf(stderr, "%u", number); }
size_t HostSerial::println(uint32_t number) { return (size_t)std::fprintf(stderr, "%u\n", number); }
size_t HostSerial::println(int number) { return (size_t)std::fprintf(stderr, "%d\n", number); }

unsigned long micros()
{
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return (unsigned long)std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

int analogRead(uint8_t) { return (int)(micros() & 1023); }

int main(int count, char **arguments)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setup();
    for (long left = count > 1 ? std::atol(arguments[1]) : -1; left != 0; left -= left > 0) {
        loop();
        if (left < 0 && !Serial.available()) {
            usleep(100);
        }
    }
    std::printf("%u\n", lmcu_adapter_crc32());
    return 0;
}
