/* SPDX-License-Identifier: Apache-2.0 */
/* As much of Arduino as the library's examples use, over a pseudo-terminal of this computer: so that they run here. */
#ifndef ARDUINO_H
#define ARDUINO_H

#include <cstddef>
#include <cstdint>

class HostSerial {
public:
    void begin(unsigned long baud);
    int available();
    int read();
    size_t write(const uint8_t *bytes, size_t count);
    size_t print(const char *text);
    size_t print(uint32_t number);
    size_t println(uint32_t number);
    size_t println(int number);
};

extern HostSerial Serial;
unsigned long micros();
int analogRead(uint8_t pin);

#endif
